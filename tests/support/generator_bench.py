"""A mask generator on such an embedder, whose model finds discs."""

import numpy as np

from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.domain.embedding import Embedding
from samserve.domain.prompts import PromptBatch
from samserve.usecases.automatic import (
    AutomaticMaskGenerator,
)
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import DecodedMasks
from samserve.usecases.timings import StageTimings
from tests.support.embedder_bench import MANIFEST, Bench


class DiscDecoder:
    """For each point a disc around it, three times, with predicted IoUs of 0.99, 0.9 and 0.5."""

    def __init__(self) -> None:
        self.batches = 0

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        self.batches += 1
        centres = (np.arange(MANIFEST.low_res_size) + 0.5) * MANIFEST.image_size / MANIFEST.low_res_size
        x, y = prompts.point_coords[:, 0, 0, None, None], prompts.point_coords[:, 0, 1, None, None]
        disc = 20 * (5 - np.hypot(centres[None, None, :] - x, centres[None, :, None] - y))
        masks = np.repeat(disc[:, None], 4, axis=1).astype(np.float32)
        ious = np.tile(np.array([0.0, 0.99, 0.9, 0.5], dtype=np.float32), (len(prompts), 1))
        return DecodedMasks(masks, ious, StageTimings())


class GeneratorBench:
    def __init__(self, decoder: DiscDecoder | None = None) -> None:
        bench = Bench()
        bench.encoder.let.set()
        self.decoder = decoder or DiscDecoder()
        self.requests, self.generations = Admission("requests", 4, 1.0), Admission("generations", 1, 1.0)
        self.generator = AutomaticMaskGenerator(
            manifest=MANIFEST,
            embedder=bench.embedder,
            mask_decoder=self.decoder,
            mask_renderer=PillowMaskRenderer(),
            requests=self.requests,
            generations=self.generations,
        )
