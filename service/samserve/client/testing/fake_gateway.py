"""The fake gateway: its server, its scripted answers, and the calls it received."""

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
    """A call that the gateway received.

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

    Like a real gateway, it remembers images by id, rejects files that are not images, and answers NOT_FOUND for unknown
    ids. All calls get their masks from one function:

    - `Segment`, `SegmentStream` and `TrackObjects`: the masks of each prompt;
    - `SegmentGaze`: the first mask of a point at the sample, until a sample lies outside of it;
    - `GenerateMasks`: the first mask of each point of a grid of `points_per_side` (default 2).

    `DetectEdges` finds no edges, and embeddings are zeros.
    """

    def __init__(self, masks: MaskFunction | Sequence[BoolMask] = box_masks) -> None:
        """Prepare a gateway.

        Args:
            masks: a function of a prompt and (H, W), or the masks of every prompt. If the function raises a
                `ClientError`, the caller gets that error.
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
        """The calls received so far, including rejected ones, without health checks."""
        return [ReceivedCall(*call) for call in self._script.calls]

    def fail(self, error: ClientError, times: int = 1) -> None:
        """Answer the next calls with an error, which the client raises.

        Args:
            times: number of calls to fail. The client itself retries `Unavailable` calls, with at most four attempts,
                and `Overloaded` calls that have `retry_after_seconds`.
        """
        self._script.failures.extend([error] * times)

    def forget_images(self) -> None:
        """Forget all images, as a gateway does when it restarts."""
        self._script.images.clear()

    def set_serving(self, serving: bool) -> None:
        """Set the return value of `Client.healthy`."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._health.set(SERVICE_NAME, status)

    def __enter__(self) -> "FakeGateway":
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()
