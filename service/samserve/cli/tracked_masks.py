"""The masks of a video as files: a COCO data set, and a folder with a PNG for each frame."""

from pathlib import Path
from typing import Any

import numpy as np

from samserve.cli.output import SIGNATURE, printable, write_file
from samserve.cli.sa1b import encode, xywh
from samserve.client import TrackedFrame

_CATEGORY = {"id": 1, "name": "object"}


class TrackedMasks:
    """Collects the masks frame by frame.

    Args:
        coco: the data set; written by `close`. None where it is not asked for.
        folder: of the PNGs, as DAVIS has them: a palette picture whose value is the object's number, later objects over
            earlier ones. None likewise.
    """

    def __init__(self, coco: Path | None, folder: Path | None) -> None:
        self._coco, self._folder = coco, folder
        self._stems: set[str] = set()
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, size: tuple[int, ...], frame: TrackedFrame) -> None:
        """Take the masks of a frame of (H, W).

        Args:
            name: of the frame's file.

        Raises:
            OSError: its PNG cannot be written.
        """
        if self._coco is not None:
            self._annotate(name, size, frame)
        if self._folder is not None:
            stem = Path(name).stem
            # 0.jpg and 0.png may be two frames.
            path = self._folder / (f"{name}.png" if stem in self._stems else f"{stem}.png")
            self._stems.add(stem)
            self._write_png(path, size, frame)

    def close(self) -> None:
        """Write the data set.

        Raises:
            OSError: it cannot be written.
        """
        if self._coco is not None:
            info = {"description": SIGNATURE}
            content = {
                "info": info,
                "images": self._images,
                "categories": [_CATEGORY],
                "annotations": self._annotations,
            }
            write_file(self._coco, encode(content))

    def _annotate(self, name: str, size: tuple[int, ...], frame: TrackedFrame) -> None:
        image_id = len(self._images) + 1
        self._images.append(
            {
                "id": image_id,
                "file_name": printable(name),
                "height": size[0],
                "width": size[1],
                "frame": frame.sequence,
            }
        )
        for tracked in frame.objects:
            if tracked.mask is None:
                continue
            rle = tracked.mask.rle
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": _CATEGORY["id"],
                    "track_id": tracked.object_id,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "area": tracked.mask.area,
                    "bbox": xywh(tracked.mask.box),
                    "iscrowd": 0,
                    "score": tracked.mask.iou_prediction,
                }
            )

    def _write_png(self, path: Path, size: tuple[int, ...], frame: TrackedFrame) -> None:
        from PIL import Image

        from samserve.cli.pictures.animation import COLORS
        from samserve.cli.pictures.files import write_picture

        numbers = np.zeros(size, dtype=np.uint8)
        for tracked in frame.objects:
            if tracked.mask is not None:
                numbers[tracked.mask.mask] = tracked.object_id
        image = Image.fromarray(numbers)
        image.putpalette([0, 0, 0, *(value for number in range(1, 256) for value in COLORS[number % len(COLORS)])])
        write_picture(path, image)
