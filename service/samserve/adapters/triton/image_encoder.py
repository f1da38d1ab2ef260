"""The image encoder on Triton."""

import time

import numpy as np

from samserve.adapters.triton.model import Arrays, TritonModel
from samserve.usecases.ports import DecodedImage, EncodedImage
from samserve.usecases.timings import Stage, StageTimings


class TritonImageEncoder:
    """Implements `ImageEncoder`. Triton queues the requests, so queueing and computation are reported together as the
    round trip.

    Args:
        embedding_shape: `(C, H, W)` of the model.
    """

    def __init__(self, model: TritonModel, embedding_shape: tuple[int, int, int]) -> None:
        self._model = model
        self._outputs = {"image_embeddings": ((1, *embedding_shape), np.float16)}

    async def encode(self, image: DecodedImage) -> EncodedImage:
        started = time.perf_counter()
        inputs: Arrays = {"image": image.pixels[None], "input_size": np.array([image.frame.input_size], dtype=np.int32)}
        outputs = await self._model.run(inputs, self._outputs)
        timings = StageTimings({Stage.QUEUE: 0.0, Stage.ENCODE: time.perf_counter() - started})
        return EncodedImage(outputs["image_embeddings"][0], timings)
