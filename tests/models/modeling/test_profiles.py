"""Ranges as they are given on the command line, and the shapes that follow from them."""

import pytest

from modeling.architectures import ModelSizes
from modeling.profiles import DEFAULT_PROFILES, MAX_TOKENS, BatchProfiles, Range
from modeling.triton_config import default_max_batch
from samserve.domain.manifest import DECODER, ENCODER
from samserve.domain.prompts import PROMPTS_PER_DECODE

SIZES = ModelSizes(image_size=512, channels=256, grid_size=32, low_res_size=128)


def test_a_range_reads_as_it_is_written() -> None:
    assert Range.parse("1:8:16") == Range(1, 8, 16)
    assert str(Range(1, 8, 16)) == "1:8:16"


@pytest.mark.parametrize("text", ["8", "1:8", "a:b:c", "0:1:2", "4:2:8", "1:9:8", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not (MIN:OPT:MAX|in order)"):
        Range.parse(text)


def test_every_input_of_both_graphs_has_its_shapes() -> None:
    profiles = BatchProfiles(Range(1, 2, 4), Range(1, 8, 16), Range(1, 3, 32), Range(2, 5, 128))
    assert profiles.shapes(ENCODER, SIZES) == {
        "image": ((1, 3, 512, 512), (2, 3, 512, 512), (4, 3, 512, 512)),
        "input_size": ((1, 2), (2, 2), (4, 2)),
    }
    assert profiles.shapes(DECODER, SIZES) == {
        "image_embeddings": ((1, 256, 32, 32), (8, 256, 32, 32), (16, 256, 32, 32)),
        "point_coords": ((1, 1, 2, 2), (8, 3, 5, 2), (16, 32, 128, 2)),
        "point_labels": ((1, 1, 2), (8, 3, 5), (16, 32, 128)),
        "mask_input": ((1, 1, 128, 128), (8, 3, 128, 128), (16, 32, 128, 128)),
        "has_mask_input": ((1, 1), (8, 3), (16, 32)),
    }


def test_the_defaults_hold_what_triton_and_the_gateway_send() -> None:
    assert DEFAULT_PROFILES.prompts.max >= PROMPTS_PER_DECODE
    assert DEFAULT_PROFILES.points.max >= MAX_TOKENS
    assert DEFAULT_PROFILES.encoder_batch.max >= default_max_batch("tensorrt", ENCODER)
    assert DEFAULT_PROFILES.decoder_batch.max >= default_max_batch("tensorrt", DECODER)
