"""The files of `samserve generate`: for each photo a JSON record as the SA-1B data set has it.

    {"image": {"image_id", "width", "height", "file_name"},
     "annotations": [{"id", "segmentation" (COCO RLE), "bbox" (XYWH), "area", "predicted_iou", "stability_score",
                      "point_coords" ([[x, y]]), "crop_box" (XYWH)}]}

`image_id` is samserve's, and ids count from 1 in each file; the data set has integers for both. `bbox` holds all pixels
of the mask, as pycocotools' `toBbox` does; Meta's generator gives one pixel less in width and height.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samserve.client import EmbeddedImage, GeneratedMask


def record(photo: Path, image: EmbeddedImage, masks: Sequence[GeneratedMask]) -> dict[str, Any]:
    """Build the record of one photo."""
    height, width = image.original_size
    return {
        "image": {"image_id": image.image_id, "width": width, "height": height, "file_name": photo.name},
        "annotations": [_annotation(number, mask) for number, mask in enumerate(masks, start=1)],
    }


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def encode(content: dict[str, Any]) -> bytes:
    """Encode the record as JSON."""
    return json.dumps(content).encode()


def xywh(box: Sequence[float]) -> list[float]:
    """Convert XYXY to XYWH."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def _annotation(number: int, mask: GeneratedMask) -> dict[str, Any]:
    return {
        "id": number,
        "segmentation": {"size": mask.rle["size"], "counts": mask.rle["counts"].decode("ascii")},
        "bbox": xywh(mask.box),
        "area": mask.area,
        "predicted_iou": mask.iou_prediction,
        "stability_score": mask.stability_score,
        "point_coords": [list(mask.point)],
        "crop_box": xywh(mask.crop_box),
    }
