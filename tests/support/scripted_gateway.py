"""A gateway that answers from a script."""

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from pycocotools import mask as coco_mask

from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceServicer, add_SegmentationServiceServicer_to_server

MASK = np.zeros((6, 8), dtype=bool)
MASK[1:4, 2:7] = True
COUNTS: Any = coco_mask.encode(np.asfortranarray(MASK, dtype=np.uint8))["counts"]
LOGITS = np.linspace(-4, 4, 16, dtype=np.float16).reshape(4, 4)


@dataclass
class Failure:
    """A status that the gateway answers instead of working."""

    code: grpc.StatusCode
    text: str = "as scripted"
    details: tuple[Message, ...] = ()


@dataclass
class ScriptedGateway(SegmentationServiceServicer):
    """Knows images by their ids once it was sent them, and fails as told."""

    failures: deque[Failure] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    health: HealthServicer = field(default_factory=HealthServicer)
    address: str = ""

    @property
    def sources(self) -> list[str]:
        """How the image was given in each request: `data` or `image_id`."""
        return [request.image.WhichOneof("source") for request in self.requests]

    def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:  # noqa: N802
        image_id = self._receive(request, context)
        mask = pb.Mask(
            coco_rle=pb.CocoRle(
                counts=COUNTS,
                size=pb.Size(height=MASK.shape[0], width=MASK.shape[1]),
            ),
            bbox=pb.Box(x0=2, y0=1, x1=7, y1=4),
            area=int(MASK.sum()),
            stability_score=0.75,
        )
        if request.include_low_res_masks:
            mask.low_res_mask.CopyFrom(pb.LowResMask(data=LOGITS.tobytes(), size=4))
        result = pb.PromptResult()
        for score in (0.25, 0.875, 0.5) if request.multimask_output else (0.625,):
            mask.iou_prediction = score
            result.masks.append(mask)
        response = pb.SegmentResponse(
            image_id=image_id,
            original_size=pb.Size(height=6, width=8),
            results=[result] * len(request.prompts),
            embedding_source=pb.EMBEDDING_SOURCE_MEMORY,
            cached=True,
        )
        response.timings.decode.FromTimedelta(timedelta(milliseconds=5))
        return response

    def EmbedImage(self, request: pb.EmbedImageRequest, context: Any) -> pb.EmbedImageResponse:  # noqa: N802
        return pb.EmbedImageResponse(
            image_id=self._receive(request, context),
            original_size=pb.Size(height=6, width=8),
            input_size=pb.Size(height=12, width=16),
            embedding_source=pb.EMBEDDING_SOURCE_ENCODED,
        )

    def GetEmbedding(self, request: pb.GetEmbeddingRequest, context: Any) -> pb.GetEmbeddingResponse:  # noqa: N802
        return pb.GetEmbeddingResponse(
            image_id=self._receive(request, context),
            embedding=LOGITS.tobytes(),
            shape=[1, 4, 4],
            fingerprint="sha256:model",
            embedding_source=pb.EMBEDDING_SOURCE_REDIS,
            cached=True,
        )

    def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:  # noqa: N802
        self._fail_as_scripted(context)
        return pb.GetServerInfoResponse(
            model="tiny", embedding_shape=[256, 32, 32], low_res_size=128, limits=pb.Limits(max_prompts=512)
        )

    def SegmentStream(self, requests: Any, context: Any) -> Iterator[pb.SegmentStreamResponse]:  # noqa: N802
        self._open(context)
        for request in requests:
            yield pb.SegmentStreamResponse(sequence=request.sequence, masks=pb.SessionMasks())

    def SegmentGaze(self, requests: Any, context: Any) -> Iterator[pb.SegmentGazeResponse]:  # noqa: N802
        self._open(context)
        for request in requests:
            if request.HasField("sample"):
                yield pb.SegmentGazeResponse(answer=pb.GazeAnswer(sequence=request.sample.sequence))

    def TrackObjects(self, requests: Any, context: Any) -> Iterator[pb.TrackObjectsResponse]:  # noqa: N802
        self._open(context)
        for request in requests:
            yield pb.TrackObjectsResponse(sequence=request.sequence, frame=pb.TrackedFrame())

    def _open(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))

    def _receive(self, request: Any, context: Any) -> str:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self._fail_as_scripted(context)
        if request.image.WhichOneof("source") == "data":
            image_id = f"sha256:{hashlib.sha256(request.image.data).hexdigest()}"
            self.known.add(image_id)
            return image_id
        if request.image.image_id not in self.known:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no embedding cached for {request.image.image_id}")
        return str(request.image.image_id)

    def _fail_as_scripted(self, context: Any) -> None:
        if self.silent.is_set():
            over = threading.Event()
            context.add_callback(over.set)
            over.wait()
        if self.failures:
            _abort(context, self.failures.popleft())


def retry_after(seconds: float) -> RetryInfo:
    """The detail that says when to come back."""
    info = RetryInfo()
    info.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return info


@contextmanager
def running_gateway() -> Iterator[ScriptedGateway]:
    """A scripted gateway that listens; it takes messages up to 2 MiB."""
    # What it does not script answers UNIMPLEMENTED, as gRPC's own base class does.
    scripted = ScriptedGateway()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 2 * 1024 * 1024)])
    add_SegmentationServiceServicer_to_server(scripted, server)
    health_pb2_grpc.add_HealthServicer_to_server(scripted.health, server)
    scripted.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield scripted
    finally:
        server.stop(0).wait()


def _abort(context: Any, failure: Failure) -> None:
    status = Status(code=failure.code.value[0], message=failure.text)
    for detail in failure.details:
        status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(failure.code, failure.text)
