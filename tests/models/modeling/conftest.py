"""A small real SAM: the bundled architecture at a quarter of its input size, with random weights."""

from collections.abc import Iterator

import pytest
import torch
from transformers import SamModel

from modeling.architectures import as_sam_model
from modeling.random_weights import randomise
from modeling.reference import ReferenceSam
from modeling.tiny import TinySam

IMAGE_SIZE = 128


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from more, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_model() -> SamModel:
    model = as_sam_model(TinySam(image_size=IMAGE_SIZE))
    randomise(model, seed=1)
    return model


@pytest.fixture(scope="session")
def small_reference(small_model: SamModel) -> ReferenceSam:
    return ReferenceSam(small_model)
