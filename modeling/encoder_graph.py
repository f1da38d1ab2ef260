"""The image encoder as exported: uint8 images in, half-precision embeddings out."""

import torch
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionEncoder

from modeling.architectures import SamParts, embed_pixels, model_sizes
from modeling.half_precision import halved
from modeling.pixels import PIXEL_MEAN, PIXEL_STD
from modeling.precision import FP16, FP32, Precision
from modeling.vit_graph import VitGraph


class ImageEncoderGraph(nn.Module):
    """`sam_image_encoder`: normalisation, padding and the image encoder.

    SAM pads *after* normalising, so a padded pixel is 0, the mean colour. Here padding arrives with the image, filled
    with anything, and `input_size` says where it begins.

    Args:
        model: whose encoder is exported; a ViT's attention in its folded form.
        precision: of the encoder; its weights are copied for half precision and shared otherwise.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: SamParts, precision: Precision = FP32) -> None:
        super().__init__()
        half = precision == FP16
        encoder = halved(model.vision_encoder) if half else model.vision_encoder
        if isinstance(encoder, SamVisionEncoder):
            encoder = VitGraph(encoder, fused_attention=half)
        self.vision_encoder = encoder
        self.dtype = torch.float16 if half else torch.float32
        self.image_size = model_sizes(model).image_size
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)

    def forward(self, image: Tensor, input_size: Tensor) -> Tensor:
        """Embed images.

        Args:
            image: uint8 `[B, 3, S, S]`, RGB planes, the longest side resized to S and aligned at the top left.
            input_size: int32 `[B, 2]`, (H, W) of the region that holds the image. The rest is ignored.

        Returns:
            `image_embeddings`, float16 `[B, C, G, G]`.
        """
        pixel_values = (image.to(torch.float32) - self.pixel_mean) / self.pixel_std
        index = torch.arange(self.image_size, device=image.device, dtype=input_size.dtype)
        inside_rows = index < input_size[:, 0:1]
        inside_columns = index < input_size[:, 1:2]
        inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
        pixel_values = torch.where(inside, pixel_values, torch.zeros_like(pixel_values))
        return embed_pixels(self.vision_encoder, pixel_values.to(self.dtype)).to(torch.float16)
