"""A session: the objects that run one build of the models on Triton."""

import asyncio
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from samserve.adapters.triton.connection import TritonConnection
from samserve.adapters.triton.image_encoder import TritonImageEncoder
from samserve.adapters.triton.mask_decoder import TritonMaskDecoder
from samserve.adapters.triton.model import TritonModel
from samserve.adapters.triton.scratch import Scratch
from samserve.adapters.triton.shared_memory import SharedMemory, SharedMemoryUnavailable, is_gone
from samserve.adapters.triton.slab import SlabEmbeddingCache, slot_nbytes
from samserve.adapters.triton.text_ranker import TritonTextRanker
from samserve.domain.clip_manifest import IMAGE_ENCODER, TEXT_ENCODER, ClipManifest
from samserve.domain.embedding import Embedding
from samserve.domain.errors import TextUnavailable
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest
from samserve.domain.prompts import PROMPTS_PER_DECODE, PromptBatch, click_prompts
from samserve.usecases.observers import CacheObserver

_log = logging.getLogger(__name__)

SHARED_MEMORY = "shared_memory"
WIRE = "wire"


class TritonSession:
    """Encoder, decoder and shared memory for one build of the models. It ends when Triton serves another build.

    Attributes:
        manifest: what the build is.
        transport: how tensors travel to the decoder, `shared_memory` or `wire`; to the encoder likewise, unless it
            is on a Triton of its own.
        encoder: implements `ImageEncoder`.
        decoder: implements `MaskDecoder`.
    """

    def __init__(
        self, connection: TritonConnection, manifest: ModelManifest, memory: SharedMemory | None, slots: int
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._slots = slots
        self.manifest = manifest
        self.transport = WIRE if memory is None else SHARED_MEMORY
        no_masks: npt.NDArray[Any] | None = None
        self._scratch: Scratch | None = None
        if memory is not None:
            shape = (PROMPTS_PER_DECODE, manifest.low_res_size, manifest.low_res_size)
            start = slots * slot_nbytes(manifest.embedding_shape)
            no_masks = memory.array(start, shape, np.float32)
            self._scratch = Scratch(memory, start + no_masks.nbytes)
        # Only cold requests use the encoder, so sending images to a separate encoder over gRPC costs once per image.
        encoder_memory = (None, None) if connection.encodes_elsewhere else (memory, self._scratch)
        self._models = [
            TritonModel(connection, ENCODER, manifest.fingerprint, *encoder_memory),
            TritonModel(connection, DECODER, manifest.fingerprint, memory, self._scratch),
        ]
        self.encoder = TritonImageEncoder(self._models[0], manifest.embedding_shape)
        self.decoder = TritonMaskDecoder(self._models[1], manifest.low_res_size, no_masks)

    @classmethod
    async def open(
        cls, connection: TritonConnection, manifest: ModelManifest, cache_bytes: int, scratch_bytes: int
    ) -> "TritonSession":
        """Open a session, with shared memory if Triton proves to access the same memory, otherwise over gRPC.

        Args:
            cache_bytes: of the slab of embeddings.
            scratch_bytes: for the other tensors of requests in flight; 0 rules shared memory out.

        Raises:
            ModelUnavailable, CapacityExceeded: Triton does not answer as it should.
        """
        by_wire = cls(connection, manifest, None, 0)
        if not scratch_bytes:
            return by_wire
        embedding, prompts = _sample(manifest)
        expected = (await by_wire.decoder.decode(embedding, prompts)).low_res_masks
        slots = cache_bytes // slot_nbytes(manifest.embedding_shape)
        no_masks = 4 * PROMPTS_PER_DECODE * manifest.low_res_size**2
        try:
            nbytes = slots * slot_nbytes(manifest.embedding_shape) + no_masks + scratch_bytes
            memory = await asyncio.to_thread(SharedMemory, nbytes)
        except SharedMemoryUnavailable as error:
            _log.warning("no shared memory with Triton, tensors are sent over gRPC: %s", error)
            return by_wire
        session = cls(connection, manifest, memory, slots)
        try:
            if await session.attach():
                await session._remove_leftovers()
                here = (await session.decoder.decode(embedding, prompts)).low_res_masks
                if np.allclose(here, expected, rtol=1e-2, atol=1e-2):
                    return session
        except BaseException:
            await session.close()
            raise
        _log.info("no shared memory with Triton at %s, tensors are sent over gRPC", connection.address)
        await session.close()
        return by_wire

    async def attach(self) -> bool:
        """Ensure that Triton has this session's memory registered, which a restarted Triton has not.

        Returns:
            False if it cannot have it, so that the session is of no use any more.

        Raises:
            ModelUnavailable: Triton does not answer.
        """
        if self._memory is None or self._memory.name in await self._connection.regions():
            return True
        return await self._connection.register(self._memory.name, self._memory.nbytes)

    def embedding_cache(self, observer: CacheObserver) -> SlabEmbeddingCache | None:
        """The memory tier of the cache, in shared memory if there is some."""
        if self._memory is None:
            return None
        return SlabEmbeddingCache(self._memory, self._slots, self.manifest.embedding_shape, observer)

    async def text_ranker(self, clip: ClipManifest) -> TritonTextRanker:
        """Return CLIP on this Triton.

        Raises:
            TextUnavailable: it does not serve this build of it.
            ModelUnavailable: it cannot be asked.
        """
        for name in (IMAGE_ENCODER, TEXT_ENCODER):
            if not await self._connection.is_ready(name):
                raise TextUnavailable(
                    f"Triton at {self._connection.address} does not serve {name}; add the model and restart the gateway"
                )
            if await self._connection.fingerprint(name) != clip.fingerprint:
                raise TextUnavailable(
                    f"Triton's {name} differs from the gateway's model repository; deploy the same CLIP build to both"
                )
        images, texts = (
            TritonModel(self._connection, name, clip.fingerprint, self._memory, self._scratch)
            for name in (IMAGE_ENCODER, TEXT_ENCODER)
        )
        self._models += [images, texts]
        return TritonTextRanker(images, texts, clip)

    def suspend(self, reason: str) -> None:
        """Triton is down: fail the requests in flight, and all new ones until `resume`."""
        for model in self._models:
            model.suspend(reason)

    def resume(self) -> None:
        """Triton is back with the same build."""
        for model in self._models:
            model.resume()

    async def close(self) -> None:
        """End the session permanently."""
        # Triton must not unmap memory that a running request still writes to, so the next gateway unregisters it.
        in_use = any(model.in_flight for model in self._models) or (
            self._scratch is not None and self._scratch.has_abandoned
        )
        self.suspend("the models were exchanged; ask again")
        if self._memory is not None:
            if not in_use:
                await self._connection.unregister(self._memory.name)
            self._memory.close()

    async def _remove_leftovers(self) -> None:
        """Unregister the memory of gateways on this host that have ended."""
        for name in await self._connection.regions():
            if is_gone(name):
                await self._connection.unregister(name)


def _sample(manifest: ModelManifest) -> tuple[Embedding, PromptBatch]:
    """A prompt on a random embedding, so that its answer cannot be a stale one."""
    side = manifest.image_size
    frame = ImageFrame(Size(side, side), side)
    values = np.random.default_rng().standard_normal(manifest.embedding_shape).astype(np.float16)
    return Embedding(values, frame), click_prompts([np.full(2, side / 2)], frame, manifest.low_res_size)
