"""Warming up the models of a build."""

import numpy as np

from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import click_prompts
from samserve.usecases.ports import DecodedImage, ImageEncoder, MaskDecoder
from samserve.usecases.timings import StageTimings


async def warm_up(manifest: ModelManifest, encoder: ImageEncoder, decoder: MaskDecoder) -> None:
    """Run both models once, so that the first caller does not wait for their lazy initialisation.

    Raises what the models raise.
    """
    side = manifest.image_size
    frame = ImageFrame(Size(side, side), side)
    encoded = await encoder.encode(DecodedImage(np.zeros((3, side, side), dtype=np.uint8), frame, StageTimings()))
    click = click_prompts([np.full(2, side / 2)], frame, manifest.low_res_size)
    await decoder.decode(Embedding(encoded.values, frame), click)
