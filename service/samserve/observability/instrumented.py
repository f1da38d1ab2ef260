"""Decorators of the embedder and of ports, which record each use in the call's record."""

from collections.abc import Callable

from samserve.domain.embedding import Embedding
from samserve.domain.geometry import CropBox, Size
from samserve.domain.identity import EmbeddingKey
from samserve.domain.prompts import PromptBatch
from samserve.observability.call import current_call
from samserve.usecases.embedder import EmbeddingResult, ImageEmbedder, ImageInput
from samserve.usecases.ports import (
    CachedEmbedding,
    DecodedImage,
    DecodedMasks,
    EmbeddingCache,
    EncodedImage,
    ImageDecoder,
    ImageEncoder,
    MaskDecoder,
)
from samserve.usecases.timings import Stage


class InstrumentedImageEmbedder(ImageEmbedder):
    """An `ImageEmbedder` that records its results in the call."""

    async def embed(
        self,
        image: ImageInput,
        tenant: str,
        check: Callable[[Size], None] = lambda original_size: None,
        crop_box: CropBox | None = None,
    ) -> EmbeddingResult:
        call = current_call()
        if image.image_id:
            call.image_id = image.image_id
        embedded = await super().embed(image, tenant, check, crop_box)
        call.embedded(embedded)
        return embedded


class InstrumentedEmbeddingCache:
    """Wraps an `EmbeddingCache`."""

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        with current_call().span("cache.get") as span:
            hit = await self._cache.get(key)
            span.set_attribute("samserve.found_in", hit.source.value if hit else "none")
            return hit

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        with current_call().span("cache.put"):
            await self._cache.put(key, embedding)


class InstrumentedImageDecoder:
    """Wraps an `ImageDecoder`."""

    def __init__(self, decoder: ImageDecoder) -> None:
        self._decoder = decoder

    async def probe(self, data: bytes) -> Size:
        return await self._decoder.probe(data)

    async def decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        with current_call().span(Stage.IMAGE_DECODE.value):
            return await self._decoder.decode(data, image_size, crop_box)


class InstrumentedImageEncoder:
    """Wraps an `ImageEncoder`."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder

    async def encode(self, image: DecodedImage) -> EncodedImage:
        with current_call().span(Stage.ENCODE.value):
            return await self._encoder.encode(image)


class InstrumentedMaskDecoder:
    """Wraps a `MaskDecoder`, and records its results in the call."""

    def __init__(self, decoder: MaskDecoder) -> None:
        self._decoder = decoder

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        call = current_call()
        with call.span(Stage.MASK_DECODE.value):
            decoded = await self._decoder.decode(embedding, prompts)
        call.decoded(decoded)
        return decoded
