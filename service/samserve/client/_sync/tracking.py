# Generated from samserve/client/_async by `make unasync`; do not edit.
"""The tracking stream of a video."""

from collections.abc import Mapping

from samserve.client.image import ImageLike, ImageSource
from samserve.client.request import Prompt
from samserve.client.streaming import OpenCall, Stream
from samserve.client.tracking import TrackedFrame, read_tracked, track_request, unanswered
from samserve.client.waiting import run
from samserve.v1 import segmentation_pb2 as pb


class Tracking(Stream[TrackedFrame]):
    """A `TrackObjects` stream, one frame at a time."""

    def __init__(self, open_call: OpenCall, target: str) -> None:
        super().__init__(open_call, target)
        self._sequence = 0

    def track(self, frame: ImageLike, prompts: Mapping[int, Prompt], normalized: bool) -> TrackedFrame:
        """Track the objects to the next frame."""
        source = run(ImageSource.of, frame)
        self._sequence += 1
        request = track_request(self._sequence, source, prompts, normalized)
        self._send(request, image_id=source.image_id)
        for tracked in self:
            return tracked
        raise unanswered()

    def _read(self, message: pb.TrackObjectsResponse) -> TrackedFrame:
        return read_tracked(message)
