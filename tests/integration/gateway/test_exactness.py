"""Masks through the gateway equal those of the PyTorch model with SAM's own pre- and post-processing.

The reference shares no code with the service: Pillow's resizing and `ResizeLongestSide`'s formulas before the model,
transformers' `SamModel` one prompt at a time, `Sam.postprocess_masks` after it.
"""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco

from modeling.checkpoints import load_checkpoint
from modeling.prompts import Prompt
from modeling.reference import ReferenceSam
from samserve.gateway.settings import default_model_repository
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

COFFEE = Path(__file__).parents[3] / "docs" / "photos" / "coffee.jpg"
Mask = npt.NDArray[np.bool_]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture(scope="module")
def reference() -> ReferenceSam:
    return ReferenceSam(load_checkpoint("tiny", default_model_repository()).model)


@dataclass(frozen=True)
class Case:
    """A photo and prompts on it, in pixels of the original."""

    photo: Image.Image
    prompts: list[Prompt]

    def message(self) -> pb.SegmentRequest:
        file = io.BytesIO()
        self.photo.save(file, "PNG", compress_level=1)
        return pb.SegmentRequest(
            image=pb.Image(data=file.getvalue()),
            multimask_output=True,
            prompts=[
                pb.Prompt(
                    points=[
                        pb.Point(x=x, y=y, label=pb.POINT_LABEL_FOREGROUND if label else pb.POINT_LABEL_BACKGROUND)
                        for (x, y), label in zip(prompt.points, prompt.labels, strict=True)
                    ],
                    box=pb.Box(x0=prompt.box[0], y0=prompt.box[1], x1=prompt.box[2], y1=prompt.box[3])
                    if prompt.box
                    else None,
                )
                for prompt in self.prompts
            ],
        )


def random_case(seed: int) -> Case:
    """Part of a photo at a random size and aspect ratio, and prompts of every kind on it."""
    rng = np.random.default_rng(seed)
    with Image.open(COFFEE) as photo:
        left, top = int(rng.integers(0, 300)), int(rng.integers(0, 200))
        part = photo.crop((left, top, int(rng.integers(left + 40, 601)), int(rng.integers(top + 40, 401))))
        scale = rng.uniform(0.4, 3.0)
        width, height = (max(16, round(side * scale)) for side in part.size)
        part = part.resize((width, height))

    def point() -> tuple[float, float]:
        # Halves are exact in float32, in which coordinates travel.
        return round(2 * rng.uniform(0, width)) / 2, round(2 * rng.uniform(0, height)) / 2

    prompts = []
    for kind in range(4):
        points = tuple(point() for _ in range(kind if kind else int(rng.integers(1, 6))))
        labels = tuple(int(label) for label in rng.integers(0, 2, len(points)))
        (x0, y0), (x1, y1) = point(), point()
        box = (min(x0, x1), min(y0, y1), max(x0, x1) + 1, max(y0, y1) + 1)
        box = (box[0], box[1], min(box[2], width), min(box[3], height))
        boxed = kind >= 2 and box[0] < box[2] and box[1] < box[3]
        prompts.append(Prompt(points, labels, box if boxed else None))
    return Case(part, prompts)


def expected_masks(reference: ReferenceSam, case: Case) -> list[list[Mask]]:
    """SAM's predictor: three masks for each prompt."""
    side = reference.sizes.image_size
    width, height = case.photo.size
    scale = side / max(height, width)
    new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
    resized = np.asarray(case.photo.convert("RGB").resize((new_width, new_height), Image.Resampling.BILINEAR))
    square = np.zeros((3, side, side), dtype=np.uint8)
    square[:, :new_height, :new_width] = resized.transpose(2, 0, 1)
    embedding = reference.embed(square, (new_height, new_width))
    across, down = new_width / width, new_height / height

    masks = []
    for prompt in case.prompts:
        box = prompt.box
        scaled = Prompt(
            tuple((x * across, y * down) for x, y in prompt.points),
            prompt.labels,
            (box[0] * across, box[1] * down, box[2] * across, box[3] * down) if box else None,
        )
        low_res = torch.from_numpy(reference.predict(embedding, scaled)[0][1:])[None]
        logits = F.interpolate(low_res, (side, side), mode="bilinear", align_corners=False)
        logits = F.interpolate(
            logits[..., :new_height, :new_width], (height, width), mode="bilinear", align_corners=False
        )
        masks.append(list((logits[0] > 0).numpy()))
    return masks


async def test_masks_equal_those_of_the_pytorch_model(served: Served, reference: ReferenceSam) -> None:
    ious = []
    for seed in range(12):
        case = random_case(seed)
        answer = await served.stub.Segment(case.message())
        for result, expected in zip(answer.results, expected_masks(reference, case), strict=True):
            for mask, want in zip(result.masks, expected, strict=True):
                size = [mask.coco_rle.size.height, mask.coco_rle.size.width]
                got = coco.decode({"size": size, "counts": mask.coco_rle.counts}) > 0
                union = np.logical_or(got, want).sum()
                # Masks of a few of the decoder's pixels have no meaningful IoU: their border is most of them.
                decoder_pixel = (max(size) / reference.sizes.low_res_size) ** 2
                if union >= max(50, 4 * decoder_pixel):
                    overlap = np.logical_and(got, want).sum()
                    ious.append(overlap / union)
                    # One pixel of the border is more than a hundredth of a mask of some dozens.
                    assert union - overlap <= max(1, union // 100)
    print(f"{len(ious)} masks, IoU with PyTorch's: least {min(ious):.5f}, median {np.median(ious):.5f}")
    assert len(ious) > 100
    assert np.median(ious) >= 0.999
