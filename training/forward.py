"""The decoder's forward pass over rows of one prompt each, with all four masks per row."""

from typing import Any

import torch
from torch import Tensor

from modeling.tiny import TinySam

BACKGROUND, FOREGROUND, BOX_START, BOX_END, PADDING = 0, 1, 2, 3, -1


def embed_points(model: TinySam, coords: Tensor, labels: Tensor) -> Tensor:
    """Prompt tokens [R, N, 256] of coords [R, N, 2] (pixels of the padded input) and labels [R, N] in -1..3."""
    encoder: Any = model.prompt_encoder
    size = (model.image_size, model.image_size)
    position = encoder.shared_embedding((coords + 0.5).unsqueeze(1), size).squeeze(1)
    kinds = torch.cat([*(kind.weight for kind in encoder.point_embed), encoder.not_a_point_embed.weight])
    position = position * (labels != PADDING).unsqueeze(-1)
    # Padding, label -1, selects the last row.
    return position + kinds[labels]


def embed_masks(model: TinySam, logits: Tensor, given: Tensor) -> Tensor:
    """Dense prompts [R, 256, S/16, S/16]: of low-res logits [R, S/4, S/4] where given [R], else "no mask"."""
    dense: Tensor = model.prompt_encoder.mask_embed(logits.unsqueeze(1))
    none = model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return torch.where(given.reshape(-1, 1, 1, 1), dense, none)


def decode(model: TinySam, embeddings: Tensor, sparse: Tensor, dense: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """low_res_masks [R, 4, S/4, S/4] and iou_predictions [R, 4], all four masks of each row.

    From embeddings [R, 256, S/16, S/16], prompt tokens [R, N, 256] and dense prompts [R, 256, S/16, S/16].
    What SamMaskDecoder does, without its choice between the single mask and the other three.
    """
    decoder = model.mask_decoder
    rows = embeddings.shape[0]
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(rows, -1, -1)
    tokens = torch.cat([tokens, sparse], dim=1).unsqueeze(1)
    if dense is None:
        dense = model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    queries, keys = decoder.transformer(
        point_embeddings=tokens,
        image_embeddings=embeddings + dense,
        image_positional_embeddings=model.image_positional_embeddings(),
        attention_similarity=None,
    )
    fine = _upscale(model, keys.transpose(2, 3).reshape(embeddings.shape))
    masks = torch.einsum("rmc,rchw->rmhw", _mask_weights(model, queries[:, 0, 1:]), fine)
    return masks, decoder.iou_prediction_head(queries[:, 0, 0])


def _upscale(model: TinySam, grid: Tensor) -> Tensor:
    """[R, 256, S/16, S/16] -> [R, 32, S/4, S/4]."""
    decoder = model.mask_decoder
    fine = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(grid)))
    upscaled: Tensor = decoder.activation(decoder.upscale_conv2(fine))
    return upscaled


def _mask_weights(model: TinySam, tokens: Tensor) -> Tensor:
    """[R, 4, 256] -> [R, 4, 32]."""
    mlps = model.mask_decoder.output_hypernetworks_mlps
    return torch.stack([mlp(tokens[:, index]) for index, mlp in enumerate(mlps)], dim=1)
