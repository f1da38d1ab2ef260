"""What the use cases are given in place of the ports' own implementations, so that each use is told of its call."""

from collections.abc import Callable

from samserve.calls import current_call
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import CropBox, Size
from samserve.domain.prompts import PromptBatch
from samserve.embedder import EmbeddedImage, ImageEmbedder, ImageSource
from samserve.ports import DecodedMasks, MaskDecoder


class ObservedImageEmbedder(ImageEmbedder):
    """An `ImageEmbedder` that tells the call what it returns."""

    async def embed(
        self,
        image: ImageSource,
        tenant: str,
        check: Callable[[Size], None] = lambda original_size: None,
        crop_box: CropBox | None = None,
    ) -> EmbeddedImage:
        """See `ImageEmbedder.embed`."""
        embedded = await super().embed(image, tenant, check, crop_box)
        current_call().embedded(embedded)
        return embedded


class ObservedMaskDecoder:
    """Implements `MaskDecoder` by another one, and tells the call what that returns."""

    def __init__(self, decoder: MaskDecoder) -> None:
        self._decoder = decoder

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        """See `MaskDecoder.decode`."""
        decoded = await self._decoder.decode(embedding, prompts)
        current_call().decoded(decoded)
        return decoded
