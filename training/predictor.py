"""The trained model with a user's interface: an image, prompts in its pixels, and masks of its size."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from modeling.tiny import TinySam, load_tiny
from training.dataset import normalised
from training.forward import BOX_END, BOX_START, PADDING, decode, embed_masks, embed_points
from training.mobile_sam import load_mobile_sam


class Predictor:
    """SAM's pre- and post-processing around a TinySam. One image at a time."""

    def __init__(self, model: TinySam) -> None:
        self.model = model
        self.original_size = (0, 0)
        self.input_size = (0, 0)
        self.embeddings = torch.empty(0)

    @classmethod
    def load(cls, weights: Path, image_size: int) -> "Predictor":
        """Load the weights of a training run, or MobileSAM's published checkpoint."""
        load = load_mobile_sam if weights.suffix == ".pt" else load_tiny
        return cls(load(weights, image_size))

    @torch.inference_mode()
    def set_image(self, image: Image.Image) -> None:
        """Encode an RGB image, to which the following prompts refer."""
        self.original_size = (image.height, image.width)
        scale = self.model.image_size / max(self.original_size)
        self.input_size = (int(image.height * scale + 0.5), int(image.width * scale + 0.5))
        resized = np.asarray(image.convert("RGB").resize(self.input_size[::-1], Image.Resampling.BILINEAR))
        pixel_values = torch.from_numpy(normalised(resized, self.model.image_size)).unsqueeze(0)
        self.embeddings = self.model.vision_encoder(pixel_values)

    @torch.inference_mode()
    def predict(
        self,
        points: NDArray[np.float64],
        labels: NDArray[np.int64],
        box: tuple[float, float, float, float] | None = None,
        mask_input: Tensor | None = None,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], Tensor]:
        """All four masks [4, H, W], iou_predictions [4] and low-res logits [4, S/4, S/4].

        points [N, 2] (x, y) and box XYXY in pixels of the image, labels [N] 1 or 0,
        mask_input low-res logits [S/4, S/4].
        """
        coords = torch.from_numpy(np.asarray(points, dtype=np.float32).reshape(-1, 2))
        if box is None:
            coords = torch.cat([coords * self._scale(), torch.zeros(1, 2)])
            kinds = [*labels.tolist(), PADDING]
        else:
            coords = torch.cat([coords, torch.tensor(box).reshape(2, 2)]) * self._scale()
            kinds = [*labels.tolist(), BOX_START, BOX_END]
        sparse = embed_points(self.model, coords.unsqueeze(0), torch.tensor([kinds]))
        dense = None if mask_input is None else embed_masks(self.model, mask_input.unsqueeze(0), torch.tensor([True]))
        logits, ious = decode(self.model, self.embeddings, sparse, dense)
        side = self.model.image_size
        large = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
        large = large[..., : self.input_size[0], : self.input_size[1]]
        masks = F.interpolate(large, self.original_size, mode="bilinear", align_corners=False)[0] > 0
        return masks.numpy(), ious[0].numpy(), logits[0]

    def _scale(self) -> Tensor:
        height, width = self.original_size
        return torch.tensor([self.input_size[1] / width, self.input_size[0] / height])
