"""Progress lines of a build step: elapsed time, phase and peak memory."""

import io
import re
import sys
import time

import numpy as np
import pytest

from modeling import progress
from modeling.progress import step


def test_a_long_step_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(progress, "SIGN_OF_LIFE_SECONDS", 0.001)
    with step("compiling") as tell:
        tell("phase 2 of 5")
        while "phase 2 of 5" not in said.getvalue():
            time.sleep(0.001)
    assert re.fullmatch(r"compiling \.\.\. (\[\d+ s(, phase 2 of 5)?\] )+\d+\.\d s, peak \d+\.\d GB\n", said.getvalue())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is that of the whole process")
def test_the_memory_of_one_step_is_not_put_down_to_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    with step("large"):
        np.ones(500_000_000, np.uint8)
    with step("small"):
        pass
    large, small = (float(peak) for peak in re.findall(r"peak ([\d.]+) GB", capsys.readouterr().err))
    assert large > small + 0.3


def test_a_step_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="disk full"), step("writing"):
        raise OSError("disk full")
    assert capsys.readouterr().err == "writing ... failed\n"
