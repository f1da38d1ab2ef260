"""What belongs to an object from one frame to the next."""

import numpy as np
import numpy.typing as npt

from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.prompts import ObjectPrompt, PointLabel
from samserve.domain.tracking import keep_connected, named_by

SIDE = 64
FRAME = ImageFrame(Size(128, 256), 128)
"""Two pixels of the image to one of the frame, and four to one of the masks below."""


def logits(*regions: tuple[slice, slice]) -> npt.NDArray[np.float32]:
    """Logits of 3 in these regions, and -2 elsewhere."""
    values = np.full((SIDE, SIDE), -2, np.float32)
    for region in regions:
        values[region] = 3
    return values


OBJECT, NEAR, FAR = np.s_[10:20, 10:20], np.s_[10:20, 23:26], np.s_[10:20, 40:60]


def test_a_region_far_from_the_last_mask_is_taken_out() -> None:
    last = logits(OBJECT) > 0
    np.testing.assert_array_equal(keep_connected(logits(OBJECT, FAR), last) > 0, last)
    # Even where it is the larger one.
    np.testing.assert_array_equal(keep_connected(logits(OBJECT, np.s_[10:60, 40:60]), last) > 0, last)


def test_a_part_beside_the_last_mask_stays() -> None:
    candidate = logits(OBJECT, NEAR)
    np.testing.assert_array_equal(keep_connected(candidate, logits(OBJECT) > 0), candidate)


def test_what_is_in_one_piece_stays_as_it_is_and_is_a_copy() -> None:
    for candidate, place in (
        (logits(FAR), logits(OBJECT) > 0),
        (logits(OBJECT), logits(OBJECT) > 0),
        (logits(), logits() > 0),
    ):
        kept = keep_connected(candidate, place)
        np.testing.assert_array_equal(kept, candidate)
        assert not np.shares_memory(kept, candidate)


def test_a_prompt_names_its_points_and_its_box() -> None:
    labels = np.array([PointLabel.FOREGROUND, PointLabel.BACKGROUND], dtype=np.int32)
    clicks = named_by(ObjectPrompt(np.array([[40.0, 60.0], [200.0, 100.0]]), labels), SIDE, FRAME)
    assert np.argwhere(clicks).tolist() == [[15, 10]]
    box = named_by(ObjectPrompt(box=np.array([40.0, 40.0, 79.0, 79.0])), SIDE, FRAME)
    np.testing.assert_array_equal(box, logits(OBJECT) > 0)
    mask = named_by(ObjectPrompt(mask_input=logits(FAR)), SIDE, FRAME)
    np.testing.assert_array_equal(mask, logits(FAR) > 0)
