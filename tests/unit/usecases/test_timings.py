"""Timings add up by stage."""

from samserve.usecases.timings import Stage, StageTimings


def test_timings_of_parts_add_up_by_stage() -> None:
    encoding = StageTimings({Stage.QUEUE: 1.0, Stage.ENCODE: 2.0})
    decoding = StageTimings({Stage.QUEUE: 0.5, Stage.MASK_DECODE: 0.25})
    whole = encoding + decoding + StageTimings()
    assert whole == StageTimings({Stage.QUEUE: 1.5, Stage.ENCODE: 2.0, Stage.MASK_DECODE: 0.25})
    assert encoding == StageTimings({Stage.QUEUE: 1.0, Stage.ENCODE: 2.0})


def test_a_stage_that_was_not_passed_took_no_time_and_is_not_listed() -> None:
    timings = StageTimings({Stage.QUEUE: 0.0})
    assert timings[Stage.ENCODE] == timings[Stage.QUEUE] == 0
    assert list(timings.seconds) == list(timings.only(Stage.QUEUE, Stage.ENCODE).seconds) == [Stage.QUEUE]
