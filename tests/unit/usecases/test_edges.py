"""Edges from the masks of a grid of clicks, on a model that finds discs."""

import numpy as np
import pytest

from samserve.domain.embedding import Embedding
from samserve.domain.errors import CapacityExceeded
from samserve.domain.prompts import PromptBatch
from samserve.usecases.edges import EdgeDetector
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import DecodedMasks, MaskDecoder
from samserve.usecases.timings import StageTimings
from tests.support.embedder_bench import DOG, MANIFEST, SIZE, Bench


class SceneOfOneDisc:
    """Finds the same disc from wherever it is clicked, or nothing."""

    def __init__(self, radius: float) -> None:
        centres = (np.arange(MANIFEST.low_res_size) + 0.5) * 2
        disc = radius - np.hypot(centres[None, :] - 32, centres[:, None] - 24)
        self._masks = np.broadcast_to(disc.astype(np.float32), (4, *disc.shape))

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        masks = np.broadcast_to(self._masks, (len(prompts), *self._masks.shape))
        return DecodedMasks(masks, np.full((len(prompts), 4), 0.9, np.float32), StageTimings())


class EdgeBench:
    def __init__(self, decoder: MaskDecoder) -> None:
        bench = Bench()
        bench.encoder.let.set()
        self.requests, self.generations = Admission("requests", 4, 1.0), Admission("generations", 1, 1.0)
        self.detector = EdgeDetector(
            manifest=MANIFEST,
            embedder=bench.embedder,
            mask_decoder=decoder,
            requests=self.requests,
            generations=self.generations,
        )


async def test_the_edge_of_a_disc_is_a_ring() -> None:
    detected = await EdgeBench(SceneOfOneDisc(radius=12)).detector.detect(DOG, "")
    assert detected.edges.shape == SIZE
    assert detected.edges.dtype == np.uint8
    assert detected.edges.max() == 255
    # In the original's pixels, of which the model's frame has 1.6 to each.
    distances = np.hypot(*(np.argwhere(detected.edges > 128) + 0.5 - (15, 20)).T)
    assert len(distances) > 20
    np.testing.assert_allclose(distances, 7.5, atol=2)


async def test_an_image_without_masks_has_no_edges() -> None:
    detected = await EdgeBench(SceneOfOneDisc(radius=-1)).detector.detect(DOG, "")
    assert not detected.edges.any()


async def test_edges_take_a_place_among_requests_and_generations() -> None:
    bench = EdgeBench(SceneOfOneDisc(radius=12))
    with bench.generations.admit(), pytest.raises(CapacityExceeded, match="generations"):
        await bench.detector.detect(DOG, "")
    assert bench.requests.in_flight == 0
    await bench.detector.detect(DOG, "")
    assert (bench.requests.in_flight, bench.generations.in_flight) == (0, 0)
