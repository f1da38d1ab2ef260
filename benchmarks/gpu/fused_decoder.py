"""The absorbed decoder with one Triton-language kernel per pass over the image."""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import SamModel

from benchmarks.gpu.decoder_kernels import image_to_tokens, placed_image, tokens_to_image, upscaled_masks
from modeling.absorbed_decoder import AbsorbedDecoderGraph, among_tokens
from modeling.precision import FP16, Precision
from modeling.prompts import ABSENT

LOG2_E = math.log2(math.e)
NEVER = -1e30


class FusedDecoderGraph(AbsorbedDecoderGraph):
    """`sam_mask_decoder` in half precision, inputs and outputs as `MaskDecoderGraph`'s.

    Attributes:
        with_mask_input: False leaves the mask input out, as clicks do that refine nothing.
        first, count: which of the four masks are answered.
        mask_dtype: of the logits that are answered.
    """

    def __init__(self, model: SamModel, precision: Precision = FP16) -> None:
        super().__init__(model, precision)
        self.with_mask_input, self.first, self.count = True, 0, 4
        self.mask_dtype = torch.float32

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict masks `[B, P, count, M, M]` and IoUs `[B, P, 4]`; inputs as for `MaskDecoderGraph.forward`."""
        batch, prompts, points = point_labels.shape
        low_res, rows = self.sizes.low_res_size, batch * prompts
        labels, coords = point_labels.flatten(0, 1), point_coords.flatten(0, 1)
        outputs = 1 + self.mask_decoder.num_mask_tokens
        # Absent tokens pad the row to a power of two, as required for a tile.
        missing = max(8, 1 << (outputs + points - 1).bit_length()) - outputs - points
        labels = torch.nn.functional.pad(labels, (0, missing), value=ABSENT)
        coords = torch.nn.functional.pad(coords, (0, 0, 0, missing))
        tokens, absence = self._tokens(coords, labels)

        features, weight = None, self.prompt_encoder.no_mask_embed.weight[0]
        if self.with_mask_input:
            masks = mask_input.reshape(rows, 1, low_res, low_res)
            features = self._dense_features(masks, has_mask_input.reshape(rows, 1, 1))
            weight = self._dense_weight().contiguous()
        image = placed_image(image_embeddings.to(self.dtype).flatten(2), features, weight, prompts)
        answer, image = self._passes(tokens[:, 0], image, absence.transpose(2, 3))
        decoder: Any = self.mask_decoder
        masks = upscaled_masks(image, decoder, self._hyper_in(answer), self.first, self.count, self.mask_dtype)
        iou_predictions = decoder.iou_prediction_head(answer[:, 0])
        return masks.unflatten(0, (batch, prompts)), iou_predictions.unflatten(0, (batch, prompts)).to(torch.float32)

    def _passes(self, tokens: Tensor, image: Tensor, absence: Tensor) -> tuple[Tensor, Tensor]:
        """Run SAM's two-way transformer on tokens `[R, T, C]` and images `[R, L, C]`. `absence` is `[R, 1, T, 1]`."""
        transformer: Any = self.mask_decoder.transformer
        position = self._image_position()[0, 0].contiguous()
        bias = torch.where(absence < 0, NEVER, 0.0).to(torch.float32)
        queries = tokens
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                queries = among_tokens(layer.self_attn, queries, queries, absence)
            else:
                queries = queries + among_tokens(layer.self_attn, queries + tokens, queries, absence)
            queries = layer.layer_norm1(queries)
            seen = _look(layer.cross_attn_token_to_image, queries + tokens, image, position)
            queries = layer.layer_norm2(queries + seen)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            image = _update(layer, image, position, queries + tokens, queries, bias)
        seen = _look(transformer.final_attn_token_to_image, queries + tokens, image, position)
        return transformer.layer_norm_final_attn(queries + seen), image


def _heads_first(projected: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Multiply `[R, T, H·D]` by `[H, D, C]` head by head, giving `[R, H, T, C]`."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2) @ weight


def _look(attention: Any, queries: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """Attend from tokens to image: `[R, T, C]`."""
    heads = attention.num_attention_heads
    asked = attention.q_proj(queries) * (attention.scaling * LOG2_E)
    wanted = _heads_first(asked, attention.k_proj.weight.unflatten(0, (heads, -1)), heads)
    seen = tokens_to_image(wanted.flatten(1, 2).contiguous(), image, position).unflatten(1, (heads, -1))
    attended = seen @ attention.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)
    answer: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2) + attention.v_proj.bias)
    return answer


def _update(layer: Any, image: Tensor, position: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attend from image to tokens, then add the residual and apply the norm."""
    attention = layer.cross_attn_image_to_token
    heads = attention.num_attention_heads
    key = attention.k_proj(keys) * (attention.scaling * LOG2_E)
    absorbed = _heads_first(key, attention.q_proj.weight.unflatten(0, (heads, -1)), heads)
    query_bias = attention.q_proj.bias.unflatten(0, (heads, -1))[:, :, None]
    offset = _heads_first(key, query_bias, heads).to(torch.float32) + bias
    value = _heads_first(attention.v_proj(values), attention.out_proj.weight.t().unflatten(0, (heads, -1)), heads)
    # The weights of one head sum to 1, so adding an equal share of the bias to each head adds up to the bias.
    value = value + attention.out_proj.bias / heads
    return image_to_tokens(
        image, position, absorbed.flatten(1, 2).contiguous(), offset.flatten(1).contiguous(),
        value.flatten(1, 2).contiguous(), heads, layer.layer_norm4,
    )  # fmt: skip
