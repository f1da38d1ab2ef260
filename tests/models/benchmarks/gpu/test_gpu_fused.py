"""The fused encoder and decoder, their kernels interpreted, against the float32 model."""

import numpy as np
import pytest
import torch
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from benchmarks.gpu.attention_kernels import interpreted
from benchmarks.gpu.encoder_kernels import add_norm, patches
from benchmarks.gpu.fused_decoder import FusedDecoderGraph
from benchmarks.gpu.fused_vit import FusedEncoder
from modeling.decoder_graph import MaskDecoderGraph
from modeling.encoder_graph import ImageEncoderGraph
from modeling.probes import probe_images, probe_prompts
from modeling.prompts import prompt_tensors
from modeling.random_weights import randomise

pytestmark = pytest.mark.skipif(not interpreted(), reason="TRITON_INTERPRET is not 1")

SIDE, LOW_RES = 160, 40
"""Of an image and its masks: a grid of 10 cells, which windows of 7 do not tile."""


@pytest.fixture(scope="module")
def model() -> SamModel:
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=160, num_hidden_layers=2, num_attention_heads=2, global_attn_indexes=[1], image_size=SIDE,
            window_size=7, mlp_dim=320,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(image_size=SIDE, patch_size=16),
        mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=1e-6),
    )  # fmt: skip
    model = SamModel(config).eval().requires_grad_(False)
    randomise(model, seed=3)
    return model


@torch.inference_mode()
def test_fused_encoder_computes_the_same_embeddings(model: SamModel) -> None:
    probes = probe_images(2, SIDE)
    images = torch.from_numpy(np.stack([probe.image for probe in probes]))
    sizes = torch.tensor([probe.input_size for probe in probes], dtype=torch.int32)
    expected = ImageEncoderGraph(model)(images, sizes).float()
    embeddings = FusedEncoder(model)(images, sizes)
    assert embeddings.dtype == torch.float16
    assert (embeddings.float() - expected).abs().max() < 0.02
    # A wrong region, window or head would be of the size of what tells two images apart.
    assert (expected[0] - expected[1]).abs().max() > 1.0


@torch.inference_mode()
def test_patches_hold_normalised_pixels_and_zeros_where_the_image_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    sizes = torch.tensor([[32, 20], [9, 32]], dtype=torch.int32)
    mean, std = torch.tensor([100.0, 110.0, 120.0]), torch.tensor([50.0, 60.0, 70.0])
    expected = (image.float() - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected[0, :, :, 20:] = 0
    expected[1, :, 9:] = 0
    rows = torch.nn.functional.unfold(expected, kernel_size=16, stride=16).transpose(1, 2).reshape(8, -1)
    assert torch.equal(patches(image, sizes, mean, std, 16), rows.half())


@pytest.mark.parametrize("channels", [80, 64, 96])
@torch.inference_mode()
def test_norm_follows_the_rounded_sum(channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, update = (torch.randn(5, channels, generator=generator).half() for _ in range(2))
    norm = torch.nn.LayerNorm(channels)
    torch.nn.init.normal_(norm.weight, 1.0, 0.1, generator=generator)
    torch.nn.init.normal_(norm.bias, 0.0, 0.1, generator=generator)
    total, normed = add_norm(hidden, update, norm)
    assert torch.equal(total, hidden + update)
    torch.testing.assert_close(normed.float(), norm((hidden + update).float()), atol=2e-3, rtol=2e-3)
    kept, normed = add_norm(hidden, None, norm)
    assert kept is hidden
    torch.testing.assert_close(normed.float(), norm(hidden.float()), atol=2e-3, rtol=2e-3)


@torch.inference_mode()
def test_fused_decoder_computes_the_same_masks_for_every_kind_of_prompt(model: SamModel) -> None:
    # Two images, on each a point, points beside a box, and a point on a mask, padded to one length.
    rows = []
    for height in (SIDE, SIDE // 2):
        probes = probe_prompts((height, SIDE), LOW_RES)
        rows.append([probes[0], probes[3], probes[4]])
    tensors = [torch.from_numpy(array) for array in prompt_tensors(rows, LOW_RES)]
    embeddings = torch.randn(2, 256, 10, 10, generator=torch.Generator().manual_seed(2)).half()
    masks, scores = MaskDecoderGraph(model)(embeddings, *tensors)
    fused_masks, fused_scores = FusedDecoderGraph(model)(embeddings, *tensors)
    assert (fused_masks - masks).abs().max() < 0.01 * masks.abs().max()
    assert (fused_scores - scores).abs().max() < 0.01


@torch.inference_mode()
def test_fused_decoder_answers_the_chosen_masks_in_the_chosen_type(model: SamModel) -> None:
    prompts = [prompt for prompt in probe_prompts((SIDE, SIDE), LOW_RES) if prompt.mask is None][:1]
    tensors = [torch.from_numpy(array) for array in prompt_tensors([prompts], LOW_RES)]
    embeddings = torch.randn(1, 256, 10, 10, generator=torch.Generator().manual_seed(4)).half()
    masks, _ = MaskDecoderGraph(model)(embeddings, *tensors)
    fused = FusedDecoderGraph(model)
    fused.with_mask_input, fused.first, fused.count, fused.mask_dtype = False, 1, 3, torch.float16
    chosen, _ = fused(embeddings, *tensors)
    assert chosen.dtype == torch.float16
    assert chosen.shape == (1, 1, 3, LOW_RES, LOW_RES)
    assert (chosen - masks[:, :, 1:]).abs().max() < 0.01 * masks.abs().max()
