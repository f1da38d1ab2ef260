"""The use case behind every prompt: an image's embedding, encoded once."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from samserve.domain.embedding import Embedding
from samserve.domain.errors import EmbeddingNotFound, within
from samserve.domain.geometry import CropBox, Size
from samserve.domain.identity import EmbeddingKey, ImageId
from samserve.domain.manifest import ModelManifest
from samserve.usecases.load.admission import Admission
from samserve.usecases.load.single_flight import SingleFlight
from samserve.usecases.ports import EmbeddingCache, EmbeddingSource, EncodeLease, ImageDecoder, ImageEncoder
from samserve.usecases.timings import Stage, StageTimings

_LEASE_POLL_SECONDS = 0.02
_LEASE_POLL_MAX_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image as given by a caller: the file's bytes, or the id of an image that was sent before.

    Attributes:
        field: of the request that it came in, for errors.
    """

    data: bytes | None = None
    image_id: ImageId | None = None
    field: str = "image"


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingResult:
    """An image's embedding, where it came from and what getting it took.

    Attributes:
        notes: of the image decoder; none where the embedding was cached.
    """

    image_id: ImageId
    embedding: Embedding
    source: EmbeddingSource
    timings: StageTimings
    notes: tuple[str, ...] = ()


class ImageEmbedder:
    """Finds an embedding in the cache or encodes the image, once for all concurrent callers.

    Args:
        encodes: admission of encodes; a cached image needs none.
        cache_secret: keys the cache, see `EmbeddingKey.derive`.
    """

    def __init__(
        self,
        *,
        manifest: ModelManifest,
        image_decoder: ImageDecoder,
        image_encoder: ImageEncoder,
        cache: EmbeddingCache,
        lease: EncodeLease,
        encodes: Admission,
        cache_secret: bytes,
    ) -> None:
        self._manifest = manifest
        self._image_decoder = image_decoder
        self._image_encoder = image_encoder
        self._cache = cache
        self._lease = lease
        self._encodes = encodes
        self._cache_secret = cache_secret
        self._flights: SingleFlight[EmbeddingResult] = SingleFlight()

    async def embed(
        self,
        image: ImageInput,
        tenant: str,
        check: Callable[[Size], None] = lambda original_size: None,
        crop_box: CropBox | None = None,
    ) -> EmbeddingResult:
        """Return the embedding of an image, or of a crop of it, which is encoded and cached as a separate image.

        Args:
            crop_box: inside the oriented image; the embedding's frame is then that of the crop.
            check: is called with the original size as soon as it is known and before anything is encoded; what it
                raises refuses the request.

        Raises:
            InvalidImage: the file cannot be served; of `image.field`.
            EmbeddingNotFound: only an id was given, and its embedding is neither cached nor being made.
            CapacityExceeded: too many encodes are in flight.
            ModelUnavailable: the encoder cannot be reached or failed.
        """
        data = image.data or b""
        image_id = image.image_id if image.image_id else await asyncio.to_thread(ImageId.of, data)
        key = EmbeddingKey.derive(self._cache_secret, tenant, image_id, self._manifest.fingerprint, crop_box)
        started = time.perf_counter()
        cached = await self._cache.get(key)
        timings = StageTimings({Stage.CACHE: time.perf_counter() - started})
        if cached:
            check(cached.embedding.frame.original_size)
            return EmbeddingResult(image_id, cached.embedding, cached.source, timings)
        if image.data is not None:
            with within(image.field):
                original_size = await self._image_decoder.probe(image.data)
            check(original_size)
        elif key not in self._flights:
            raise EmbeddingNotFound(image_id)
        joined = time.perf_counter()
        with within(image.field):
            made, led = await self._flights.join(key, partial(self._lead, key, image_id, data, crop_box))
        if led:
            return replace(made, timings=timings + made.timings)
        check(made.embedding.frame.original_size)
        timings += StageTimings({Stage.QUEUE: time.perf_counter() - joined})
        return EmbeddingResult(image_id, made.embedding, EmbeddingSource.COALESCED, timings, made.notes)

    async def inspect(self, image: ImageInput, check: Callable[[Size], None]) -> ImageId:
        """Return the id of an image whose embedding is not needed. If the file is given, its header is checked.

        Args:
            check: is called with the original size; what it raises refuses the request.

        Raises:
            InvalidImage: the file cannot be served; of `image.field`.
        """
        if image.data is None:
            assert image.image_id is not None
            return image.image_id
        with within(image.field):
            original_size = await self._image_decoder.probe(image.data)
        check(original_size)
        return await asyncio.to_thread(ImageId.of, image.data)

    async def close(self) -> None:
        """Cancel running encodes."""
        await self._flights.close()

    async def _lead(
        self,
        key: EmbeddingKey,
        image_id: ImageId,
        data: bytes,
        crop_box: CropBox | None,
        publish: Callable[[EmbeddingResult], None],
    ) -> None:
        started = time.perf_counter()
        poll_seconds = _LEASE_POLL_SECONDS
        with self._encodes.admit() as begin:
            while True:
                async with self._lease.try_acquire(key) as granted:
                    # The previous holder of the lease, in this gateway or another one, may just have stored it.
                    cached = await self._cache.get(key)
                    waited = StageTimings({Stage.CACHE: time.perf_counter() - started})
                    if cached:
                        publish(EmbeddingResult(image_id, cached.embedding, cached.source, waited))
                        return
                    if granted:
                        embedded = await self._encode(image_id, data, crop_box, waited, begin)
                        publish(embedded)
                        await self._cache.put(key, embedded.embedding)
                        return
                await asyncio.sleep(poll_seconds)
                poll_seconds = min(2 * poll_seconds, _LEASE_POLL_MAX_SECONDS)

    async def _encode(
        self,
        image_id: ImageId,
        data: bytes,
        crop_box: CropBox | None,
        waited: StageTimings,
        begin: Callable[[], None],
    ) -> EmbeddingResult:
        decoded = await self._image_decoder.decode(data, self._manifest.image_size, crop_box)
        begin()
        encoded = await self._image_encoder.encode(decoded)
        timings = waited + decoded.timings + encoded.timings
        embedding = Embedding(encoded.values, decoded.frame)
        return EmbeddingResult(image_id, embedding, EmbeddingSource.ENCODED, timings, decoded.notes)
