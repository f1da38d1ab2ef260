"""Each stage of a call is recorded once, whoever reports it."""

from collections import defaultdict

import numpy as np
import pytest
from opentelemetry.trace import NoOpTracer

from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import ImageId
from samserve.observability.call import CallRecord
from samserve.usecases.embedder import EmbeddingResult
from samserve.usecases.observers import Warmth
from samserve.usecases.ports import DecodedMasks, EmbeddingSource
from samserve.usecases.timings import Stage, StageTimings


class StageObserver:
    """Implements `RequestObserver`: keeps the stages."""

    def __init__(self) -> None:
        self.stages: defaultdict[Stage, list[float]] = defaultdict(list)

    def stage(self, stage: Stage, seconds: float) -> None:
        self.stages[stage].append(seconds)

    def request(self, rpc: str, code: str, warmth: Warmth, seconds: float) -> None: ...
    def embedded(self, source: EmbeddingSource) -> None: ...
    def prompts(self, count: int) -> None: ...
    def shed(self, reason: str) -> None: ...
    def gaze_answered(self, seconds: float) -> None: ...


EMBEDDING = Embedding(np.zeros((1, 1, 1), np.float16), ImageFrame(Size(1, 1), 1))


@pytest.fixture
def observer() -> StageObserver:
    return StageObserver()


@pytest.fixture
def call(observer: StageObserver) -> CallRecord:
    return CallRecord("Segment", "id", {}, observer, NoOpTracer())


def embedded(source: EmbeddingSource, timings: StageTimings) -> EmbeddingResult:
    return EmbeddingResult(ImageId.of(b"image"), EMBEDDING, source, timings)


def test_stages_of_a_request_are_observed_once_though_its_timings_hold_all(
    call: CallRecord, observer: StageObserver
) -> None:
    encoding = StageTimings({Stage.CACHE: 1.0, Stage.QUEUE: 2.0, Stage.ENCODE: 3.0})
    decoding = StageTimings({Stage.QUEUE: 4.0, Stage.MASK_DECODE: 5.0})
    whole = encoding + decoding + StageTimings({Stage.RANK: 6.0, Stage.POST_PROCESS: 7.0})
    nothing = np.zeros(0, np.float32)
    call.embedded(embedded(EmbeddingSource.ENCODED, encoding))
    call.decoded(DecodedMasks(nothing, nothing, decoding))
    call.answered(whole)
    assert call.timings == whole
    assert observer.stages == {stage: [whole[stage]] for stage in whole.seconds} | {Stage.QUEUE: [2.0, 4.0]}
    assert call.summary()["queue_seconds"] == 6.0


def test_a_call_that_waited_for_anothers_encode_was_not_in_the_queue(call: CallRecord, observer: StageObserver) -> None:
    call.embedded(embedded(EmbeddingSource.COALESCED, StageTimings({Stage.CACHE: 1.0, Stage.QUEUE: 2.0})))
    assert observer.stages == {Stage.CACHE: [1.0]}


def test_an_answer_without_masks_is_in_no_stage(call: CallRecord, observer: StageObserver) -> None:
    call.answered(StageTimings({Stage.MASK_DECODE: 1.0}))
    assert not observer.stages
