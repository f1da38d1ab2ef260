"""The mask decoder as exported: any number of prompts of any length, on a batch of images."""

from typing import cast

import torch
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamTwoWayAttentionBlock

from modeling.architectures import SamParts, model_sizes
from modeling.half_precision import halved
from modeling.precision import FP16, FP32, Precision
from modeling.prompts import ABSENT, NOT_A_POINT

# Added to the attention logits of absent tokens, which makes their softmax weight exactly 0: SAM's logits stay within
# some hundreds, because their operands are layer norms. Unlike -inf it is finite in float16 and bfloat16 and safe in
# fused kernels.
ABSENT_LOGIT = -3e4

# Only in half precision: clients may send float32 logits of any size. SAM's own logits stay within some tens.
LARGEST_MASK_LOGIT = 1e3


class MaskDecoderGraph(nn.Module):
    """`sam_mask_decoder`: SAM's prompt encoder and mask decoder over `[B, P]` prompts.

    The same modules as in transformers' `SamModel`, called with two differences. Tokens of label −10 are masked out of
    every attention, so that padding prompts to a common length changes nothing. And masks are given per prompt, where
    `SamModel` takes one per image.

    Args:
        model: whose prompt encoder and mask decoder are exported.
        precision: of all but the positional encoding; weights are copied for half precision and shared otherwise.
    """

    def __init__(self, model: SamParts, precision: Precision = FP32) -> None:
        super().__init__()
        parts = (model.shared_image_embedding, model.prompt_encoder, model.mask_decoder)
        if precision == FP16:
            parts = (halved(parts[0]), halved(parts[1]), halved(parts[2]))
        self.shared_image_embedding, self.prompt_encoder, self.mask_decoder = parts
        self.dtype = torch.float16 if precision == FP16 else torch.float32
        self.sizes = model_sizes(model)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks of P prompts on each of B images.

        Args:
            image_embeddings: float16 `[B, C, G, G]`.
            point_coords: float32 `[B, P, N, 2]`, (x, y) in pixels of the S×S input frame.
            point_labels: int32 `[B, P, N]`: 1 foreground, 0 background, 2 and 3 a box's top left and bottom right
                corner, −1 SAM's padding point, −10 absent.
            mask_input: float32 `[B, P, M, M]`, low-resolution logits of an earlier answer.
            has_mask_input: float32 `[B, P]`, 1 where `mask_input` counts and 0 where it is ignored.

        Returns:
            `low_res_masks`, float32 `[B, P, 4, M, M]`, index 0 from the single-mask token, and `iou_predictions`,
            float32 `[B, P, 4]`.
        """
        batch, prompts, _ = point_labels.shape
        channels, grid, low_res = self.sizes.channels, self.sizes.grid_size, self.sizes.low_res_size
        rows = batch * prompts

        # From here on each prompt is a row. Attention sees [rows, 1, tokens, C], the layout of SamAttention.
        dense = self._embed_masks(
            mask_input.reshape(rows, 1, low_res, low_res), has_mask_input.reshape(rows, 1, 1, 1)
        ).reshape(batch, prompts, channels, grid, grid)
        image = (image_embeddings.to(dense.dtype)[:, None] + dense).reshape(rows, 1, channels, grid * grid)
        tokens, absence = self._tokens(point_coords.flatten(0, 1), point_labels.flatten(0, 1))
        tokens, image = self._attend(tokens, image.transpose(2, 3), absence)
        masks, iou_predictions = self._predict(tokens, image)
        return (
            masks.reshape(batch, prompts, -1, low_res, low_res).to(torch.float32),
            iou_predictions.reshape(batch, prompts, -1).to(torch.float32),
        )

    def _embed_masks(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Embed masks `[rows, 1, M, M]` as dense prompts `[rows, C, G, G]`."""
        mask_input = self._in_range(mask_input)
        no_mask = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return torch.where(has_mask_input > 0, self.prompt_encoder.mask_embed(mask_input), no_mask)

    def _in_range(self, mask_input: Tensor) -> Tensor:
        """Clamp logits to the range of the graph's precision and convert them."""
        if self.dtype == torch.float16:
            return mask_input.clamp(-LARGEST_MASK_LOGIT, LARGEST_MASK_LOGIT).to(torch.float16)
        return mask_input

    def _embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Embed points `[rows, N, 2]` as sparse prompts `[rows, N, C]`. Absent points are zero."""
        encoder = self.prompt_encoder
        labels = labels[..., None]
        embeddings: Tensor = encoder.shared_embedding((coords + 0.5) / self.sizes.image_size)
        zero = torch.zeros_like(embeddings)
        for label, point_embed in enumerate(encoder.point_embed):
            weight = cast(nn.Embedding, point_embed).weight
            embeddings = embeddings + torch.where(labels == label, weight, zero)
        embeddings = torch.where(labels == NOT_A_POINT, encoder.not_a_point_embed.weight, embeddings)
        return torch.where(labels == ABSENT, zero, embeddings)

    def _tokens(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Concatenate the output tokens and the prompt's tokens, `[rows, 1, T, C]`, with their attention bias `[rows,
        1, 1, T]`."""
        outputs = torch.cat([self.mask_decoder.iou_token.weight, self.mask_decoder.mask_tokens.weight], dim=0)
        sparse = self._embed_points(coords, labels)
        tokens = torch.cat([outputs.expand(labels.shape[0], -1, -1), sparse], dim=1)
        bias = torch.where(labels == ABSENT, ABSENT_LOGIT, 0.0).to(tokens.dtype)
        always_present = torch.zeros_like(tokens[:, : outputs.shape[0], 0])
        return tokens[:, None], torch.cat([always_present, bias], dim=1)[:, None, None, :]

    def _image_position(self) -> Tensor:
        """Positional encoding of the cells of the image embedding, `[1, 1, G·G, C]`."""
        grid = self.sizes.grid_size
        weight = self.shared_image_embedding.positional_embedding
        centre = (torch.arange(grid, device=weight.device, dtype=weight.dtype) + 0.5) / grid
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        position: Tensor = self.shared_image_embedding(torch.stack([x, y], dim=-1))
        return position.reshape(1, 1, grid * grid, -1)

    def _attend(self, tokens: Tensor, image: Tensor, absence: Tensor) -> tuple[Tensor, Tensor]:
        """Run SamTwoWayTransformer on tokens `[rows, 1, T, C]` and image `[rows, 1, G·G, C]`. Returns both, updated."""
        transformer = self.mask_decoder.transformer
        position = self._image_position()
        queries, keys = tokens, image
        for layer in transformer.layers:
            layer = cast(SamTwoWayAttentionBlock, layer)
            queries, keys = _two_way_layer(layer, queries, keys, tokens, position, absence)
        attended, _ = transformer.final_attn_token_to_image(query=queries + tokens, key=keys + position, value=keys)
        return transformer.layer_norm_final_attn(queries + attended), keys

    def _predict(self, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict masks `[rows, 4, M·M]` and IoUs `[rows, 4]` from the attended tokens and image."""
        decoder, grid = self.mask_decoder, self.sizes.grid_size
        upscaled = decoder.upscale_conv1(image[:, 0].transpose(1, 2).reshape(-1, self.sizes.channels, grid, grid))
        upscaled = decoder.activation(decoder.upscale_layer_norm(upscaled))
        upscaled = decoder.activation(decoder.upscale_conv2(upscaled))
        return self._hyper_in(tokens[:, 0]) @ upscaled.flatten(2), decoder.iou_prediction_head(tokens[:, 0, 0])

    def _hyper_in(self, tokens: Tensor) -> Tensor:
        """Compute the vector of each mask, `[rows, 4, C/8]`, from the attended tokens `[rows, T, C]`."""
        decoder = self.mask_decoder
        mask_tokens = tokens[:, 1 : 1 + decoder.num_mask_tokens]
        return torch.stack(
            [mlp(mask_tokens[:, index]) for index, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )


def _two_way_layer(
    layer: SamTwoWayAttentionBlock, queries: Tensor, keys: Tensor, tokens: Tensor, position: Tensor, absence: Tensor
) -> tuple[Tensor, Tensor]:
    """Run SamTwoWayAttentionBlock with absent tokens masked out wherever tokens are keys.

    Its own forward would mask only the attention from tokens to image, where absent tokens are queries and cannot
    affect other queries.
    """
    if layer.skip_first_layer_pe:
        queries, _ = layer.self_attn(query=queries, key=queries, value=queries, attention_similarity=absence)
    else:
        query = queries + tokens
        attended, _ = layer.self_attn(query=query, key=query, value=queries, attention_similarity=absence)
        queries = queries + attended
    queries = layer.layer_norm1(queries)

    attended, _ = layer.cross_attn_token_to_image(query=queries + tokens, key=keys + position, value=keys)
    queries = layer.layer_norm2(queries + attended)
    queries = layer.layer_norm3(queries + layer.mlp(queries))

    attended, _ = layer.cross_attn_image_to_token(
        query=keys + position, key=queries + tokens, value=queries, attention_similarity=absence
    )
    return queries, layer.layer_norm4(keys + attended)
