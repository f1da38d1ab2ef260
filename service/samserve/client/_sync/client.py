# Generated from samserve/client/_async by `make unasync`; do not edit.
"""The connection and its calls."""

from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, Unpack

import grpc
import numpy as np
import numpy.typing as npt

from samserve.client import exchange
from samserve.client._sync.gaze import GazeStream
from samserve.client._sync.interactive import InteractiveSession
from samserve.client._sync.tracking import Tracking
from samserve.client.channel import ChannelOptions, about, channel, channel_options, methods, tenant_metadata
from samserve.client.errors import from_rpc_error
from samserve.client.gaze import gaze_config
from samserve.client.generation import (
    GeneratedMask,
    MaskGenerationParameters,
    OnProgress,
    generation_call,
    opening,
    read_event,
)
from samserve.client.image import ImageLike, KnownImages
from samserve.client.request import Prompt
from samserve.client.result import EmbeddedImage, ImageEmbedding, Segmentation, ServerInfo
from samserve.client.streaming import OpenCall
from samserve.client.tracking import TrackedFrame
from samserve.client.waiting import Frames, each, run, sleep

_T = TypeVar("_T")


class Client:
    """Connection to a samserve server. Close it, or use it as a context manager.

    Threads may share it or, with asyncio, the tasks of the event loop in which it is created. With asyncio, reading,
    hashing and decoding run in threads, so that they do not block the loop.

    Each call hashes the image. It sends only the image id if the server may know the image, and the image itself if the
    server does not. Calls to unavailable servers are retried by gRPC's retry policy; calls to overloaded servers are
    retried after the delay that the server suggests. Every call raises:

        InvalidRequest: the request is invalid and must be changed.
        ImageNotFound: the image was given by an id that the server does not know.
        Unavailable, Overloaded, DeadlineExceeded: no answer within the deadline, including retries.
        ServerError: any other failure.
        OSError: the image file cannot be read.
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
        """Prepare a connection. It is established with the first call.

        Args:
            target: `host:port`, or any gRPC name such as `dns:///samserve:50051`, whose addresses are used in round
                robin.
            tenant: owner of the images; tenants have separate caches.
            timeout_seconds: deadline of a whole call, including upload and retries, unless the call has its own.
            credentials: TLS credentials; without them the connection is not encrypted.
            extra_channel_options: gRPC channel arguments, which override the client's.
        """
        metadata, options = tenant_metadata(tenant), channel_options(target, extra_channel_options)
        self._channel = channel(target, credentials, options)
        self._methods = {**methods(self._channel)}
        self._methods["GenerateMasks"] = opening(self._methods["GenerateMasks"])
        self._target = target
        self._metadata = metadata
        self._timeout_seconds = timeout_seconds
        self._known = KnownImages()

    def segment(
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
        """Segment one object, with the arguments of SAM's `SamPredictor.predict`.

        Args:
            image: path, file bytes, RGB pixels uint8 `[H, W, 3]`, or an `ImageId`.
            point_coords: `[N, 2]` (x, y) in pixels of the image after EXIF orientation, origin at the top left.
            point_labels: `[N]`, 1 foreground or 0 background; None means all foreground.
            box: `[4]` XYXY in pixels.
            mask_input: logits `[M, M]` or `[1, M, M]`, one of an earlier result's `low_res_masks`.
            multimask_output: return three masks instead of one, because a single point may be ambiguous. They are in no
                order of size or score; `best` is the index of the highest score. For a text, return the three most
                similar masks.
            text: description of the object, such as `a dog`, instead of points, box and mask; `low_res_masks` is then
                empty. Takes as long as `generate_masks` and has the same default deadline.
            normalized: coordinates are fractions in [0, 1] of the image's width and height.
            low_res_masks: return the logits, half a megabyte for SAM; otherwise `low_res_masks` is empty.
            timeout_seconds: deadline of this call.
        """
        prompt = Prompt(point_coords, point_labels, box, mask_input, text=text)
        results = self.segment_many(
            image,
            [prompt],
            multimask_output,
            normalized=normalized,
            low_res_masks=low_res_masks and text is None,
            timeout_seconds=timeout_seconds,
        )
        return results[0]

    def segment_many(
        self,
        image: ImageLike,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        *,
        normalized: bool = False,
        low_res_masks: bool = False,
        timeout_seconds: float | None = None,
    ) -> list[Segmentation]:
        """Segment many objects of one image in one call. Returns one result per prompt, in the same order.

        The arguments are those of `segment`. The logits of many prompts may exceed the size limit of a message, so they
        are returned only on request.
        """
        call = exchange.segment_call(
            prompts, multimask_output=multimask_output, normalized=normalized, low_res_masks=low_res_masks
        )
        return self._on_image(call, image, timeout_seconds)

    def generate_masks(
        self,
        image: ImageLike,
        *,
        on_progress: OnProgress | None = None,
        timeout_seconds: float = exchange.GENERATION_TIMEOUT_SECONDS,
        **parameters: Unpack[MaskGenerationParameters],
    ) -> Generator[GeneratedMask, None]:
        """Generate masks for everything in an image, with the parameters of SAM's `SamAutomaticMaskGenerator`.

        Masks are returned crop by crop, the smallest crops first, once each crop has been searched. The call starts
        when the first mask is requested from the iterator, and closing the iterator ends it. If the caller does not
        request the next mask for too long, the server ends the call.

        Args:
            on_progress: called with the number of points processed and the total number of points.
            timeout_seconds: deadline of the whole stream.
        """
        opened = self._on_image(generation_call(**parameters), image, timeout_seconds)
        try:
            for response in opened:
                mask = read_event(response, on_progress)
                if mask is not None:
                    yield mask
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error
        finally:
            opened.call.cancel()

    def detect_edges(self, image: ImageLike, *, timeout_seconds: float | None = None) -> npt.NDArray[np.uint8]:
        """Detect edges. Returns uint8 `[H, W]` of the image's size: 0 for no edge, 255 for the strongest edge."""
        return self._on_image(exchange.DETECT_EDGES, image, timeout_seconds)

    def embed(self, image: ImageLike, *, timeout_seconds: float | None = None) -> EmbeddedImage:
        """Encode an image in advance, so that its embedding is cached when the first prompt arrives."""
        return self._on_image(exchange.EMBED, image, timeout_seconds)

    def get_embedding(self, image: ImageLike, *, timeout_seconds: float | None = None) -> ImageEmbedding:
        """Return the image's embedding, for running a decoder elsewhere."""
        return self._on_image(exchange.GET_EMBEDDING, image, timeout_seconds)

    def gaze(
        self,
        *,
        normalized: bool = False,
        field_of_view_degrees: float = 60.0,
        max_mask_side: int = 0,
        min_confidence: float = 0.0,
        hold_seconds: float = 0.3,
    ) -> GazeStream:
        """Segment what a person looks at: send frames and gaze samples, and iterate over the stream for answers.

        Args:
            normalized: points are fractions in [0, 1] of a frame's width and height.
            field_of_view_degrees: horizontal field of view of a frame.
            max_mask_side: masks are scaled down to this longest side in pixels; 0 keeps the frame's size.
            min_confidence: samples with a lower confidence count as invalid.
            hold_seconds: how long the object is held while samples are invalid.
        """
        config = gaze_config(
            normalized=normalized,
            field_of_view_degrees=field_of_view_degrees,
            max_mask_side=max_mask_side,
            min_confidence=min_confidence,
            hold_seconds=hold_seconds,
        )
        return GazeStream(self._opening("SegmentGaze"), self._target, config)

    def interactive(
        self, image: ImageLike, *, multimask_output: bool = True, normalized: bool = False
    ) -> InteractiveSession:
        """Open an interactive session on one image: points and a box are added, moved, removed and undone."""
        open_call = self._opening("SegmentStream")
        return InteractiveSession(open_call, self._target, image, normalized, multimask_output)

    def track(
        self, frames: Frames, prompts: Mapping[int, Prompt], *, normalized: bool = False
    ) -> Generator[TrackedFrame, None]:
        """Track objects through the frames of a video. Returns one result per frame, on demand.

        Args:
            frames: frames of equal size.
            prompts: prompts on the first frame, keyed by object ids that the caller chooses (not 0).
            normalized: coordinates are fractions in [0, 1] of a frame's width and height.
        """
        with Tracking(self._opening("TrackObjects"), self._target) as stream:
            for frame in each(frames):
                yield stream.track(frame, prompts, normalized)
                prompts = {}
            stream.end()

    def server_info(self, *, timeout_seconds: float | None = None) -> ServerInfo:
        """Return the served model and the server's limits."""
        return self._run(exchange.server_info(self._timeout(timeout_seconds)))

    def healthy(self, *, timeout_seconds: float = 2.0) -> bool:
        """Return True if the server is reachable and ready. Never raises."""
        return self._run(exchange.healthy(timeout_seconds))

    def close(self) -> None:
        """Close the connection. Calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _timeout(self, timeout_seconds: float | None, call: exchange.ImageCall[Any] | None = None) -> float:
        if timeout_seconds is None and call is not None:
            timeout_seconds = call.timeout_seconds
        return self._timeout_seconds if timeout_seconds is None else timeout_seconds

    def _opening(self, rpc: str) -> OpenCall:
        return lambda image_id, *requests: self._methods[rpc](*requests, metadata=about(image_id, self._metadata))

    def _on_image(self, call: exchange.ImageCall[_T], image: ImageLike, timeout_seconds: float | None) -> _T:
        return self._run(exchange.on_image(call, image, self._known, self._timeout(timeout_seconds, call)))

    def _run(self, steps: exchange.Steps[_T]) -> _T:
        outcome = None
        while True:
            step = run(exchange.advance, steps, outcome)
            if isinstance(step, exchange.Done):
                return step.result
            if isinstance(step, exchange.Wait):
                sleep(step.seconds)
                outcome = None
                continue
            method = self._methods[step.rpc]
            metadata = about(step.image_id, self._metadata)
            try:
                outcome = method(step.request, timeout=step.timeout_seconds, metadata=metadata)
            except grpc.RpcError as error:
                outcome = from_rpc_error(error, self._target)
