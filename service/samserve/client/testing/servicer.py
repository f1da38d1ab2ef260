"""The fake gateway's implementation of the API."""

import io
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from samserve.client.errors import (
    ClientError,
    DeadlineExceeded,
    ImageNotFound,
    InvalidRequest,
    Overloaded,
    RetryLater,
    ServerError,
    Unavailable,
)
from samserve.client.testing.edits import EditedPrompt
from samserve.client.testing.masks import LOW_RES_SIZE, MaskFunction, mask_messages, prompt_in_pixels
from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceServicer

_EMBEDDING_SHAPE = (1, 4, 4)
_FINGERPRINT = "sha256:fake"
_CODES = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    ImageNotFound: grpc.StatusCode.NOT_FOUND,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(slots=True)
class Script:
    """What the gateway was told, and what it has received.

    Attributes:
        images: (H, W) of those it knows, by id.
        failures: of the next calls.
        calls: rpc, request and metadata of each.
    """

    masks: MaskFunction
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    failures: deque[ClientError] = field(default_factory=deque)
    calls: list[tuple[str, Any, dict[str, str | bytes]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _KnownImage:
    id: ImageId
    size: tuple[int, int]
    cached: bool

    def fields(self) -> dict[str, Any]:
        """The fields about an image that most responses have."""
        source = pb.EMBEDDING_SOURCE_MEMORY if self.cached else pb.EMBEDDING_SOURCE_ENCODED
        size = pb.Size(height=self.size[0], width=self.size[1])
        return {"image_id": self.id, "original_size": size, "embedding_source": source, "cached": self.cached}


class FakeServicer(SegmentationServiceServicer):
    """Answers every call from a script."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def EmbedImage(self, request: pb.EmbedImageRequest, context: Any) -> pb.EmbedImageResponse:
        with self._call("EmbedImage", request, context):
            image = self._image(request.image)
            fields = image.fields()
            return pb.EmbedImageResponse(**fields, input_size=fields["original_size"])

    def GetEmbedding(self, request: pb.GetEmbeddingRequest, context: Any) -> pb.GetEmbeddingResponse:
        with self._call("GetEmbedding", request, context):
            fields = self._image(request.image).fields()
            return pb.GetEmbeddingResponse(
                **fields,
                input_size=fields["original_size"],
                embedding=np.zeros(_EMBEDDING_SHAPE, dtype="<f2").tobytes(),
                shape=_EMBEDDING_SHAPE,
                fingerprint=_FINGERPRINT,
            )

    def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:
        with self._call("Segment", request, context):
            image = self._image(request.image)
            results = []
            for prompt in request.prompts:
                masks = self._masks(prompt, image, request.coordinate_space, request.multimask_output)
                result = pb.PromptResult(masks=mask_messages(masks, request.include_low_res_masks))
                if prompt.HasField("detection"):
                    result.detection.CopyFrom(prompt.detection)
                if prompt.HasField("text"):
                    for mask in result.masks:
                        mask.text_similarity = mask.iou_prediction / 3
                results.append(result)
            return pb.SegmentResponse(**image.fields(), results=results)

    def DetectEdges(self, request: pb.DetectEdgesRequest, context: Any) -> pb.DetectEdgesResponse:
        from PIL import Image

        with self._call("DetectEdges", request, context):
            image, file = self._image(request.image), io.BytesIO()
            Image.new("L", image.size[::-1]).save(file, "PNG")
            return pb.DetectEdgesResponse(**image.fields(), png=file.getvalue())

    def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        with self._call("GetServerInfo", request, context):
            return pb.GetServerInfoResponse(
                version=version("samserve"),
                model="fake",
                fingerprint=_FINGERPRINT,
                precision="fp32",
                backend="fake",
                image_size=4 * LOW_RES_SIZE,
                embedding_shape=_EMBEDDING_SHAPE,
                low_res_size=LOW_RES_SIZE,
                transport="in_process",
                limits=pb.Limits(
                    max_image_bytes=32 << 20, max_image_pixels=100_000_000, max_prompts=512, max_points_per_prompt=64
                ),
                text_prompts=True,
            )

    def GenerateMasks(self, request: pb.GenerateMasksRequest, context: Any) -> Iterator[pb.GenerateMasksResponse]:
        with self._call("GenerateMasks", request, context):
            image = self._image(request.image)
            side = request.points_per_side if request.HasField("points_per_side") else 2
            total = side * side
            yield pb.GenerateMasksResponse(started=pb.GenerationStarted(**image.fields(), points_total=total))
            yield pb.GenerateMasksResponse(progress=pb.GenerationProgress(points_done=total, points_total=total))
            height, width = image.size
            for number in range(total):
                point = pb.Point(
                    x=(number % side + 0.5) * width / side,
                    y=(number // side + 0.5) * height / side,
                    label=pb.POINT_LABEL_FOREGROUND,
                )
                masks = self._masks(pb.Prompt(points=[point]), image, pb.COORDINATE_SPACE_PIXELS, False)
                for mask in mask_messages(masks):
                    crop = pb.Box(x1=width, y1=height)
                    yield pb.GenerateMasksResponse(mask=pb.GeneratedMask(mask=mask, point=point, crop_box=crop))
            yield pb.GenerateMasksResponse(finished=pb.GenerationFinished(mask_count=total))

    def SegmentStream(
        self, request_iterator: Iterator[pb.SegmentStreamRequest], context: Any
    ) -> Iterator[pb.SegmentStreamResponse]:
        with self._call("SegmentStream", None, context):
            edited: EditedPrompt | None = None
            image: _KnownImage | None = None
            for request in request_iterator:
                try:
                    if request.WhichOneof("edit") == "start_session":
                        image = self._image(request.start_session.image)
                        edited = EditedPrompt(request.start_session)
                        continue
                    if edited is None or image is None:
                        raise InvalidRequest("start_session", "comes first")
                    edited.edit(request)
                    yield self._session_masks(request.sequence, edited, image)
                except ClientError as error:
                    yield pb.SegmentStreamResponse(
                        sequence=request.sequence, error=_message_error(request.sequence, error)
                    )

    def SegmentGaze(
        self, request_iterator: Iterator[pb.SegmentGazeRequest], context: Any
    ) -> Iterator[pb.SegmentGazeResponse]:
        with self._call("SegmentGaze", None, context):
            image: _KnownImage | None = None
            config, looked_at = pb.GazeConfig(), None
            answer = pb.GazeAnswer()
            for request in request_iterator:
                kind = request.WhichOneof("message")
                if kind == "config":
                    config = request.config
                elif kind == "frame":
                    try:
                        image, looked_at = self._image(request.frame.image), None
                    except ClientError as error:
                        yield pb.SegmentGazeResponse(error=_message_error(request.frame.sequence, error, "frame"))
                        continue
                    answer.frame_sequence = answer.keyframe_sequence = request.frame.sequence
                    answer.counts.frames += 1
                    answer.counts.keyframes += 1
                else:
                    looked_at = self._look(request.sample, image, config, answer, looked_at)
                    yield pb.SegmentGazeResponse(answer=answer)

    def TrackObjects(
        self, request_iterator: Iterator[pb.TrackObjectsRequest], context: Any
    ) -> Iterator[pb.TrackObjectsResponse]:
        with self._call("TrackObjects", None, context):
            objects: dict[int, tuple[pb.Prompt, pb.CoordinateSpace.ValueType]] = {}
            ever_tracked = False
            for request in request_iterator:
                try:
                    image = self._image(request.frame)
                    for removed in request.removed_object_ids:
                        objects.pop(removed, None)
                    for prompt in request.prompts:
                        objects[prompt.object_id] = prompt.prompt, request.coordinate_space
                    if not (objects or ever_tracked):
                        raise InvalidRequest("prompts", "no object is followed: give at least one")
                    ever_tracked = True
                    started = {prompt.object_id for prompt in request.prompts}
                    frame = pb.TrackedFrame(image_id=image.id)
                    for number, (each, space) in objects.items():
                        state = pb.TRACK_STATE_STARTED if number in started else pb.TRACK_STATE_TRACKED
                        masks = mask_messages(self._masks(each, image, space, False), space=request.coordinate_space)
                        if masks:
                            frame.objects.add(object_id=number, state=state, mask=masks[0], overlap=1.0)
                        else:
                            frame.objects.add(object_id=number, state=pb.TRACK_STATE_LOST)
                    yield pb.TrackObjectsResponse(sequence=request.sequence, frame=frame)
                except ClientError as error:
                    yield pb.TrackObjectsResponse(
                        sequence=request.sequence, error=_message_error(request.sequence, error)
                    )

    @contextmanager
    def _call(self, rpc: str, request: Any, context: Any) -> Iterator[None]:
        """Record the call, and convert a scripted failure or a raised error to its status."""
        self._script.calls.append((rpc, request, dict(context.invocation_metadata())))
        try:
            if self._script.failures:
                raise self._script.failures.popleft()
            yield
        except ClientError as error:
            code, text, details = _status(error)
            status = Status(code=code.value[0], message=text)
            for detail in details:
                status.details.add().Pack(detail)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(code, text)

    def _image(self, image: pb.Image) -> _KnownImage:
        images = self._script.images
        if image.WhichOneof("source") == "data":
            data = image.data
            image_id = ImageId.of(data)
            cached = image_id in images
            images[image_id] = _size(data)
        else:
            image_id, cached = ImageId(image.image_id), True
            if image_id not in images:
                raise ImageNotFound(f"no embedding is cached for {image_id}")
        return _KnownImage(image_id, images[image_id], cached)

    def _masks(self, prompt: pb.Prompt, image: _KnownImage, space: Any, multimask_output: bool) -> list[Any]:
        masks = list(self._script.masks(prompt_in_pixels(prompt, image.size, space), image.size))
        for mask in masks:
            if mask.shape != image.size:
                raise ServerError(f"a mask is {mask.shape} and the image {image.size}", "INTERNAL")
        return masks if multimask_output else masks[:1]

    def _session_masks(self, sequence: int, edited: EditedPrompt, image: _KnownImage) -> pb.SegmentStreamResponse:
        fields = image.fields()
        answer = pb.SessionMasks(
            points=edited.prompt.points,
            box=edited.prompt.box if edited.prompt.HasField("box") else None,
            undoable_edits=edited.undoable_edits,
            image_id=fields["image_id"],
            original_size=fields["original_size"],
        )
        if edited.prompt != pb.Prompt():
            masks = self._masks(edited.prompt, image, edited.start.coordinate_space, edited.multimask_output)
            answer.masks.extend(mask_messages(masks, space=edited.start.coordinate_space))
        return pb.SegmentStreamResponse(sequence=sequence, masks=answer)

    def _look(
        self, sample: pb.GazeSample, image: _KnownImage | None, config: pb.GazeConfig, answer: pb.GazeAnswer, last: Any
    ) -> Any:
        """Fill in the answer to one sample, and return the mask that is looked at from then on."""
        answer.sequence, answer.timestamp_nanoseconds = sample.sequence, sample.timestamp_nanoseconds
        answer.x, answer.y = sample.x, sample.y
        answer.ClearField("mask")
        answer.counts.samples += 1
        if image is None or not sample.valid:
            answer.state = pb.GAZE_STATE_NO_FRAME if image is None else pb.GAZE_STATE_RELEASED
            answer.counts.samples_skipped += 1
            return None
        height, width = image.size
        scale = (width, height) if config.coordinate_space == pb.COORDINATE_SPACE_NORMALIZED else (1, 1)
        row, column = int(sample.y * scale[1]), int(sample.x * scale[0])
        if last is not None and 0 <= row < height and 0 <= column < width and last[row, column]:
            answer.state = pb.GAZE_STATE_SAME_OBJECT
            answer.counts.samples_skipped += 1
            return last
        point = pb.Point(x=sample.x, y=sample.y, label=pb.POINT_LABEL_FOREGROUND)
        masks = self._masks(pb.Prompt(points=[point]), image, config.coordinate_space, False)
        answer.counts.decodes += 1
        if not masks:
            answer.state = pb.GAZE_STATE_RELEASED
            return None
        answer.state = pb.GAZE_STATE_NEW_MASK
        answer.object_id += 1
        answer.mask.CopyFrom(mask_messages(masks, space=config.coordinate_space)[0])
        return masks[0]


def _size(data: bytes) -> tuple[int, int]:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = ImageOps.exif_transpose(image).size
    except Exception:  # Pillow's plugins raise many kinds of exceptions on corrupt data.
        raise InvalidRequest("image.data", "is not an image that can be read") from None
    return height, width


def _status(error: ClientError) -> tuple[grpc.StatusCode, str, list[Message]]:
    details: list[Message] = []
    if isinstance(error, InvalidRequest):
        violation = BadRequest.FieldViolation(field=error.field, description=error.description)
        details.append(BadRequest(field_violations=[violation]))
    if isinstance(error, RetryLater) and error.retry_after_seconds is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(round(1e9 * error.retry_after_seconds))
        details.append(retry)
    if isinstance(error, ServerError):
        return grpc.StatusCode[error.code], str(error), details
    return _CODES.get(type(error), grpc.StatusCode.UNKNOWN), str(error), details


def _message_error(sequence: int, error: ClientError, path: str = "") -> pb.MessageError:
    field = error.field if isinstance(error, InvalidRequest) else ""
    text = error.description if isinstance(error, InvalidRequest) else str(error)
    code = _status(error)[0].value[0]
    return pb.MessageError(sequence=sequence, code=code, field=".".join(filter(None, (path, field))), description=text)
