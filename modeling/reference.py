"""Reference outputs: transformers' `SamModel` in float32, one image and one prompt at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import SamModel

from modeling.architectures import ModelSizes, embed_pixels, model_sizes
from modeling.pixels import PIXEL_MEAN, PIXEL_STD
from modeling.prompts import FloatArray, Prompt


class ReferenceSam:
    """The reference for every other form of the model. It shares no code with the exported graphs.

    Args:
        model: float32, on the device that computes; arrays go in and come out whatever it is.
    """

    def __init__(self, model: SamModel) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self.sizes: ModelSizes = model_sizes(model)

    def embed(self, image: npt.NDArray[np.uint8], input_size: tuple[int, int]) -> FloatArray:
        """SAM's preprocessing (normalise, then pad with zeros) and its image encoder.

        Args:
            image: uint8 `[3, S, S]`, RGB planes; only the valid region is read.
            input_size: (H, W) of the valid region.

        Returns:
            float32 `[C, G, G]`.
        """
        height, width = input_size
        side = self.sizes.image_size
        pixels = torch.from_numpy(image[:, :height, :width].astype(np.float32))
        pixels = (pixels - torch.tensor(PIXEL_MEAN).view(-1, 1, 1)) / torch.tensor(PIXEL_STD).view(-1, 1, 1)
        padded = torch.nn.functional.pad(pixels, (0, side - width, 0, side - height))
        with torch.inference_mode():
            embedded = embed_pixels(self._model.vision_encoder, padded[None].to(self._device))
        embedding: FloatArray = embedded[0].cpu().numpy()
        return embedding

    def predict(self, embedding: npt.NDArray[np.floating[Any]], prompt: Prompt) -> tuple[FloatArray, FloatArray]:
        """`SamModel.forward` on one embedding `[C, G, G]` and one prompt.

        Returns:
            All four masks, float32 `[4, M, M]`, the single-mask output first, and their predicted IoUs, `[4]`.
        """
        inputs: dict[str, Tensor] = {"image_embeddings": torch.from_numpy(embedding.astype(np.float32))[None]}
        if prompt.points:
            inputs["input_points"] = torch.tensor(prompt.points)[None, None]
            inputs["input_labels"] = torch.tensor(prompt.labels)[None, None]
        if prompt.box is not None:
            inputs["input_boxes"] = torch.tensor(prompt.box)[None, None]
        if prompt.mask is not None:
            inputs["input_masks"] = torch.from_numpy(prompt.mask)[None, None]
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        with torch.inference_mode():
            single = self._model(**inputs, multimask_output=False)
            multiple = self._model(**inputs, multimask_output=True)
        masks = torch.cat([single.pred_masks, multiple.pred_masks], dim=2)[0, 0]
        scores = torch.cat([single.iou_scores, multiple.iou_scores], dim=2)[0, 0]
        return masks.cpu().numpy(), scores.cpu().numpy()
