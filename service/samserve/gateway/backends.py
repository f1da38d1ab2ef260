"""Composition of each backend, which runs the models."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from samserve.adapters.cache.memory import MemoryEmbeddingCache
from samserve.adapters.onnxruntime import OnnxRuntimeImageEncoder, OnnxRuntimeMaskDecoder, OnnxRuntimeTextRanker
from samserve.adapters.text_tokenizer import ClipTokenizer
from samserve.adapters.triton import TritonBackend, TritonSession
from samserve.domain.clip_manifest import FILE_NAME, TOKENIZER_FILE, ClipManifest
from samserve.domain.errors import TextUnavailable, TransientFailure
from samserve.domain.manifest import InvalidManifest, ModelManifest
from samserve.gateway.settings import Settings
from samserve.observability.tracing import trace_headers
from samserve.usecases.observers import CacheObserver
from samserve.usecases.ports import EmbeddingCache, ImageEncoder, MaskDecoder, TextRanker, TextTokenizer
from samserve.usecases.warm_up import warm_up


@dataclass(frozen=True, slots=True)
class TextModels:
    """CLIP's models."""

    tokenizer: TextTokenizer
    ranker: TextRanker


@dataclass(frozen=True, slots=True)
class Models:
    """One build of the models.

    Attributes:
        backend: what runs them, as the setting names it.
        memory: the memory tier of the cache, wherever the backend has its embeddings.
        transport: how they come to the backend, see `GetServerInfoResponse`.
        text: what text prompts need beside, or why there are none.
        queued_encodes: how many the encoder has taken and not begun, where the queue is in this process.
    """

    backend: str
    manifest: ModelManifest
    encoder: ImageEncoder
    decoder: MaskDecoder
    memory: EmbeddingCache
    transport: str
    text: TextModels | TextUnavailable
    queued_encodes: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class ModelsUnavailable:
    """The models yielded last, if any, are currently unavailable."""


ModelsState: TypeAlias = Models | ModelsUnavailable


class Backend(Protocol):
    """A backend, which runs the models."""

    def __call__(
        self, settings: Settings, observer: CacheObserver, resources: AsyncExitStack
    ) -> AsyncGenerator[ModelsState, None]:
        """Follow the models as they become available, unavailable or are replaced. The first state is yielded once it
        is known.

        Args:
            resources: closes what runs the models, after the iterator's last use.

        Yields:
            Models that are warmed up, whenever they can be run: the same object again if they were unavailable in
            between, another one if they were replaced. `ModelsUnavailable` when they cannot.

        Raises:
            InvalidManifest: the model repository is missing or not whole.
        """
        ...


_log = logging.getLogger(__name__)

_HOW_TO_BUILD = (
    "run pip install -e '.[text]' in samserve's repository, add a CLIP to the model repository with "
    "build_engines.py --text-model CHECKPOINT_FOLDER --output REPOSITORY, and restart the gateway"
)


async def onnxruntime(
    settings: Settings, observer: CacheObserver, resources: AsyncExitStack
) -> AsyncGenerator[ModelsState, None]:
    """Implements `Backend`: the models of a repository in this process. They never change."""
    repository, threads = settings.model_repository, settings.onnxruntime_threads
    manifest = ModelManifest.read(repository)
    # Loading takes seconds for a large model; calls are refused and health checks answered meanwhile.
    encoder = await asyncio.to_thread(OnnxRuntimeImageEncoder, repository, threads)
    resources.callback(encoder.close)
    decoder = await asyncio.to_thread(OnnxRuntimeMaskDecoder, repository, threads)
    resources.callback(decoder.close)

    async def ranker(clip: ClipManifest) -> TextRanker:
        ranker = await asyncio.to_thread(OnnxRuntimeTextRanker, repository, clip, threads)
        resources.callback(ranker.close)
        return ranker

    text = await _text_models(settings, ranker)
    await warm_up(manifest, encoder, decoder)
    memory = MemoryEmbeddingCache(settings.memory_cache_bytes, observer)
    yield Models("onnxruntime", manifest, encoder, decoder, memory, "in_process", text, lambda: encoder.queued)


async def triton(
    settings: Settings, observer: CacheObserver, resources: AsyncExitStack
) -> AsyncGenerator[ModelsState, None]:
    """Implements `Backend`: the models on Triton, whenever it serves them."""
    backend = TritonBackend(
        settings.triton,
        encoder_address=settings.triton_encoder,
        cache_bytes=settings.memory_cache_bytes,
        scratch_bytes=settings.triton_scratch_bytes,
        infer_seconds=settings.triton_timeout_seconds,
        headers=trace_headers,
    )
    resources.push_async_callback(backend.aclose)
    state: ModelsState | None = None
    served: TritonSession | None = None
    models: ModelsState = ModelsUnavailable()
    async with aclosing(backend.sessions()) as sessions:
        async for session in sessions:
            if session is not None and session is not served:
                try:
                    models, served = await _models_of(session, settings, observer), session
                except TransientFailure as error:
                    _log.warning("not serving: %s", error)
                    session = None
            now = ModelsUnavailable() if session is None else models
            if now != state:
                yield now
                state = now


async def _models_of(session: TritonSession, settings: Settings, observer: CacheObserver) -> Models:
    text = await _text_models(settings, session.text_ranker)
    memory = session.embedding_cache(observer) or MemoryEmbeddingCache(settings.memory_cache_bytes, observer)
    return Models("triton", session.manifest, session.encoder, session.decoder, memory, session.transport, text)


async def _text_models(
    settings: Settings, ranker: Callable[[ClipManifest], Awaitable[TextRanker]]
) -> TextModels | TextUnavailable:
    """CLIP's models, if the model repository has them and everything they need is installed."""
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


BACKENDS: Mapping[str, Backend] = {"onnxruntime": onnxruntime, "triton": triton}
