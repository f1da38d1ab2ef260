"""The mask decoder with the image's projections absorbed into the tokens: the same function by other matrix products.

For each prompt, SAM's decoder projects the whole image, `L` positions by 256 channels, ten times, although a prompt has
only about seven tokens. In an inner product, a projection of one factor can be applied to the other factor instead, so
this module projects the tokens:

    token to image   logits (q_h·W_k,h)·(X + position)ᵀ, output (softmax·X)·W_v,h + b_v. The keys' bias shifts all
                     logits of a query alike and drops out of the softmax.
    image to token   logits (X + position)·(W_q,h·k_hᵀ) + b_q,h·k_hᵀ, output softmax·(v_h·W_o,h) + b_o

The image that the first layer sees is the embedding plus the dense prompt. The dense prompt is a product of rank 18, so
all prompts of an image share that layer's products with the embedding. Upscaling takes two products, and pixels are
rearranged in the four masks instead of in the feature maps.

This is faster for prompts of up to about fourteen tokens; for longer prompts, projecting the tokens costs more than
projecting the image.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.decoder_graph import MaskDecoderGraph


class AbsorbedDecoderGraph(MaskDecoderGraph):
    """`sam_mask_decoder` with absorbed projections; inputs, outputs and weights are those of `MaskDecoderGraph`."""

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks of P prompts on each of B images; shapes as for `MaskDecoderGraph.forward`."""
        batch, prompts, _ = point_labels.shape
        low_res = self.sizes.low_res_size
        rows = batch * prompts
        image = image_embeddings.to(self.dtype).flatten(2).transpose(1, 2)
        dense = DensePrompt(
            self._dense_features(mask_input.reshape(rows, 1, low_res, low_res), has_mask_input.reshape(rows, 1, 1)),
            self._dense_weight(),
        )
        tokens, absence = self._tokens(point_coords.flatten(0, 1), point_labels.flatten(0, 1))
        outputs, image = self._attend_rows(tokens[:, 0], image, absence.transpose(2, 3), dense, prompts)
        masks, iou_predictions = self._predict_rows(outputs, image)
        return (
            masks.reshape(batch, prompts, -1, low_res, low_res).to(torch.float32),
            iou_predictions.reshape(batch, prompts, -1).to(torch.float32),
        )

    def _dense_features(self, mask: Tensor, has_mask: Tensor) -> Tensor:
        """Compute `[R, 18, L]`, whose product with `_dense_weight` is the dense prompt embedding of masks `[R, 1, M,
        M]`."""
        mask = self._in_range(mask)
        embed: Any = self.prompt_encoder.mask_embed
        features = embed.activation(embed.layer_norm1(embed.conv1(mask)))
        features = embed.activation(embed.layer_norm2(embed.conv2(features))).flatten(2)
        present = has_mask > 0
        features = torch.where(present, features, torch.zeros((), dtype=features.dtype, device=features.device))
        one = present.to(features.dtype).expand(-1, 1, features.shape[2])
        return torch.cat([features, one, 1 - one], dim=1)

    def _dense_weight(self) -> Tensor:
        """Combine the last convolution of the mask embedding, its bias and the no-mask embedding: `[18, C]`."""
        embed: Any = self.prompt_encoder.mask_embed
        no_mask = self.prompt_encoder.no_mask_embed.weight
        return torch.cat([embed.conv3.weight.flatten(1).t(), embed.conv3.bias[None], no_mask])

    def _attend_rows(
        self, tokens: Tensor, image: Tensor, absence: Tensor, dense: "DensePrompt | None", prompts: int
    ) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer on tokens `[B·P, T, C]` and embeddings `[B, L, C]`. Returns the five output
        tokens and the images `[B·P, L, C]`."""
        transformer: Any = self.mask_decoder.transformer
        position = self._image_position()[0]
        queries = tokens
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                queries = among_tokens(layer.self_attn, queries, queries, absence)
            else:
                queries = queries + among_tokens(layer.self_attn, queries + tokens, queries, absence)
            queries = layer.layer_norm1(queries)
            placed = image + position
            attended = _token_to_image(layer.cross_attn_token_to_image, queries + tokens, placed, image, dense)
            queries = layer.layer_norm2(queries + attended)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            update = _image_to_token(layer.cross_attn_image_to_token, placed, queries + tokens, queries, absence, dense)
            # With three axes, ONNX Runtime fuses an operator whose CPU kernel is five times slower.
            image = layer.layer_norm4(update.unflatten(0, (-1, prompts)) + image[:, None]).flatten(0, 1)
            dense, prompts = None, 1
        # The final attention result is needed only for the output tokens, not for the prompt's tokens.
        outputs = 1 + self.mask_decoder.num_mask_tokens
        queries, tokens = queries[:, :outputs], tokens[:, :outputs]
        attended = _token_to_image(transformer.final_attn_token_to_image, queries + tokens, image + position, image)
        return transformer.layer_norm_final_attn(queries + attended), image

    def _predict_rows(self, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute masks `[R, 4, M·M]` and predicted IoUs `[R, 4]` from output tokens `[R, 5, C]` and images `[R, L,
        C]`."""
        decoder: Any = self.mask_decoder
        grid = self.sizes.grid_size
        features = _upscaled(decoder.upscale_conv1, image)
        features = decoder.activation(_norm_of_last(decoder.upscale_layer_norm, features))
        features = decoder.activation(_upscaled(decoder.upscale_conv2, features))
        # Each cell was upscaled to 2 × 2 positions, and each of these to 2 × 2 again.
        masks = (self._hyper_in(tokens) @ features.transpose(1, 2)).unflatten(2, (grid, grid, 2, 2, 2, 2))
        return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(2), decoder.iou_prediction_head(tokens[:, 0])


class DensePrompt:
    """Dense prompt embeddings as a product: features `[R, 18, L]`, weight `[18, C]`."""

    def __init__(self, features: Tensor, weight: Tensor) -> None:
        self.features, self.weight = features, weight


def _heads(tensor: Tensor, heads: int) -> Tensor:
    """`[R, T, heads·D]` to `[R, heads, T, D]`."""
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


def _absorb(projected: Tensor, projection: nn.Linear, heads: int) -> Tensor:
    """Absorb the other factor's projection into one factor `[R, T, heads·D]`: `[R, heads·T, C]`."""
    weight = projection.weight.unflatten(0, (heads, -1))
    return (_heads(projected, heads) @ weight).flatten(1, 2)


def among_tokens(attention: Any, queries: Tensor, values: Tensor, absence: Tensor) -> Tensor:
    """Self-attention of tokens `[R, T, C]`. `absence`, `[R, 1, T, 1]`, is added to the logits."""
    heads = attention.num_attention_heads
    query, key = (_heads(part(queries), heads) for part in (attention.q_proj, attention.k_proj))
    logits = (query * attention.scaling) @ key.transpose(2, 3) + absence.transpose(2, 3)
    attended = torch.softmax(logits, -1) @ _heads(attention.v_proj(values), heads)
    attended_tokens: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return attended_tokens


def _products(wanted: Tensor, image: Tensor, dense: DensePrompt | None) -> Tensor:
    """Inner products `[R, K, L]` of `[R, K, C]` with the image, which is `[R, L, C]`, or `[B, L, C]` plus a dense
    prompt."""
    if dense is None:
        return wanted @ image.transpose(1, 2)
    rows, count, channels = wanted.shape
    shared = wanted.reshape(image.shape[0], -1, channels) @ image.transpose(1, 2)
    return shared.reshape(rows, count, -1) + (wanted @ dense.weight.t()) @ dense.features


def _token_to_image(
    attention: Any, queries: Tensor, keys: Tensor, values: Tensor, dense: DensePrompt | None = None
) -> Tensor:
    """Attend from tokens to image: `[R, T, C]`. Keys (image with positions) and values (image) are as in
    `_products`."""
    heads = attention.num_attention_heads
    wanted = _absorb(attention.q_proj(queries) * attention.scaling, attention.k_proj, heads)
    weights = torch.softmax(_products(wanted, keys, dense), dim=-1)
    if dense is None:
        seen = weights @ values
    else:
        rows, count, cells = weights.shape
        seen = (weights.reshape(values.shape[0], -1, cells) @ values).reshape(rows, count, -1)
        seen = seen + (weights @ dense.features.transpose(1, 2)) @ dense.weight
    value_weight = attention.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)
    attended = (seen.unflatten(1, (heads, -1)) @ value_weight).transpose(1, 2).flatten(2)
    attended_tokens: Tensor = attention.out_proj(attended + attention.v_proj.bias)
    return attended_tokens


def _image_to_token(
    attention: Any, image: Tensor, keys: Tensor, values: Tensor, absence: Tensor, dense: DensePrompt | None
) -> Tensor:
    """Attend from image to tokens: `[R, L, C]`, plus the dense prompt if there is one. `absence` is `[R, 1, T, 1]`."""
    heads = attention.num_attention_heads
    key = attention.k_proj(keys) * attention.scaling
    bias = _heads(key, heads) @ attention.q_proj.bias.unflatten(0, (heads, -1))[:, :, None] + absence
    logits = _products(_absorb(key, attention.q_proj, heads), image, dense).unflatten(1, (heads, -1)) + bias
    weights = torch.softmax(logits, dim=2).flatten(1, 2)
    value = _heads(attention.v_proj(values), heads) @ attention.out_proj.weight.t().unflatten(0, (heads, -1))
    # The weights of one head sum to 1, so adding an equal share of the bias to each head adds up to the bias.
    value = (value + attention.out_proj.bias / heads).flatten(1, 2)
    if dense is not None:
        weights = torch.cat([weights, dense.features], dim=1)
        value = torch.cat([value, dense.weight.expand(value.shape[0], -1, -1)], dim=1)
    return weights.transpose(1, 2) @ value


def _upscaled(convolution: nn.ConvTranspose2d, cells: Tensor) -> Tensor:
    """Apply a transposed convolution of stride 2 without rearranging pixels: `[R, N, C]` to `[R, 4·N, C']`."""
    weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
    assert convolution.bias is not None
    places = cells @ weight + convolution.bias.repeat(4)
    return places.unflatten(2, (4, -1)).flatten(1, 2)


def _norm_of_last(norm: nn.LayerNorm, features: Tensor) -> Tensor:
    """Apply SAM's norm over channels to channels in the last axis. Statistics are in single precision."""
    wide = features.to(norm.weight.dtype)
    return F.layer_norm(wide, (wide.shape[-1],), norm.weight, norm.bias, norm.eps).to(features.dtype)
