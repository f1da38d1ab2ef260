"""CLIP on Triton."""

import numpy as np
import numpy.typing as npt

from samserve.adapters.triton.model import TritonModel
from samserve.domain.clip_manifest import ClipManifest


class TritonTextRanker:
    """Implements `TextRanker`. Triton batches the texts and crops of different requests.

    Args:
        images: the image encoder.
        texts: the text encoder.
        manifest: of both.
    """

    def __init__(self, images: TritonModel, texts: TritonModel, manifest: ClipManifest) -> None:
        self.image_size = manifest.image_size
        self._images = images
        self._texts = texts
        self._width = manifest.embedding_width

    async def embed_texts(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        wanted = {"text_embeds": ((len(tokens), self._width), np.float32)}
        return (await self._texts.run({"input_ids": tokens}, wanted))["text_embeds"]

    async def embed_crops(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        wanted = {"image_embeds": ((len(crops), self._width), np.float32)}
        return (await self._images.run({"image": crops}, wanted))["image_embeds"]
