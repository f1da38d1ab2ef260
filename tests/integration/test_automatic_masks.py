"""The automatic mask generator finds what Meta's own finds, on the same graphs."""

import io
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco

from modeling.meta_generator import MetaGenerator, Record
from samserve.adapters.cache.local_lease import LocalEncodeLease
from samserve.adapters.cache.memory import MemoryEmbeddingCache
from samserve.adapters.images.decoder import PillowImageDecoder
from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.adapters.onnxruntime import OnnxRuntimeImageEncoder, OnnxRuntimeMaskDecoder
from samserve.domain.automatic import AutomaticMaskParameters
from samserve.domain.candidates import Candidate, pixel_box
from samserve.domain.manifest import ModelManifest
from samserve.gateway.settings import default_model_repository
from samserve.observability.metrics import Metrics
from samserve.usecases.automatic import AutomaticMaskGenerator, GenerationQuery
from samserve.usecases.embedder import ImageEmbedder, ImageInput
from samserve.usecases.load.admission import Admission

COFFEE = Path(__file__).parents[2] / "docs" / "photos" / "coffee.jpg"
REPOSITORY = default_model_repository()


@asynccontextmanager
async def generator() -> AsyncIterator[AutomaticMaskGenerator]:
    manifest = ModelManifest.read(REPOSITORY)
    encoder, decoder = OnnxRuntimeImageEncoder(REPOSITORY), OnnxRuntimeMaskDecoder(REPOSITORY)
    image_decoder = PillowImageDecoder(10**8, workers=1)
    embedder = ImageEmbedder(
        manifest=manifest,
        image_decoder=image_decoder,
        image_encoder=encoder,
        cache=MemoryEmbeddingCache(1 << 26, Metrics().caches),
        lease=LocalEncodeLease(),
        encodes=Admission("encodes", 1, 1.0),
        cache_secret=b"",
    )
    yield AutomaticMaskGenerator(
        manifest=manifest,
        embedder=embedder,
        mask_decoder=decoder,
        mask_renderer=PillowMaskRenderer(),
        requests=Admission("requests", 1, 1.0),
        generations=Admission("generations", 1, 1.0),
    )
    await embedder.close()
    for adapter in (encoder, decoder, image_decoder):
        adapter.close()


async def generated(pixels: npt.NDArray[np.uint8], parameters: dict[str, Any]) -> list[Candidate]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    query = GenerationQuery(ImageInput(data=file.getvalue()), AutomaticMaskParameters(**parameters))
    async with generator() as under_test, aclosing(under_test.search(query)) as events:
        return [event async for event in events if isinstance(event, Candidate)]


def photo(part: tuple[int, int, int, int], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    with Image.open(COFFEE) as coffee:
        return np.asarray(coffee.convert("RGB").crop(part).resize(size))


def intersection_over_union(mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((mask & other).sum() / max(1, (mask | other).sum()))


@pytest.fixture(scope="module")
def lenient() -> dict[str, Any]:
    """Thresholds that many of this model's masks pass, and not all, whatever its weights."""
    for offset in (1.0, 0.3, 0.1, 0.03):
        parameters: dict[str, Any] = {"points_per_side": 5, "stability_score_offset": offset, "box_nms_thresh": 1.0}
        everything = MetaGenerator(REPOSITORY, pred_iou_thresh=0.0, stability_score_thresh=0.0, **parameters)
        records = everything.generate(photo((0, 0, 600, 400), (240, 160)))
        stability_score = np.quantile([record["stability_score"] for record in records], 0.3)
        if stability_score > 0.3:
            break
    return {
        "points_per_side": 6,
        "pred_iou_thresh": float(np.quantile([record["predicted_iou"] for record in records], 0.2)),
        "stability_score_thresh": float(stability_score),
        "stability_score_offset": offset,
    }


WHOLE = (0, 0, 600, 400)
CASES: dict[str, tuple[npt.NDArray[np.uint8], dict[str, Any]]] = {
    "whole image": (photo(WHOLE, (300, 200)), {}),
    "batches that do not divide the grid": (
        photo((100, 0, 400, 400), (151, 203)),
        {"points_per_side": 7, "points_per_batch": 10},
    ),
    "stricter suppression": (photo(WHOLE, (400, 267)), {"box_nms_thresh": 0.4}),
    "no thresholds": (
        photo(WHOLE, (240, 160)),
        {"points_per_side": 5, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.9},
    ),
    "two layers of crops": (
        photo(WHOLE, (301, 400)),
        {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.5},
    ),
    "small regions": (photo(WHOLE, (300, 200)), {"points_per_side": 8, "min_mask_region_area": 300}),
    "small regions in one layer of crops": (
        photo(WHOLE, (303, 200)),
        {"crop_n_layers": 1, "min_mask_region_area": 150},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_masks_are_those_of_metas_generator(case: str, lenient: dict[str, Any]) -> None:
    pixels, parameters = CASES[case][0], lenient | CASES[case][1]
    ours = await generated(pixels, parameters)
    theirs = MetaGenerator(REPOSITORY, **parameters).generate(pixels)
    pairs = list(matched(ours, theirs))
    print(f"{case}: {len(ours)} masks, Meta's {len(theirs)}, matched {len(pairs)}")
    # Not more where masks of whole objects suppress each other.
    assert len(theirs) >= 5
    assert len(ours) == len(theirs) == len(pairs)
    for candidate, record in pairs:
        assert candidate.point == pytest.approx(record["point_coords"][0])
        x0, y0, x1, y1 = candidate.crop_box
        assert [x0, y0, x1 - x0, y1 - y0] == record["crop_box"]
        mask = candidate.packed.unpack()
        assert mask.iou_prediction == pytest.approx(record["predicted_iou"], abs=1e-4)
        assert mask.stability_score == pytest.approx(record["stability_score"], abs=0.01)
        assert mask.area == pytest.approx(record["area"], rel=0.01, abs=4)
        bx0, by0, bx1, by1 = pixel_box(mask)
        assert [bx0, by0, bx1 - bx0, by1 - by0] == pytest.approx(record["bbox"], abs=1)


def matched(ours: list[Candidate], theirs: list[Record]) -> list[tuple[Candidate, Record]]:
    """Pairs of masks with an IoU of at least 0.99, each mask in one pair only."""
    left = [(record, coco.decode(record["segmentation"]).astype(bool)) for record in theirs]
    pairs = []
    for candidate in ours:
        full = candidate.packed.unpack().full()
        ious = [intersection_over_union(full, other) for _, other in left]
        best = int(np.argmax(ious)) if ious else -1
        if best >= 0 and ious[best] >= 0.99:
            pairs.append((candidate, left.pop(best)[0]))
    return pairs
