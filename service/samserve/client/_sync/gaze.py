# Generated from samserve/client/_async by `make unasync`; do not edit.
"""The gaze stream."""

import numpy.typing as npt

from samserve.client.gaze import GazeAnswer, GazeMessages, read_answer
from samserve.client.image import ImageLike, ImageSource
from samserve.client.streaming import OpenCall, Refused, Stream
from samserve.client.waiting import run
from samserve.v1 import segmentation_pb2 as pb


class GazeStream(Stream[GazeAnswer | Refused]):
    """A `SegmentGaze` stream: send frames and samples, and iterate for answers. Send and iterate in separate threads or
    tasks."""

    def __init__(self, open_call: OpenCall, target: str, config: pb.GazeConfig) -> None:
        super().__init__(open_call, target)
        self._messages = GazeMessages(config)

    def frame(self, image: ImageLike, reference_homography: npt.ArrayLike | None = None) -> int:
        """Send the next frame and return its number.

        Args:
            reference_homography: `[3, 3]`, maps this frame's pixels to a plane that stays fixed during the stream.
                Without it, the server estimates the camera's motion from the frames.
        """
        source = run(ImageSource.of, image)
        requests = self._messages.frame(source.message, reference_homography)
        number = self._messages.frames
        self._send(*requests, image_id=source.image_id)
        return number

    def sample(
        self, timestamp_nanoseconds: int, x: float, y: float, valid: bool = True, confidence: float | None = None
    ) -> int:
        """Send the next gaze sample, which refers to the last frame sent, and return its number. Timestamps must
        increase.

        A sample up to 0.1 s older than the last one is rejected. If it is older than that, the clock was set back and
        the server restarts its clock at this sample. If the sample is not valid, `x`, `y` and `confidence` are
        ignored.
        """
        requests = self._messages.sample(timestamp_nanoseconds, x, y, valid, confidence)
        number = self._messages.samples
        self._send(*requests)
        return number

    def _read(self, message: pb.SegmentGazeResponse) -> GazeAnswer | Refused:
        return read_answer(message)
