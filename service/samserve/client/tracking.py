"""Results of tracking."""

from collections.abc import Mapping
from dataclasses import dataclass

from samserve.client.errors import ServerError
from samserve.client.image import ImageSource
from samserve.client.request import Prompt, prompt_message
from samserve.client.streaming import StreamMask, read_error, read_mask
from samserve.v1 import segmentation_pb2 as pb


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """One object on one frame.

    Attributes:
        state: `started`, `tracked`, `lost` or `found`.
        mask: None while it is lost.
        overlap: IoU with its last mask.
    """

    object_id: int
    state: str
    mask: StreamMask | None
    overlap: float


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """All objects on one frame, in the order in which they were started."""

    sequence: int
    objects: list[TrackedObject]
    total_seconds: float


def unanswered() -> ServerError:
    return ServerError("the server closed the stream without a response", "UNKNOWN")


def track_request(
    sequence: int, frame: ImageSource, prompts: Mapping[int, Prompt], normalized: bool
) -> pb.TrackObjectsRequest:
    return pb.TrackObjectsRequest(
        sequence=sequence,
        frame=frame.message,
        prompts=[pb.TrackedPrompt(object_id=name, prompt=prompt_message(prompt)) for name, prompt in prompts.items()],
        coordinate_space=pb.COORDINATE_SPACE_NORMALIZED if normalized else pb.COORDINATE_SPACE_PIXELS,
        mask_format=pb.MASK_FORMAT_COCO_RLE,
    )


def read_tracked(message: pb.TrackObjectsResponse) -> TrackedFrame:
    """Read the objects on one frame.

    Raises:
        ClientError: the frame was rejected.
    """
    if message.WhichOneof("answer") == "error":
        raise read_error(message.error)
    return TrackedFrame(
        message.sequence,
        [
            TrackedObject(
                tracked.object_id,
                pb.TrackState.Name(tracked.state).removeprefix("TRACK_STATE_").lower(),
                read_mask(tracked.mask) if tracked.HasField("mask") else None,
                tracked.overlap,
            )
            for tracked in message.frame.objects
        ],
        message.frame.timings.total.ToNanoseconds() / 1e9,
    )
