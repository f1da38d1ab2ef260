"""What runs the models: the composition of each backend."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from samserve.adapters.cache.memory import MemoryEmbeddingCache
from samserve.adapters.onnxruntime import OnnxRuntimeImageEncoder, OnnxRuntimeMaskDecoder, OnnxRuntimeTextRanker
from samserve.adapters.text_tokenizer import ClipTokenizer
from samserve.adapters.triton import TritonBackend, TritonSession
from samserve.domain.clip_manifest import FILE_NAME, TOKENIZER_FILE, ClipManifest
from samserve.domain.errors import TextUnavailable
from samserve.domain.manifest import InvalidManifest, ModelManifest
from samserve.gateway.settings import Settings
from samserve.observability.call import Tracer
from samserve.usecases.ports import CacheObserver, EmbeddingCache, ImageEncoder, MaskDecoder, TextRanker, TextTokenizer


@dataclass(frozen=True, slots=True)
class TextModels:
    """CLIP and what runs it."""

    tokenizer: TextTokenizer
    ranker: TextRanker


@dataclass(frozen=True, slots=True)
class Models:
    """One build of the models and what runs it.

    Attributes:
        memory: the memory tier of the cache, wherever the backend has its embeddings.
        transport: how they come to the backend, see `GetServerInfoResponse`.
        text: what text prompts need beside, or why there are none.
        queued_encodes: how many the encoder has taken and not begun, where the queue is in this process.
    """

    manifest: ModelManifest
    encoder: ImageEncoder
    decoder: MaskDecoder
    memory: EmbeddingCache
    transport: str
    text: TextModels | TextUnavailable
    queued_encodes: Callable[[], int] = lambda: 0


class Core(Protocol):
    """What a backend tells about its models."""

    async def serve(self, models: Models) -> None:
        """Warm these models up and have them answer what comes in from now on. Raises what the models raise."""
        ...

    async def set_serving(self, serving: bool) -> None:
        """The models served last are there again, or are not."""
        ...


_log = logging.getLogger(__name__)

_HOW_TO_BUILD = (
    "run pip install -e '.[text]' in samserve's repository, add a CLIP to the model repository with "
    "build_engines.py --text-model CHECKPOINT_FOLDER --output REPOSITORY, and restart the gateway"
)

StartBackend = Callable[[Core], Awaitable[None]]


def onnxruntime(settings: Settings, observer: CacheObserver, tracer: Tracer, resources: AsyncExitStack) -> StartBackend:
    """The models of a repository, in process.

    Raises:
        InvalidManifest: the repository is missing or not whole.
    """
    manifest = ModelManifest.read(settings.model_repository)
    encoder = OnnxRuntimeImageEncoder(settings.model_repository, settings.onnxruntime_threads)
    resources.callback(encoder.close)
    decoder = OnnxRuntimeMaskDecoder(settings.model_repository, settings.onnxruntime_threads)
    resources.callback(decoder.close)
    memory = MemoryEmbeddingCache(settings.memory_cache_bytes, observer)

    async def start(core: Core) -> None:
        async def ranker(clip: ClipManifest) -> TextRanker:
            ranker = OnnxRuntimeTextRanker(settings.model_repository, clip, settings.onnxruntime_threads)
            resources.callback(ranker.close)
            return ranker

        text = await _text_models(settings, ranker)
        await core.serve(Models(manifest, encoder, decoder, memory, "in_process", text, lambda: encoder.queued))

    return start


def triton(settings: Settings, observer: CacheObserver, tracer: Tracer, resources: AsyncExitStack) -> StartBackend:
    """The models on Triton, whenever it is there. Starting looks once, and goes on looking in the background."""
    backend = TritonBackend(
        settings.triton,
        encoder_address=settings.triton_encoder,
        cache_bytes=settings.memory_cache_bytes,
        scratch_bytes=settings.triton_scratch_bytes,
        infer_seconds=settings.triton_timeout_seconds,
        headers=tracer.headers,
    )
    resources.push_async_callback(backend.aclose)

    async def start(core: Core) -> None:
        served: TritonSession | None = None

        async def up(session: TritonSession) -> None:
            nonlocal served
            if session is served:
                await core.set_serving(True)
                return
            memory = session.embedding_cache(observer) or MemoryEmbeddingCache(settings.memory_cache_bytes, observer)
            text = await _text_models(settings, session.text_ranker)
            await core.serve(
                Models(session.manifest, session.encoder, session.decoder, memory, session.transport, text)
            )
            served = session

        async def down() -> None:
            await core.set_serving(False)

        await backend.look(up, down)
        following = asyncio.create_task(backend.follow(up, down))
        resources.push_async_callback(_cancel, following)

    return start


async def _text_models(
    settings: Settings, ranker: Callable[[ClipManifest], Awaitable[TextRanker]]
) -> TextModels | TextUnavailable:
    """CLIP, where the model repository has one and all that it needs is there."""
    repository = settings.model_repository
    if not (repository / FILE_NAME).is_file():
        return TextUnavailable(f"text prompts need a CLIP model, and this server has none: {_HOW_TO_BUILD}")
    try:
        manifest = ClipManifest.read(repository)
        tokenizer = ClipTokenizer(repository / TOKENIZER_FILE, manifest.context_length)
        return TextModels(tokenizer, await ranker(manifest))
    except (InvalidManifest, TextUnavailable) as error:
        _log.warning("no text prompts: %s", error)
        return TextUnavailable(f"the server cannot use its CLIP model: {error}")


BACKENDS = {"onnxruntime": onnxruntime, "triton": triton}


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))
