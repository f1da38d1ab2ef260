"""The fake gateway's life: its server, the answers it was told, and the calls it received."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from samserve.api import SERVICE_NAME
from samserve.client.channel import MAX_MESSAGE_BYTES
from samserve.client.errors import ClientError
from samserve.client.testing.masks import BoolMask, MaskFunction, box_masks
from samserve.client.testing.servicer import FakeServicer, Script
from samserve.v1 import segmentation_pb2_grpc as pb_grpc

_THREADS = 16


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """One call that the gateway received.

    Attributes:
        rpc: its name, such as `Segment`.
        request: the message; None for a stream.
        metadata: tenant and image id among it.
    """

    rpc: str
    request: Any
    metadata: dict[str, str | bytes]


class FakeGateway:
    """Serves the whole API on a free loopback port, without a model. Use it in a `with` statement.

    Like a real gateway it remembers images by their ids, refuses what is no image, and answers NOT_FOUND for an id that
    it was not sent. Masks come from one function for all calls:

    - `Segment`, `SegmentStream` and `TrackObjects`: the masks of each prompt;
    - `SegmentGaze`: the first mask of a point where the sample is, until a sample is outside of it;
    - `GenerateMasks`: the first mask of each point of a grid of `points_per_side`, 2 where it is not given.

    `DetectEdges` finds no edges, and embeddings are zeros.
    """

    def __init__(self, masks: MaskFunction | Sequence[BoolMask] = box_masks) -> None:
        """Prepare a gateway.

        Args:
            masks: a function of a prompt and (H, W), or masks for every prompt. What it raises as a `ClientError`
                reaches the caller as that error.
        """
        self._script = Script(masks if callable(masks) else lambda prompt, size: masks)
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS), options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
        )
        self._health = HealthServicer()
        pb_grpc.add_SegmentationServiceServicer_to_server(FakeServicer(self._script), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.set_serving(True)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    @property
    def calls(self) -> list[ReceivedCall]:
        """The calls received so far, refused ones included, health checks not."""
        return [ReceivedCall(*call) for call in self._script.calls]

    def fail(self, error: ClientError, times: int = 1) -> None:
        """Answer the next calls with this error, as the client will raise it.

        Args:
            times: so many. The client itself repeats calls that are `Unavailable`, at most four times in all, and calls
                that are `Overloaded` with `retry_after_seconds`.
        """
        self._script.failures.extend([error] * times)

    def forget_images(self) -> None:
        """Forget all images, as a gateway does that was started anew."""
        self._script.images.clear()

    def set_serving(self, serving: bool) -> None:
        """Set what `Client.healthy` answers."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._health.set(SERVICE_NAME, status)

    def __enter__(self) -> "FakeGateway":
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()
