"""Warming up: both models run once, and what they raise reaches whoever starts the gateway."""

import pytest

from samserve.domain.errors import ModelUnavailable
from samserve.usecases.warm_up import warm_up
from tests.support.fake_models import MANIFEST, FakeImageEncoder, FakeMaskDecoder


async def test_both_models_run_once_with_a_click_in_the_middle_of_an_image() -> None:
    encoder, decoder = FakeImageEncoder(), FakeMaskDecoder()
    await warm_up(MANIFEST, encoder, decoder)
    assert (encoder.encoded, decoder.decoded) == (1, 1)
    [prompts] = decoder.prompts
    assert prompts.point_coords[0, 0].tolist() == [MANIFEST.image_size / 2] * 2


async def test_a_model_that_fails_is_reported() -> None:
    decoder = FakeMaskDecoder()
    decoder.error = ModelUnavailable("down", 1.0)
    with pytest.raises(ModelUnavailable):
        await warm_up(MANIFEST, FakeImageEncoder(), decoder)
