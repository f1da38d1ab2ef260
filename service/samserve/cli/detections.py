"""A detector's boxes, and the masks in them, in COCO's results format.

Input: a list of `{"bbox": [x, y, width, height], "category_id", "score", "image_id"}`, or the annotations of a COCO
data set, `{"annotations": [...]}`. Only the box is required. Output: the same with `segmentation`, and the mask's own
box.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samserve.cli.errors import CommandFailed
from samserve.cli.sa1b import xywh
from samserve.client import Detection, Prompt, Segmentation

_DEFAULTS = {"category_id": 1, "score": 1.0}


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


def read_detections(path: Path, photo: Path, original_size: tuple[int, int]) -> list[DetectedBox]:
    """Read the boxes of one photo of size (H, W), clipped to it, because detectors' boxes may exceed the image.

    If the file has several images, boxes whose `image_id` is the photo's name without suffix are used.

    Raises:
        CommandFailed: the file is invalid; the message names the entry.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        entries = content["annotations"] if isinstance(content, dict) else content
        named = [(f"{path}: entry {index}", entry) for index, entry in enumerate(entries)]
        ids = {entry.get("image_id") for _, entry in named}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandFailed(f"{path} is not in COCO results format ({error!r})") from None
    image_id = _image_id(photo)
    if len(ids) > 1:
        if image_id not in ids:
            raise CommandFailed(
                f"{path} contains boxes of {len(ids)} images, but none with image_id {image_id!r}, the photo's name"
            )
        named = [(where, entry) for where, entry in named if entry.get("image_id") == image_id]
    if not named:
        raise CommandFailed(f"{path} contains no boxes")
    return [_read(where, entry, image_id, original_size) for where, entry in named]


def coco_results(boxes: Sequence[DetectedBox], segmentations: Sequence[Segmentation]) -> list[dict[str, Any]]:
    """Build one entry per box, in order, with the box's class and score and its best mask."""
    results = []
    for box, segmentation in zip(boxes, segmentations, strict=True):
        detection = segmentation.detection
        assert detection is not None
        rle = segmentation.rles[segmentation.best]
        results.append(
            {
                "image_id": box.image_id,
                "category_id": detection.category_id,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                "bbox": xywh(segmentation.boxes[segmentation.best].tolist()),
                "score": detection.score,
            }
        )
    return results


def _image_id(photo: Path) -> int | str:
    return int(photo.stem) if photo.stem.isdecimal() else photo.stem


def _read(where: str, entry: dict[str, Any], image_id: int | str, original_size: tuple[int, int]) -> DetectedBox:
    height, width = original_size
    try:
        x, y, w, h = (float(value) for value in entry["bbox"])
        known = _DEFAULTS | {name: entry[name] for name in _DEFAULTS if name in entry}
        detection = Detection(int(known["category_id"]), float(known["score"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CommandFailed(
            f"{where}: bbox must be [x, y, width, height], category_id and score numbers ({error!r})"
        ) from None
    box = (max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h))
    if not all(map(math.isfinite, (x, y, w, h))) or box[0] >= box[2] or box[1] >= box[3]:
        raise CommandFailed(f"{where}: bbox {entry['bbox']} lies outside the photo of {width} x {height} pixels")
    return DetectedBox(entry.get("image_id", image_id), box, detection)
