"""The forms in which masks are returned to callers."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import Size
from samserve.domain.masks import Mask

Ring: TypeAlias = npt.NDArray[np.float64]
"""Corners (x, y) of a closed outline in pixels of the image, `[N, 2]` with N >= 3, through the centres of the outermost
pixels; around them, where these form a line or a single pixel."""

_ALMOST_CORNERS = ((-0.49, -0.49), (0.49, -0.49), (0.49, 0.49), (-0.49, 0.49))
"""From a pixel's centre. Not its corners, which programs that fill the outline could count to its neighbours."""


class MaskFormat(Enum):
    """The form of a returned mask."""

    COCO_RLE = "coco_rle"
    PNG = "png"
    POLYGONS = "polygons"
    LOW_RES_LOGITS = "low_res_logits"


@dataclass(frozen=True, slots=True)
class RleMask:
    """The mask as COCO's compressed run lengths."""

    counts: bytes


@dataclass(frozen=True, slots=True)
class PngMask:
    """The mask as a PNG file of the whole image, one bit per pixel."""

    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One connected region: its outline, and the outlines of its holes."""

    exterior: Ring
    holes: list[Ring]


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMask:
    """The mask as outlines of its connected regions."""

    polygons: list[Polygon]

    @classmethod
    def trace(cls, mask: Mask) -> "PolygonMask":
        """Trace the outlines of a mask."""
        if not mask.window.size:
            return cls([])
        contours, hierarchy = cv2.findContours(
            mask.window.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(mask.left, mask.top)
        )
        rings = [_ring(contour.reshape(-1, 2)) for contour in contours]
        parents = [int(parent) for *_, parent in hierarchy[0]] if rings else []
        # OpenCV lists a hole's outline before or after its exterior, so exteriors are created first.
        polygons = {index: Polygon(rings[index], []) for index, parent in enumerate(parents) if parent < 0}
        for ring, parent in zip(rings, parents, strict=True):
            if parent >= 0:
                polygons[parent].holes.append(ring)
        return cls(list(polygons.values()))


@dataclass(frozen=True, slots=True, eq=False)
class LogitsMask:
    """The decoder's logits as float16 `[M, M]` over the model's square input."""

    values: npt.NDArray[np.float16]

    @classmethod
    def of(cls, low_res_mask: npt.NDArray[np.float32]) -> "LogitsMask":
        """Round float32 logits, clamped to the range of float16."""
        limit = np.finfo(np.float16).max
        return cls(np.clip(low_res_mask, -limit, limit).astype(np.float16))


@dataclass(frozen=True, slots=True, eq=False)
class RenderedMask:
    """A mask in the form that a caller asked for.

    Attributes:
        content: the form.
        original_size: of the whole image.
        bbox: tight XYXY box in pixels of the image, right and bottom exclusive; zeros where the mask is empty.
        area: number of pixels.
        logits: beside the form, where they were asked for.
    """

    content: RleMask | PngMask | PolygonMask | LogitsMask
    original_size: Size
    bbox: tuple[float, float, float, float]
    area: int
    iou_prediction: float
    stability_score: float
    logits: LogitsMask | None = None


def _ring(pixels: npt.NDArray[Any]) -> Ring:
    """The outline through pixels (x, y), `[N, 2]`."""
    # OpenCV counts pixels, our coordinates begin at a pixel's corner: its centre is half a pixel on.
    centres: Ring = pixels.astype(np.float64) + 0.5
    if len(centres) >= 3:
        return centres
    # One pixel or a line of them: a ring through their centres would have no inside.
    corners = np.concatenate([centres + offset for offset in _ALMOST_CORNERS]).astype(np.float32)
    return cv2.convexHull(corners).reshape(-1, 2).astype(np.float64)
