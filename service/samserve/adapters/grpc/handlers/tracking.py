"""gRPC handler of `TrackObjects`."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from samserve.adapters.grpc.masks import mask_message, read_mask_format
from samserve.adapters.grpc.messages import read_image, read_prompt, read_space, timings_message
from samserve.adapters.grpc.streams import error_message, next_request
from samserve.domain.errors import InvalidPrompt, SamserveError, within
from samserve.domain.prompts import PromptLimits, check_count
from samserve.observability.call import current_call
from samserve.usecases.tracking import TrackingResult, TrackingSession, TrackQuery, TrackState
from samserve.v1 import segmentation_pb2 as pb

_STATES = {
    TrackState.STARTED: pb.TRACK_STATE_STARTED,
    TrackState.TRACKED: pb.TRACK_STATE_TRACKED,
    TrackState.LOST: pb.TRACK_STATE_LOST,
    TrackState.FOUND: pb.TRACK_STATE_FOUND,
}


class MakeTrackingSession(Protocol):
    """Creates the use case of one stream."""

    def __call__(self, tenant: str) -> TrackingSession: ...


class TrackingHandler:
    """Reads `TrackObjectsRequest`s, runs the use case, and writes `TrackObjectsResponse`s.

    A frame is read when the one before it has been answered and taken: gRPC's flow control holds the client back.

    Args:
        max_frame_bytes: of one frame's file.
        idle_seconds: longest silence of a client.
    """

    def __init__(
        self,
        make_session: MakeTrackingSession,
        *,
        max_frame_bytes: int,
        idle_seconds: float,
        prompt_limits: PromptLimits,
    ) -> None:
        self._make_session = make_session
        self._max_frame_bytes = max_frame_bytes
        self._idle_seconds = idle_seconds
        self._prompt_limits = prompt_limits

    async def serve(
        self, requests: AsyncIterator[pb.TrackObjectsRequest], tenant: str
    ) -> AsyncGenerator[pb.TrackObjectsResponse, None]:
        """Serve one stream."""
        session = self._make_session(tenant)
        while (request := await next_request(requests, self._idle_seconds)) is not None:
            started = time.perf_counter()
            try:
                query = self._query(request)
                tracked = await session.track(query)
            except SamserveError as error:
                yield pb.TrackObjectsResponse(sequence=request.sequence, error=error_message(request.sequence, error))
            else:
                current_call().answered(tracked.timings)
                yield _message(query, tracked, time.perf_counter() - started)

    def _query(self, request: pb.TrackObjectsRequest) -> TrackQuery:
        mask_format = read_mask_format(request.mask_format)
        check_count(len(request.prompts), self._prompt_limits)
        if len(request.removed_object_ids) > self._prompt_limits.max_prompts:
            count, limit = len(request.removed_object_ids), self._prompt_limits.max_prompts
            raise InvalidPrompt(
                "removed_object_ids", f"has {count} entries, the limit is {limit}; list each object once"
            )
        prompts = {}
        for index, given in enumerate(request.prompts):
            if given.object_id == 0 or given.object_id in prompts:
                what = "must not be 0" if given.object_id == 0 else f"{given.object_id} is used by another prompt"
                raise InvalidPrompt(f"prompts[{index}].object_id", f"{what}; use unique ids from 1")
            with within(f"prompts[{index}].prompt"):
                prompts[given.object_id] = read_prompt(given.prompt, self._prompt_limits)
        return TrackQuery(
            request.sequence,
            read_image(request.frame, self._max_frame_bytes, "frame"),
            prompts,
            request.removed_object_ids,
            read_space(request.coordinate_space),
            mask_format,
        )


def _message(query: TrackQuery, tracked: TrackingResult, total_seconds: float) -> pb.TrackObjectsResponse:
    return pb.TrackObjectsResponse(
        sequence=query.sequence,
        frame=pb.TrackedFrame(
            image_id=tracked.image_id,
            objects=[
                pb.TrackedObject(
                    object_id=tracked_object.object_id,
                    state=_STATES[tracked_object.state],
                    mask=mask_message(tracked_object.mask, query.coordinate_space)
                    if tracked_object.mask is not None
                    else None,
                    overlap=tracked_object.overlap,
                )
                for tracked_object in tracked.objects
            ],
            timings=timings_message(tracked.timings, total_seconds),
        ),
    )
