"""The exported encoder's module: SAM's normalisation, and padding that SAM puts there after it."""

import numpy as np
import torch
from transformers import SamModel

from modeling.encoder_graph import ImageEncoderGraph
from modeling.probes import probe_images
from modeling.reference import ReferenceSam

IMAGE_SIZE = 128


def test_embeddings_are_those_of_sam_whatever_lies_in_the_padding(
    small_model: SamModel, small_reference: ReferenceSam
) -> None:
    probes = probe_images(4, IMAGE_SIZE)
    images = torch.from_numpy(np.stack([probe.image for probe in probes]))
    sizes = torch.tensor([probe.input_size for probe in probes], dtype=torch.int32)
    with torch.inference_mode():
        embeddings = ImageEncoderGraph(small_model)(images, sizes)
    assert embeddings.dtype == torch.float16
    expected = np.stack([small_reference.embed(*probe) for probe in probes])
    # Float16's spacing between 4 and 8 is 0.004.
    np.testing.assert_allclose(embeddings.float().numpy(), expected, atol=0.005)


def test_height_and_width_are_not_mixed_up(small_model: SamModel) -> None:
    image = torch.from_numpy(probe_images(1, IMAGE_SIZE)[0].image)[None]
    graph = ImageEncoderGraph(small_model)
    wide = torch.tensor([[IMAGE_SIZE // 2, IMAGE_SIZE]], dtype=torch.int32)
    with torch.inference_mode():
        embeddings = graph(image, wide)
        below = image.clone()
        below[:, :, IMAGE_SIZE // 2 :] = 7
        right = image.clone()
        right[:, :, :, IMAGE_SIZE // 2 :] = 7
        assert torch.equal(graph(below, wide), embeddings)
        assert not torch.equal(graph(right, wide), embeddings)
