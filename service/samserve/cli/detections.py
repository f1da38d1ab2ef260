"""A detector's boxes, and the masks in them, in COCO's results format.

In: a list of `{"bbox": [x, y, width, height], "category_id", "score", "image_id"}`, of which all but the box may be
missing, or a COCO data set, `{"images": [...], "annotations": [...]}`. Out: a list of
`{"image_id", "category_id", "segmentation", "score"}`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samserve.cli.data_sets import entries_of
from samserve.cli.errors import CommandFailed
from samserve.cli.output import SIGNATURE
from samserve.client import Detection, Prompt, Segmentation

_MAX_CATEGORY_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class DetectedBox:
    """One box.

    Attributes:
        image_id: of the data set, as the file has it or as the photo's name says.
        box: XYXY in pixels of the photo.
    """

    image_id: int | str
    box: tuple[float, float, float, float]
    detection: Detection

    def prompt(self) -> Prompt:
        """The box as a prompt."""
        return Prompt(box=self.box, detection=self.detection)


@dataclass(frozen=True, slots=True)
class Detections:
    """The boxes of one photo, and a sentence about each entry that has none."""

    boxes: list[DetectedBox]
    skipped: list[str]


def read_detections(path: Path, photo: Path, original_size: tuple[int, int], image_id: str | None = None) -> Detections:
    """The boxes of one photo of (H, W), clipped to it: detectors let boxes reach over the edge.

    Args:
        image_id: of the photo in the file; None to find it by the photo's name (`data_sets`).

    Raises:
        CommandFailed: the file is not as it must be or is about other photos, or none of its entries for this photo
            can be used.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CommandFailed(f"{path} is not a JSON file ({error})") from None
    known, entries = entries_of(path, content, photo, original_size, image_id)
    boxes, skipped = [], []
    for index, entry in entries:
        try:
            boxes.append(_read(entry, known, original_size))
        except _Unusable as error:
            skipped.append(f"{path}: entry {index}: {error}")
    if skipped and not boxes:
        raise CommandFailed(f"{skipped[0]}{f' (and {len(skipped) - 1} more)' if len(skipped) > 1 else ''}")
    return Detections(boxes, skipped)


def coco_results(boxes: Sequence[DetectedBox], segmentations: Sequence[Segmentation]) -> list[dict[str, Any]]:
    """One entry for each box, in their order, with the box's class and score and its best mask.

    As COCO's format of segmentation results has it, without `bbox`: pycocotools would take the area from it.
    """
    results = []
    for box, segmentation in zip(boxes, segmentations, strict=True):
        rle = segmentation.rles[segmentation.best]
        results.append(
            {
                "image_id": box.image_id,
                "category_id": box.detection.category_id,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                "score": box.detection.score,
                "source": SIGNATURE,
            }
        )
    return results


class _Unusable(Exception):
    """An entry that holds no box; says what is wrong with it."""


def _read(entry: dict[str, Any], image_id: int | str, original_size: tuple[int, int]) -> DetectedBox:
    height, width = original_size
    try:
        x, y, w, h = (float(value) for value in entry["bbox"])
        category_id, score = _or(entry.get("category_id"), 1), float(_or(entry.get("score"), 1.0))
        detection = Detection(int(category_id), score)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _Unusable("bbox must be [x, y, width, height], category_id and score numbers") from None
    if detection.category_id != category_id or abs(detection.category_id) > _MAX_CATEGORY_ID:
        raise _Unusable(f"category_id must be an integer, got {category_id!r}")
    if not math.isfinite(score):
        raise _Unusable(f"score must be a finite number, got {score}")
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise _Unusable(f"bbox {entry['bbox']} has no area")
    box = (max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise _Unusable(f"bbox {entry['bbox']} lies outside the photo of {width} x {height} pixels")
    return DetectedBox(_or(entry.get("image_id"), image_id), box, detection)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
