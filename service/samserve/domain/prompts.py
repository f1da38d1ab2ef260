"""Prompts: the caller's values, their validation, and the arrays for the mask decoder."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samserve.domain.errors import InvalidPrompt, within
from samserve.domain.geometry import ImageFrame, Size

PROMPTS_PER_DECODE = 32
"""Largest number of prompts per decoder run. Engines are built for it; 32 prompts of SAM have 32 MiB of logits."""


class PointLabel(enum.IntEnum):
    """Point labels: SAM's, and `BATCH_PADDING`, which is transformers' `point_pad_value`."""

    BACKGROUND = 0
    FOREGROUND = 1
    BOX_TOP_LEFT = 2
    BOX_BOTTOM_RIGHT = 3
    NOT_A_POINT = -1
    """SAM's padding point, appended to points without a box. It takes part in attention."""
    BATCH_PADDING = -10
    """Pads the rows of a batch. The decoder masks it out of attention."""


class CoordinateSpace(enum.Enum):
    """Unit of a request's coordinates."""

    PIXELS = enum.auto()
    NORMALIZED = enum.auto()


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Limits of one request."""

    max_prompts: int = 512
    max_points_per_prompt: int = 64


def _no_points() -> npt.NDArray[np.float64]:
    return np.zeros((0, 2))


def _no_labels() -> npt.NDArray[np.int32]:
    return np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class ObjectPrompt:
    """One object to segment.

    Attributes:
        point_coords: float64 `[N, 2]` (x, y) in the original image.
        point_labels: int32 `[N]`, 1 foreground or 0 background.
        box: float64 `[4]` XYXY in the original image.
        mask_input: float32 `[M, M]`, low-resolution logits of an earlier answer.
    """

    point_coords: npt.NDArray[np.float64] = field(default_factory=_no_points)
    point_labels: npt.NDArray[np.int32] = field(default_factory=_no_labels)
    box: npt.NDArray[np.float64] | None = None
    mask_input: npt.NDArray[np.float32] | None = None

    @property
    def is_ambiguous(self) -> bool:
        """True if the prompt is a single point, which may mean a whole, a part or a subpart."""
        return len(self.point_coords) == 1 and self.box is None and self.mask_input is None


@dataclass(frozen=True, slots=True, eq=False)
class PromptBatch:
    """P prompts on one image, in the form of the decoder graph.

    Attributes:
        point_coords: float32 `[P, N, 2]` (x, y) in the model's input frame.
        point_labels: int32 `[P, N]`, values of `PointLabel`.
        mask_input: float32 `[P, M, M]`, zero where `has_mask_input` is zero.
        has_mask_input: float32 `[P]`, 0 or 1.
    """

    point_coords: npt.NDArray[np.float32]
    point_labels: npt.NDArray[np.int32]
    mask_input: npt.NDArray[np.float32]
    has_mask_input: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.point_labels)


def check_count(count: int, limits: PromptLimits) -> None:
    """Reject too many prompts. A separate check, because converting them to arrays would already be expensive.

    Raises:
        InvalidPrompt: there are more than the limit.
    """
    if count > limits.max_prompts:
        raise InvalidPrompt("prompts", f"has {count} entries, the limit is {limits.max_prompts}; split the request")


def check_prompts(prompts: Sequence[ObjectPrompt], limits: PromptLimits, low_res_size: int) -> None:
    """Reject prompts that are invalid for every image.

    Raises:
        InvalidPrompt: there are no prompts, too many prompts, or one that `check_prompt` rejects, with the field
            `prompts[...]`.
    """
    if not prompts:
        raise InvalidPrompt("prompts", "empty; give at least one prompt with points, a box or a mask_input")
    check_count(len(prompts), limits)
    for index, prompt in enumerate(prompts):
        with within(f"prompts[{index}]"):
            check_prompt(prompt, limits, low_res_size)


def check_prompt(prompt: ObjectPrompt, limits: PromptLimits, low_res_size: int) -> None:
    """Reject a prompt that is invalid for every image.

    Raises:
        InvalidPrompt: it is empty, or has too many points, an unknown label, a coordinate or logit that is not finite,
            a box inside out, or a mask of the wrong size; names the field of the prompt.
    """
    if not len(prompt.point_coords) and prompt.box is None and prompt.mask_input is None:
        raise InvalidPrompt("", "empty; give points, a box or a mask_input")
    _check_points(prompt, limits)
    if prompt.box is not None:
        _check_box(prompt.box)
    if prompt.mask_input is not None:
        _check_mask_input(prompt.mask_input, low_res_size)


def check_inside(prompts: Sequence[ObjectPrompt], space: CoordinateSpace, original_size: Size) -> None:
    """Reject coordinates outside the image.

    Raises:
        InvalidPrompt: names the first coordinate of `prompts[...]` that is outside.
    """
    for index, prompt in enumerate(prompts):
        with within(f"prompts[{index}]"):
            check_prompt_inside(prompt, space, original_size)


def check_prompt_inside(prompt: ObjectPrompt, space: CoordinateSpace, original_size: Size) -> None:
    """Reject coordinates of a prompt outside the image.

    Raises:
        InvalidPrompt: names the first coordinate of the prompt that is outside.
    """
    extent = np.array(_extent(space, original_size))
    _check_bounds("points[{row}].{axis}", prompt.point_coords, extent, space)
    if prompt.box is not None:
        _check_bounds("box.{axis}{row}", prompt.box.reshape(2, 2), extent, space)


def in_pixels(prompt: ObjectPrompt, space: CoordinateSpace, original_size: Size) -> ObjectPrompt:
    """Convert the prompt to pixels of the original image."""
    width, height = _extent(space, original_size)
    unit = np.array([original_size.width / width, original_size.height / height])
    box = None if prompt.box is None else prompt.box * np.tile(unit, 2)
    return ObjectPrompt(prompt.point_coords * unit, prompt.point_labels, box, prompt.mask_input)


def batch_prompts(
    prompts: Sequence[ObjectPrompt], space: CoordinateSpace, frame: ImageFrame, low_res_size: int
) -> PromptBatch:
    """Convert valid prompts to the decoder's arrays, in the model's input frame.

    As in SAM's predictor, points without a box get an additional point with label -1, and a box becomes two labelled
    corners.
    """
    width, height = _extent(space, frame.original_size)
    unit = np.array([frame.original_size.width / width, frame.original_size.height / height])
    rows = [_tokens(prompt) for prompt in prompts]
    longest = max(1, *(len(labels) for _, labels in rows))
    shape = (len(rows), longest)
    coords = np.zeros((*shape, 2), dtype=np.float32)
    labels = np.full(shape, PointLabel.BATCH_PADDING, dtype=np.int32)
    mask_input = np.zeros((len(rows), low_res_size, low_res_size), dtype=np.float32)
    has_mask_input = np.zeros(len(rows), dtype=np.float32)
    for index, (prompt, (row_coords, row_labels)) in enumerate(zip(prompts, rows, strict=True)):
        coords[index, : len(row_labels)] = frame.to_input(row_coords * unit)
        labels[index, : len(row_labels)] = row_labels
        if prompt.mask_input is not None:
            mask_input[index] = prompt.mask_input
            has_mask_input[index] = 1
    return PromptBatch(coords, labels, mask_input, has_mask_input)


def click_prompts(points: Iterable[npt.NDArray[np.float64]], frame: ImageFrame, low_res_size: int) -> PromptBatch:
    """Create one foreground point prompt for each point (x, y) in pixels of the frame's image."""
    label = np.full(1, PointLabel.FOREGROUND, dtype=np.int32)
    prompts = [ObjectPrompt(point[None], label) for point in points]
    return batch_prompts(prompts, CoordinateSpace.PIXELS, frame, low_res_size)


def _tokens(prompt: ObjectPrompt) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    if prompt.box is not None:
        extra_coords, extra_labels = prompt.box.reshape(2, 2), [PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]
    elif len(prompt.point_coords):
        extra_coords, extra_labels = np.zeros((1, 2)), [PointLabel.NOT_A_POINT]
    else:
        return _no_points(), _no_labels()
    return (
        np.concatenate([prompt.point_coords, extra_coords]),
        np.concatenate([prompt.point_labels, np.array(extra_labels, dtype=np.int32)]),
    )


def _extent(space: CoordinateSpace, original_size: Size) -> tuple[float, float]:
    if space is CoordinateSpace.NORMALIZED:
        return 1.0, 1.0
    return float(original_size.width), float(original_size.height)


def check_point_count(count: int, limits: PromptLimits) -> None:
    """Reject more points than one prompt may have.

    Raises:
        InvalidPrompt: of the field `points`.
    """
    if count > limits.max_points_per_prompt:
        limit = limits.max_points_per_prompt
        raise InvalidPrompt("points", f"has {count} entries, the limit is {limit}; send fewer points")


def _check_points(prompt: ObjectPrompt, limits: PromptLimits) -> None:
    count = len(prompt.point_coords)
    check_point_count(count, limits)
    if count != len(prompt.point_labels):
        raise InvalidPrompt(
            "points", f"has {count} coordinates and {len(prompt.point_labels)} labels; give one label per point"
        )
    _check_finite("points[{row}].{axis}", prompt.point_coords)
    labels = prompt.point_labels
    known = (labels == PointLabel.FOREGROUND) | (labels == PointLabel.BACKGROUND)
    if not known.all():
        raise InvalidPrompt(f"points[{np.argmin(known)}].label", "unknown label; expected foreground or background")


def _check_box(box: npt.NDArray[np.float64]) -> None:
    corners = box.reshape(2, 2)
    _check_finite("box.{axis}{row}", corners)
    for axis, low, high in zip("xy", *corners, strict=True):
        if low >= high:
            raise InvalidPrompt(
                f"box.{axis}1",
                f"must be above {axis}0 = {_digits(low)}, got {_digits(high)}",
            )


def _check_mask_input(mask_input: npt.NDArray[np.float32], low_res_size: int) -> None:
    if mask_input.shape != (low_res_size, low_res_size):
        raise InvalidPrompt(
            "mask_input.size",
            f"must be {low_res_size}, the side of this model's low-resolution masks, got {len(mask_input)}",
        )
    if not np.isfinite(mask_input).all():
        raise InvalidPrompt(
            "mask_input.data", "contains non-finite values; send the logits as the server returned them"
        )


def _check_finite(name: str, coords: npt.NDArray[np.float64]) -> None:
    finite = np.isfinite(coords)
    if not finite.all():
        row, axis = np.argwhere(~finite)[0]
        raise InvalidPrompt(name.format(row=row, axis="xy"[axis]), f"must be finite, got {coords[row, axis]}")


def _check_bounds(
    name: str, coords: npt.NDArray[np.float64], extent: npt.NDArray[np.float64], space: CoordinateSpace
) -> None:
    inside = (coords >= 0) & (coords <= extent)
    if not inside.all():
        row, axis = np.argwhere(~inside)[0]
        what = "normalized coordinates" if space is CoordinateSpace.NORMALIZED else "the image"
        raise InvalidPrompt(
            name.format(row=row, axis="xy"[axis]),
            f"must be within [0, {_digits(extent[axis])}] of {what}, got {_digits(coords[row, axis])}",
        )


def _digits(value: float) -> str:
    # As many digits as distinguish float32 values, which is the type in the API's messages.
    return np.format_float_positional(np.float32(value), trim="-")
