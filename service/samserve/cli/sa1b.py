"""The files of `samserve generate`: for each photo a JSON record as the SA-1B data set has it.

    {"info": {"description", "version", "model", "model_fingerprint", "parameters"},
     "image": {"image_id", "width", "height", "file_name"},
     "annotations": [{"id", "segmentation" (COCO RLE), "bbox" (XYWH), "area", "predicted_iou", "stability_score",
                      "point_coords" ([[x, y]]), "crop_box" (XYWH)}]}

`info` is samserve's own and says how the masks were made; `parameters` has those that differ from the defaults.
`image_id` is samserve's, and ids count from 1 in each file; the data set has integers for both. `bbox` holds all pixels
of the mask, as pycocotools' `toBbox` does; Meta's generator gives one pixel less in width and height.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from samserve.cli.output import SIGNATURE, is_own, printable
from samserve.client import EmbeddedImage, GeneratedMask, ImageId


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the masks of a photo are made: two records of one photo and one recipe are the same.

    Attributes:
        model: its name.
        fingerprint: of its weights, preprocessing and precision.
        parameters: of the mask generator, where they differ from the defaults.
    """

    model: str
    fingerprint: str
    parameters: Mapping[str, float]


def record(photo: Path, image: EmbeddedImage, masks: Sequence[GeneratedMask], recipe: Recipe) -> dict[str, Any]:
    """The record of one photo."""
    height, width = image.original_size
    return {
        "info": {
            "description": SIGNATURE,
            "version": version("samserve"),
            "model": recipe.model,
            "model_fingerprint": recipe.fingerprint,
            "parameters": dict(recipe.parameters),
        },
        "image": {
            "image_id": image.image_id,
            "width": width,
            "height": height,
            "file_name": printable(photo.name),
        },
        "annotations": [_annotation(number, mask) for number, mask in enumerate(masks, start=1)],
    }


def read_record(path: Path, image_id: ImageId, recipe: Recipe) -> dict[str, Any] | None:
    """The record in a file, if it is of this photo and was made by this recipe.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        if not is_own(path):
            return None
        content: dict[str, Any] = json.loads(path.read_bytes())
        info = content["info"]
        made_of = (content["image"]["image_id"], info["model_fingerprint"], info["parameters"])
        return content if made_of == (image_id, recipe.fingerprint, recipe.parameters) else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # Cut off, or of another version.
        return None


def encode(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """A record, or a file of COCO's, as JSON."""
    return json.dumps(content, allow_nan=False).encode()


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
