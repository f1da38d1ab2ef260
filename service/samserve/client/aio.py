"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack

import grpc
import numpy as np
import numpy.typing as npt

from samserve.client import exchange
from samserve.client.channel import ChannelOptions, about, channel_options, methods, tenant_metadata
from samserve.client.errors import from_rpc_error
from samserve.client.gaze import AsyncGazeStream, gaze_config
from samserve.client.generation import (
    GeneratedMask,
    MaskGenerationParameters,
    OnProgress,
    generation_call,
    opening_async,
    read_event,
)
from samserve.client.image import ImageLike, KnownImages
from samserve.client.interactive import AsyncInteractiveSession
from samserve.client.request import Prompt
from samserve.client.result import EmbeddedImage, ImageEmbedding, Segmentation, ServerInfo
from samserve.client.streaming import AsyncOpenCall
from samserve.client.tracking import AsyncTracking, TrackedFrame

_T = TypeVar("_T")


class AsyncClient:
    """`Client` with `await`: the same calls, arguments and errors.

    Make it inside a running event loop, and close it or use it in an `async with` statement. Reading, hashing and
    unpacking run in threads, so that they do not hold up the loop.
    """

    def __init__(
        self,
        target: str,
        *,
        tenant: str = "",
        timeout_seconds: float = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
        extra_channel_options: ChannelOptions = (),
    ) -> None:
        """As `Client`."""
        metadata, options = tenant_metadata(tenant), channel_options(target, extra_channel_options)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        self._methods = {**methods(self._channel)}
        self._methods["GenerateMasks"] = opening_async(self._methods["GenerateMasks"])
        self._target = target
        self._metadata = metadata
        self._timeout_seconds = timeout_seconds
        self._known = KnownImages()

    async def segment(
        self,
        image: ImageLike,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        *,
        text: str | None = None,
        normalized: bool = False,
        low_res_masks: bool = True,
        timeout_seconds: float | None = None,
    ) -> Segmentation:
        """As `Client.segment`."""
        prompt = Prompt(point_coords, point_labels, box, mask_input, text=text)
        results = await self.segment_many(
            image,
            [prompt],
            multimask_output,
            normalized=normalized,
            low_res_masks=low_res_masks and text is None,
            timeout_seconds=timeout_seconds,
        )
        return results[0]

    async def segment_many(
        self,
        image: ImageLike,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        *,
        normalized: bool = False,
        low_res_masks: bool = False,
        timeout_seconds: float | None = None,
    ) -> list[Segmentation]:
        """As `Client.segment_many`."""
        call = exchange.segment_call(
            prompts, multimask_output=multimask_output, normalized=normalized, low_res_masks=low_res_masks
        )
        return await self._on_image(call, image, timeout_seconds)

    async def generate_masks(
        self,
        image: ImageLike,
        *,
        on_progress: OnProgress | None = None,
        timeout_seconds: float = exchange.GENERATION_TIMEOUT_SECONDS,
        **parameters: Unpack[MaskGenerationParameters],
    ) -> AsyncGenerator[GeneratedMask, None]:
        """As `Client.generate_masks`."""
        opened = await self._on_image(generation_call(**parameters), image, timeout_seconds)
        try:
            response: Any = opened.first
            while response is not grpc.aio.EOF:
                mask = read_event(response, on_progress)
                if mask is not None:
                    yield mask
                response = await opened.call.read()
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error
        finally:
            opened.call.cancel()

    async def detect_edges(self, image: ImageLike, *, timeout_seconds: float | None = None) -> npt.NDArray[np.uint8]:
        """As `Client.detect_edges`."""
        return await self._on_image(exchange.DETECT_EDGES, image, timeout_seconds)

    async def embed(self, image: ImageLike, *, timeout_seconds: float | None = None) -> EmbeddedImage:
        """As `Client.embed`."""
        return await self._on_image(exchange.EMBED, image, timeout_seconds)

    async def get_embedding(self, image: ImageLike, *, timeout_seconds: float | None = None) -> ImageEmbedding:
        """As `Client.get_embedding`."""
        return await self._on_image(exchange.GET_EMBEDDING, image, timeout_seconds)

    def gaze(
        self,
        *,
        normalized: bool = False,
        field_of_view_degrees: float = 60.0,
        max_mask_side: int = 0,
        min_confidence: float = 0.0,
        hold_seconds: float = 0.3,
    ) -> AsyncGazeStream:
        """As `Client.gaze`."""
        config = gaze_config(
            normalized=normalized,
            field_of_view_degrees=field_of_view_degrees,
            max_mask_side=max_mask_side,
            min_confidence=min_confidence,
            hold_seconds=hold_seconds,
        )
        return AsyncGazeStream(self._opening("SegmentGaze"), self._target, config)

    def interactive(
        self, image: ImageLike, *, multimask_output: bool = True, normalized: bool = False
    ) -> AsyncInteractiveSession:
        """As `Client.interactive`."""
        return AsyncInteractiveSession(
            self._opening("SegmentStream"), self._target, image, normalized, multimask_output
        )

    async def track(
        self,
        frames: AsyncIterable[ImageLike] | Iterable[ImageLike],
        prompts: Mapping[int, Prompt],
        *,
        normalized: bool = False,
    ) -> AsyncGenerator[TrackedFrame, None]:
        """As `Client.track`."""
        async with AsyncTracking(self._opening("TrackObjects"), self._target) as stream:
            sequence = 0
            async for frame in _each(frames):
                sequence += 1
                yield await stream.track(sequence, frame, prompts if sequence == 1 else {}, normalized)
            await stream.end()

    async def server_info(self, *, timeout_seconds: float | None = None) -> ServerInfo:
        """As `Client.server_info`."""
        return await self._run(exchange.server_info(self._timeout(timeout_seconds)))

    async def healthy(self, *, timeout_seconds: float = 2.0) -> bool:
        """As `Client.healthy`."""
        return await self._run(exchange.healthy(timeout_seconds))

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _timeout(self, timeout_seconds: float | None, call: exchange.ImageCall[Any] | None = None) -> float:
        if timeout_seconds is None and call is not None:
            timeout_seconds = call.timeout_seconds
        return self._timeout_seconds if timeout_seconds is None else timeout_seconds

    def _opening(self, rpc: str) -> AsyncOpenCall:
        return lambda image_id: self._methods[rpc](metadata=about(image_id, self._metadata))

    async def _on_image(self, call: exchange.ImageCall[_T], image: ImageLike, timeout_seconds: float | None) -> _T:
        return await self._run(exchange.on_image(call, image, self._known, self._timeout(timeout_seconds, call)))

    async def _run(self, steps: exchange.Steps[_T]) -> _T:
        outcome = None
        while True:
            step = await asyncio.to_thread(_advance, steps, outcome)
            if isinstance(step, _Done):
                return step.result
            if isinstance(step, exchange.Wait):
                await asyncio.sleep(step.seconds)
                outcome = None
                continue
            method = self._methods[step.rpc]
            metadata = about(step.image_id, self._metadata)
            try:
                outcome = await method(step.request, timeout=step.timeout_seconds, metadata=metadata)
            except grpc.RpcError as error:
                outcome = from_rpc_error(error, self._target)


async def _each(frames: AsyncIterable[_T] | Iterable[_T]) -> AsyncGenerator[_T, None]:
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
    else:
        for frame in frames:
            yield frame


@dataclass(frozen=True, slots=True)
class _Done(Generic[_T]):
    result: _T


def _advance(steps: exchange.Steps[_T], outcome: Any) -> exchange.Call | exchange.Wait | _Done[_T]:
    """The next step; StopIteration itself cannot leave a thread for a coroutine."""
    try:
        return steps.send(outcome)
    except StopIteration as stop:
        return _Done(stop.value)
