"""Conversion between messages of the API and values of the domain."""

from datetime import timedelta

import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration

from samserve.domain.errors import InvalidImage, InvalidPrompt, within
from samserve.domain.geometry import Size
from samserve.domain.identity import ImageId
from samserve.domain.prompts import CoordinateSpace, ObjectPrompt, PointLabel, PromptLimits, check_point_count
from samserve.usecases.embedder import EmbeddingResult, ImageInput
from samserve.usecases.ports import EmbeddingSource
from samserve.usecases.timings import Stage, StageTimings
from samserve.v1 import segmentation_pb2 as pb

_POINT_LABELS = {
    pb.POINT_LABEL_FOREGROUND: PointLabel.FOREGROUND,
    pb.POINT_LABEL_BACKGROUND: PointLabel.BACKGROUND,
}

_SPACES = {
    pb.COORDINATE_SPACE_UNSPECIFIED: CoordinateSpace.PIXELS,
    pb.COORDINATE_SPACE_PIXELS: CoordinateSpace.PIXELS,
    pb.COORDINATE_SPACE_NORMALIZED: CoordinateSpace.NORMALIZED,
}

_SOURCES = {
    EmbeddingSource.ENCODED: pb.EMBEDDING_SOURCE_ENCODED,
    EmbeddingSource.COALESCED: pb.EMBEDDING_SOURCE_COALESCED,
    EmbeddingSource.MEMORY: pb.EMBEDDING_SOURCE_MEMORY,
    EmbeddingSource.REDIS: pb.EMBEDDING_SOURCE_REDIS,
}


def read_image(image: pb.Image, max_image_bytes: int, field: str = "image") -> ImageInput:
    """Read an image, or its id.

    Args:
        field: of the request.

    Raises:
        InvalidImage: it names none, has a malformed id, or is larger than the limit; of the field.
    """
    with within(field):
        match image.WhichOneof("source"):
            case "data":
                # Each access to a bytes field copies it.
                data = image.data
                if len(data) > max_image_bytes:
                    raise InvalidImage(
                        "data", f"has {len(data)} bytes, the limit is {max_image_bytes}; compress or scale the image"
                    )
                return ImageInput(data=data, field=field)
            case "image_id":
                return ImageInput(image_id=ImageId.parse(image.image_id), field=field)
            case _:
                raise InvalidImage("", "missing; set data or image_id")


def read_space(space: pb.CoordinateSpace.ValueType) -> CoordinateSpace:
    """Read the unit of a request's coordinates.

    Raises:
        InvalidPrompt: it is unknown.
    """
    if space not in _SPACES:
        raise InvalidPrompt("coordinate_space", f"unknown coordinate_space {space}; expected PIXELS or NORMALIZED")
    return _SPACES[space]


def read_prompt(prompt: pb.Prompt, limits: PromptLimits) -> ObjectPrompt:
    """Read a prompt without validating its values.

    Raises:
        InvalidPrompt: there are too many points, a label is unknown, the logits are not a square of float16, or it is
            a text, which `grpc_text` reads; names the field of the prompt.
    """
    if prompt.HasField("text"):
        raise InvalidPrompt("text", "only Segment accepts text prompts; use points, a box or a mask_input")
    # Counted before they are read, because converting a message full of points would block the event loop.
    check_point_count(len(prompt.points), limits)
    labels = []
    for index, point in enumerate(prompt.points):
        try:
            labels.append(read_label(point))
        except InvalidPrompt as error:
            raise error.within(f"points[{index}]") from None
    box = prompt.box
    return ObjectPrompt(
        point_coords=np.array([(p.x, p.y) for p in prompt.points], dtype=np.float64).reshape(-1, 2),
        point_labels=np.array(labels, dtype=np.int32),
        box=np.array([box.x0, box.y0, box.x1, box.y1], dtype=np.float64) if prompt.HasField("box") else None,
        mask_input=_read_low_res(prompt.mask_input) if prompt.HasField("mask_input") else None,
    )


def read_label(point: pb.Point) -> PointLabel:
    """Read a point's label.

    Raises:
        InvalidPrompt: of the field `label`: it is unknown, or not said.
    """
    if point.label not in _POINT_LABELS:
        raise InvalidPrompt(
            "label", f"unknown label {point.label}; expected POINT_LABEL_FOREGROUND or POINT_LABEL_BACKGROUND"
        )
    return _POINT_LABELS[point.label]


def _read_low_res(mask: pb.LowResMask) -> npt.NDArray[np.float32]:
    if not mask.size:
        raise InvalidPrompt(
            "mask_input.size", "must not be 0; set it to the logits' side, GetServerInfo's low_res_size"
        )
    size, data = mask.size, mask.data
    if len(data) != 2 * size**2:
        raise InvalidPrompt(
            "mask_input.data", f"has {len(data)} bytes, expected {2 * size**2} ({size} x {size} float16)"
        )
    return np.frombuffer(data, dtype="<f2").reshape(size, size).astype(np.float32)


def size_message(size: Size) -> pb.Size:
    """Convert a size."""
    return pb.Size(height=size.height, width=size.width)


def source_message(embedded: EmbeddingResult) -> pb.EmbeddingSource.ValueType:
    """Convert the source of an embedding."""
    return _SOURCES[embedded.source]


def is_cached(embedded: EmbeddingResult) -> bool:
    """Return True if the image had already been encoded, or was encoded for another request."""
    return embedded.source is not EmbeddingSource.ENCODED


def timings_message(timings: StageTimings, total_seconds: float) -> pb.Timings:
    """Convert the timings of a request."""
    return pb.Timings(
        cache=duration(timings[Stage.CACHE]),
        image_decode=duration(timings[Stage.IMAGE_DECODE]),
        queue=duration(timings[Stage.QUEUE]),
        encode=duration(timings[Stage.ENCODE]),
        decode=duration(timings[Stage.MASK_DECODE]),
        postprocess=duration(timings[Stage.POST_PROCESS]),
        total=duration(total_seconds),
        rank=duration(timings[Stage.RANK]),
    )


def duration(seconds: float) -> Duration:
    """Convert seconds to a message."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
