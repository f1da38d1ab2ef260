"""A small real SAM: the bundled architecture at a quarter of its input size, with random weights."""

import pytest
from transformers import SamModel

from modeling.architectures import as_sam_model
from modeling.random_weights import randomise
from modeling.reference import ReferenceSam
from modeling.tiny import TinySam
from tests.support.torch_threads import one_torch_thread

IMAGE_SIZE = 128


__all__ = ["one_torch_thread"]


@pytest.fixture(scope="session")
def small_model() -> SamModel:
    model = as_sam_model(TinySam(image_size=IMAGE_SIZE))
    randomise(model, seed=1)
    return model


@pytest.fixture(scope="session")
def small_reference(small_model: SamModel) -> ReferenceSam:
    return ReferenceSam(small_model)
