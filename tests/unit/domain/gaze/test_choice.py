"""Choice of the mask that the gaze is on."""

import numpy as np
import numpy.typing as npt
import pytest

from samserve.domain.gaze.choice import looked_at
from samserve.domain.geometry import ImageFrame, Size

FRAME = ImageFrame(Size(128, 128), 128)
SIDE = 32
MIDDLE, OUTSIDE_OF_THE_PART, CORNER = np.array([64.0, 64.0]), np.array([88.0, 64.0]), np.array([2.0, 2.0])


def disc(radius: float) -> npt.NDArray[np.float32]:
    """Logits around the middle, in low-resolution pixels."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    logits: npt.NDArray[np.float32] = (radius - np.hypot(columns - SIDE / 2, rows - SIDE / 2)).astype(np.float32)
    return logits


CANDIDATES = np.stack([disc(12), disc(8), disc(4)])
CERTAINTIES = np.array([0.6, 0.7, 0.9], np.float32)


def test_the_most_certain_mask_around_the_gaze_is_chosen() -> None:
    assert looked_at(CANDIDATES, CERTAINTIES, FRAME, MIDDLE) == 2
    assert looked_at(CANDIDATES, CERTAINTIES, FRAME, OUTSIDE_OF_THE_PART) == 1


def test_the_most_certain_mask_is_chosen_where_the_gaze_is_in_none() -> None:
    assert looked_at(CANDIDATES, CERTAINTIES, FRAME, CORNER) == 2


@pytest.mark.parametrize(("radius", "index"), [(12, 0), (11, 0), (8, 1), (4, 2)])
def test_the_previous_object_is_preferred_over_its_part_or_its_whole(radius: float, index: int) -> None:
    assert looked_at(CANDIDATES, CERTAINTIES, FRAME, MIDDLE, disc(radius) > 0) == index


def test_the_previous_object_is_dropped_once_the_gaze_has_left_it() -> None:
    whole_first = np.array([0.8, 0.7, 0.9], np.float32)
    assert looked_at(CANDIDATES, whole_first, FRAME, OUTSIDE_OF_THE_PART, disc(4) > 0) == 0


def test_another_object_is_taken_by_its_certainty_alone() -> None:
    elsewhere = np.roll(disc(3) > 0, 10, axis=0)
    assert looked_at(CANDIDATES, CERTAINTIES, FRAME, MIDDLE, elsewhere) == 2
