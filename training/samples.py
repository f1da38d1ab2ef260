"""Pool entries: an image and its masks, in a compact form."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 512


@dataclass(frozen=True)
class MaskedImage:
    """A picture with masks, which may overlap.

    image [H, W, 3] uint8 RGB; labels [H, W] the elementary piece each pixel belongs to;
    members [K, pieces] bool, the pieces of each mask; weights [K] how firmly each mask stands out, in (0, 1].
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    members: NDArray[np.bool_]
    weights: NDArray[np.float32]

    @classmethod
    def of_masks(cls, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> "MaskedImage":
        """Create an entry from explicit masks [K, H, W] of equal weight."""
        columns, labels = np.unique(masks.reshape(len(masks), -1), axis=1, return_inverse=True)
        pieces = labels.reshape(masks.shape[1:]).astype(np.uint16)
        return cls(image, pieces, columns, np.ones(len(masks), dtype=np.float32))

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The pixels [H, W] of one mask."""
        mask: NDArray[np.bool_] = self.members[index][self.labels]
        return mask

    def save(self, path: Path) -> None:
        _, image = cv2.imencode(".jpg", cv2.cvtColor(self.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
        _, labels = cv2.imencode(".png", self.labels)
        np.savez(path, image=image, labels=labels, members=self.members, weights=self.weights)

    @classmethod
    def load(cls, path: Path) -> "MaskedImage":
        with np.load(path) as stored:
            image = cv2.imdecode(stored["image"], cv2.IMREAD_COLOR_RGB)
            labels = cv2.imdecode(stored["labels"], cv2.IMREAD_UNCHANGED)
            if image is None or labels is None:
                raise ValueError(f"{path} is corrupt; delete it and generate it again")
            return cls(image.astype(np.uint8), labels.astype(np.uint16), stored["members"], stored["weights"])
