"""What runs the models: the composition of each engine."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from samserve.adapters.embedded import EmbeddedImageEncoder, EmbeddedMaskDecoder
from samserve.adapters.memory_cache import MemoryEmbeddingCache
from samserve.adapters.triton import TritonEngine, TritonSession
from samserve.calls import Tracer
from samserve.domain.manifest import ModelManifest
from samserve.ports import CacheObserver, EmbeddingCache, ImageEncoder, MaskDecoder
from samserve.settings import Settings


@dataclass(frozen=True, slots=True)
class Models:
    """One build of the models and what runs it.

    Attributes:
        memory: the memory tier of the cache, wherever the engine has its embeddings.
        transport: how they come to the engine, see `GetServerInfoResponse`.
        queued_encodes: how many the encoder has taken and not begun, where the queue is in this process.
    """

    manifest: ModelManifest
    encoder: ImageEncoder
    decoder: MaskDecoder
    memory: EmbeddingCache
    transport: str
    queued_encodes: Callable[[], int] = lambda: 0


class Core(Protocol):
    """What an engine tells about its models."""

    async def serve(self, models: Models) -> None:
        """Warm these models up and have them answer what comes in from now on. Raises what the models raise."""
        ...

    async def set_serving(self, serving: bool) -> None:
        """The models served last are there again, or are not."""
        ...


StartEngine = Callable[[Core], Awaitable[None]]


def embedded(settings: Settings, observer: CacheObserver, tracer: Tracer, resources: AsyncExitStack) -> StartEngine:
    """The models of a repository, in process.

    Raises:
        InvalidManifest: the repository is missing or not whole.
    """
    manifest = ModelManifest.read(settings.model_repository)
    encoder = EmbeddedImageEncoder(settings.model_repository, settings.engine_threads)
    resources.callback(encoder.close)
    decoder = EmbeddedMaskDecoder(settings.model_repository, threads=settings.engine_threads)
    resources.callback(decoder.close)
    memory = MemoryEmbeddingCache(settings.memory_cache_bytes, observer)
    return lambda core: core.serve(Models(manifest, encoder, decoder, memory, "in_process", lambda: encoder.queued))


def triton(settings: Settings, observer: CacheObserver, tracer: Tracer, resources: AsyncExitStack) -> StartEngine:
    """The models on Triton, whenever it is there. Starting looks once, and goes on looking in the background."""
    engine = TritonEngine(
        settings.triton,
        encoder_address=settings.triton_encoder,
        cache_bytes=settings.memory_cache_bytes,
        scratch_bytes=settings.triton_scratch_bytes,
        infer_seconds=settings.triton_timeout_seconds,
        headers=tracer.headers,
    )
    resources.push_async_callback(engine.aclose)

    async def start(core: Core) -> None:
        served: TritonSession | None = None

        async def up(session: TritonSession) -> None:
            nonlocal served
            if session is served:
                await core.set_serving(True)
                return
            memory = session.embedding_cache(observer) or MemoryEmbeddingCache(settings.memory_cache_bytes, observer)
            await core.serve(Models(session.manifest, session.encoder, session.decoder, memory, session.transport))
            served = session

        async def down() -> None:
            await core.set_serving(False)

        await engine.look(up, down)
        following = asyncio.create_task(engine.follow(up, down))
        resources.push_async_callback(_cancel, following)

    return start


ENGINES = {"embedded": embedded, "triton": triton}


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))
