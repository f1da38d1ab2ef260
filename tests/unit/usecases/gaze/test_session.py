"""Gaze sessions on models that run when the test lets them, and on the samples' own time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.domain import homography as plane
from samserve.domain.camera_motion import Thumbnail
from samserve.domain.errors import (
    EmbeddingNotFound,
    InvalidArgument,
    InvalidImage,
    InvalidPrompt,
    ModelUnavailable,
    SamserveError,
)
from samserve.domain.gaze.stream import GazeOptions, GazeSample, GazeState
from samserve.domain.geometry import Size
from samserve.domain.homography import Homography
from samserve.domain.identity import ImageId
from samserve.domain.keyframes import KeyframePolicy
from samserve.domain.prompts import CoordinateSpace
from samserve.usecases.embedder import ImageInput
from samserve.usecases.gaze.frames import GazeFrame, GazeFrames
from samserve.usecases.gaze.session import GazeResult, GazeSession, Refusal
from samserve.usecases.gaze.target import GazeObjects
from samserve.usecases.load.rate_limit import TenantRateLimiter
from tests.support.fake_models import MANIFEST, FakeImageEncoder, FakeMaskDecoder, SceneDecoder, embedder, image
from tests.support.rendered import pixels
from tests.support.waiting import eventually, settled

HERE, THERE = (100.0, 100.0), (300.0, 200.0)


class KnownMotion:
    """Stands for `estimate_motion`: scenes match themselves, moved as told."""

    def __init__(self) -> None:
        self.to_keyframe: Homography | None = plane.IDENTITY

    def estimate(self, keyframe: Thumbnail, frame: Thumbnail, guess: Homography) -> Homography | None:
        return self.to_keyframe


class Counted:
    """Implements `GazeObserver`."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()

    def gaze_sample(self, outcome: str) -> None:
        self.samples[outcome] += 1

    def gaze_frame(self, outcome: str) -> None:
        self.frames[outcome] += 1


class Bench:
    """One session, its models, and a device that samples at 100 Hz."""

    def __init__(
        self, options: GazeOptions | None = None, tenant: str = "", encode_rate: TenantRateLimiter | None = None
    ) -> None:
        self.encoder, self.decoder, self.motion, self.counted = (
            FakeImageEncoder(),
            FakeMaskDecoder(),
            KnownMotion(),
            Counted(),
        )
        self.now = 1000.0
        self.sequence = 0
        self.frames = 0
        scenes = SceneDecoder()
        options = options or GazeOptions(smoothing=None)
        self.session: GazeSession = GazeSession(
            options,
            make_frames=partial(
                GazeFrames,
                tenant=tenant,
                encode_rate=encode_rate or TenantRateLimiter(1e6),
                embedder=embedder(self.encoder, scenes),
                thumbnails=scenes,
                estimate_motion=self.motion.estimate,
                policy=options.keyframes,
                observer=self.counted,
                clock=lambda: self.now,
            ),
            objects=GazeObjects(
                manifest=MANIFEST,
                mask_decoder=self.decoder,
                mask_renderer=PillowMaskRenderer(),
                mask_format=options.mask_format,
                max_mask_side=options.max_mask_side,
                clock=lambda: self.now,
            ),
            observer=self.counted,
            clock=lambda: self.now,
        )
        self.answers = self.session.answers()

    def frame(self, source: ImageInput, reference: Homography | None = None) -> int:
        self.frames += 1
        self.session.frame(GazeFrame(self.frames, source, reference))
        return self.frames

    def send(self, point: tuple[float, float] | None) -> int:
        self.sequence += 1
        x, y = point or (float("nan"), float("nan"))
        self.session.sample(GazeSample(self.sequence, self.sequence * 10_000_000, x, y, point is not None))
        return self.sequence

    async def look(self, point: tuple[float, float] | None) -> GazeResult:
        """Send a sample and take its answer."""
        sequence = self.send(point)
        async with asyncio.timeout(5):
            answer = await anext(self.answers)
        assert isinstance(answer, GazeResult), answer
        assert answer.sample.sequence == sequence
        return answer

    async def fixate(self, point: tuple[float, float]) -> GazeResult:
        """Look at a point until the eyes have come to rest."""
        for _ in range(20):
            answer = await self.look(point)
            if answer.state not in (GazeState.SACCADE, GazeState.NO_FRAME):
                return answer
            await asyncio.sleep(0.001)
        raise AssertionError(f"no fixation: {answer.state}")

    async def refusal(self) -> Refusal:
        async with asyncio.timeout(5):
            answer = await anext(self.answers)
        assert isinstance(answer, Refusal)
        return answer

    async def until_keyframe(self, sequence: int) -> None:
        """Look nowhere until this frame has become the keyframe."""
        for _ in range(500):
            if (await self.look(None)).keyframe_sequence == sequence:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"frame {sequence} was not encoded")


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.session.close()


async def started(options: GazeOptions | None = None) -> Bench:
    bench = Bench(options)
    bench.frame(image(1))
    await bench.until_keyframe(1)
    return bench


async def test_a_fixation_is_decoded_once_and_stays_the_same_object_inside_the_mask() -> None:
    bench = await started()
    first = await bench.fixate(HERE)
    assert (first.state, first.object_id, first.frame_sequence) == (GazeState.NEW_MASK, 1, 1)
    assert first.mask is not None
    assert pixels(first.mask)[100, 100]
    for _ in range(10):
        again = await bench.look((105.0, 98.0))
        assert (again.state, again.object_id, again.mask) == (GazeState.SAME_OBJECT, 1, None)
    assert bench.decoder.decoded == 1
    assert again.counts.decodes == 1
    assert again.counts.samples == bench.sequence == again.counts.samples_skipped + 1


async def test_a_smoothed_gaze_comes_to_rest_on_the_object_and_keeps_it() -> None:
    bench = await started(GazeOptions())
    first = await bench.fixate(HERE)
    assert (first.state, first.object_id) == (GazeState.NEW_MASK, 1)
    assert first.point == pytest.approx(HERE)
    trembling = await bench.look((HERE[0] + 2, HERE[1]))
    assert trembling.state is GazeState.SAME_OBJECT
    assert trembling.point is not None
    assert HERE[0] < trembling.point[0] < HERE[0] + 2


async def test_a_saccade_decodes_nothing_and_the_next_fixation_is_a_new_object() -> None:
    bench = await started()
    await bench.fixate(HERE)
    on_the_way = await bench.look((200.0, 150.0))
    assert (on_the_way.state, on_the_way.object_id) == (GazeState.SACCADE, 1)
    second = await bench.fixate(THERE)
    assert (second.state, second.object_id, bench.decoder.decoded) == (GazeState.NEW_MASK, 2, 2)


async def test_the_most_certain_of_the_masks_around_the_gaze_is_chosen() -> None:
    bench = await started()
    bench.decoder.radii = (4.0, -1.0, 3.0, 6.0)
    bench.decoder.iou_predictions = (1.0, 0.95, 0.5, 0.7)
    answer = await bench.fixate(HERE)
    assert answer.mask is not None
    # Radius 6 of 32 over 400 pixels; the empty mask was more certain.
    np.testing.assert_allclose(np.sqrt(answer.mask.area / np.pi), 6 * 400 / 32, rtol=0.1)


async def test_the_latest_sample_wins_and_one_decode_is_in_flight() -> None:
    bench = await started()
    bench.decoder.let.clear()
    for _ in range(8):
        bench.send(HERE)
    decoding = asyncio.ensure_future(anext(bench.answers))
    await eventually(lambda: bench.decoder.in_flight == 1)
    asked = bench.sequence
    for _ in range(30):
        bench.send(THERE)
        await asyncio.sleep(0)
    assert bench.decoder.begun == 1
    bench.decoder.let.set()
    first = await decoding
    assert isinstance(first, GazeResult)
    assert (first.sample.sequence, first.sample.timestamp_nanoseconds) == (asked, asked * 10_000_000)
    second = await anext(bench.answers)
    assert isinstance(second, GazeResult)
    assert (second.sample.sequence, second.state) == (bench.sequence, GazeState.NEW_MASK)
    assert second.counts.samples_dropped == 7 + 29
    assert bench.decoder.most_in_flight == 1


async def test_a_client_that_does_not_read_gets_no_decodes_and_bounded_memory() -> None:
    bench = await started()
    decoded = bench.decoder.begun
    for _ in range(1000):
        bench.send(HERE)
        bench.session.frame(GazeFrame(0, image(1)))
    await settled()
    assert bench.decoder.begun == decoded
    bench.session.end()
    answers = [answer async for answer in bench.answers]
    assert 0 < sum(isinstance(answer, Refusal) for answer in answers) <= 64
    assert sum(isinstance(answer, GazeResult) for answer in answers) == 1


async def test_blinks_hold_the_object_and_looking_away_releases_it() -> None:
    bench = await started()
    await bench.fixate(HERE)
    held = [await bench.look(None) for _ in range(30)]
    assert {(answer.state, answer.object_id) for answer in held} == {(GazeState.HELD, 1)}
    released = await bench.look(None)
    assert (released.state, released.object_id) == (GazeState.RELEASED, 0)
    back = await bench.fixate(HERE)
    assert (back.state, back.object_id) == (GazeState.NEW_MASK, 2)


async def test_samples_off_the_frame_or_of_low_confidence_count_as_invalid() -> None:
    bench = await started(GazeOptions(smoothing=None, min_confidence=0.5))
    await bench.fixate(HERE)
    assert (await bench.look((401.0, 100.0))).state is GazeState.HELD
    bench.sequence += 1
    doubtful = GazeSample(bench.sequence, bench.sequence * 10_000_000, *HERE, confidence=0.4)
    bench.session.sample(doubtful)
    answer = await anext(bench.answers)
    assert isinstance(answer, GazeResult)
    assert answer.state is GazeState.HELD


async def test_samples_before_the_first_frame_are_answered(bench: Bench) -> None:
    assert (await bench.look(HERE)).state is GazeState.NO_FRAME
    bench.encoder.let.clear()
    bench.frame(image(1))
    await eventually(lambda: bench.encoder.in_flight == 1)
    waiting = await bench.look(HERE)
    assert (waiting.state, waiting.keyframe_pending) == (GazeState.NO_FRAME, True)
    bench.encoder.let.set()
    await bench.until_keyframe(1)


async def test_each_bad_sample_is_refused_and_the_stream_goes_on() -> None:
    bench = await started()
    await bench.fixate(HERE)
    now = bench.sequence * 10_000_000
    bad = {
        "timestamp_nanoseconds": GazeSample(900, now, *HERE),
        "x": GazeSample(901, now + 1, float("nan"), 1.0),
        "y": GazeSample(902, now + 1, 1.0, float("inf")),
        "confidence": GazeSample(903, now + 1, 1.0, 1.0, confidence=float("nan")),
    }
    for field, sample in bad.items():
        bench.session.sample(sample)
        refused = await bench.refusal()
        assert isinstance(refused.error, InvalidArgument)
        assert (refused.message, refused.sequence, refused.error.field) == ("sample", sample.sequence, field)
    for confidence in (-0.1, 1.1):
        bench.session.sample(GazeSample(904, now + 1, 1.0, 1.0, confidence=confidence))
        assert "between 0 and 1" in str((await bench.refusal()).error)
    answer = await bench.look(HERE)
    assert (answer.state, answer.counts.samples_refused) == (GazeState.SAME_OBJECT, 6)


@pytest.mark.parametrize("confidence", [float("nan"), float("inf"), -1.0, 0.0])
async def test_nothing_is_read_of_a_sample_that_is_not_valid(confidence: float) -> None:
    bench = await started()
    await bench.fixate(HERE)
    for x in (float("nan"), float("-inf"), 1e30):
        bench.sequence += 1
        bench.session.sample(GazeSample(bench.sequence, bench.sequence * 10_000_000, x, x, False, confidence))
        assert await state(bench) is GazeState.HELD


@given(
    steps=st.lists(
        st.tuples(st.integers(-(2**62), 2**62) | st.integers(-(10**9), 10**9), st.booleans()), min_size=1, max_size=20
    )
)
@settings(max_examples=50, deadline=None)
def test_any_device_clock_is_accepted(steps: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        bench = await started()
        await bench.fixate(HERE)
        now = bench.sequence * 10_000_000
        for step, valid in steps:
            now = max(-(2**63), min(now + step, 2**63 - 10**9))
            bench.session.sample(GazeSample(1, now, *HERE, valid))
            await anext(bench.answers)
        # Whatever the clock has shown, a tenth of a second later the object is found.
        for late in range(1, 22):
            bench.session.sample(GazeSample(2, now + late * 10_000_000, *HERE))
            answer = await anext(bench.answers)
        assert isinstance(answer, GazeResult)
        assert answer.state in (GazeState.SAME_OBJECT, GazeState.NEW_MASK)
        await bench.session.close()

    asyncio.run(run())


async def test_a_clock_that_is_set_back_holds_the_object_until_the_eyes_have_come_to_rest_again() -> None:
    bench = await started()
    await bench.fixate(HERE)
    bench.session.sample(GazeSample(1, 2**62, *HERE))
    assert await state(bench) is GazeState.SAME_OBJECT
    states = []
    for index in range(6):
        bench.session.sample(GazeSample(2, -(10**18) + index * 10_000_000, *HERE))
        states.append(await state(bench))
    assert states == [GazeState.SACCADE] * 4 + [GazeState.SAME_OBJECT] * 2


async def test_a_sample_that_was_overtaken_is_refused_and_the_clock_goes_on() -> None:
    bench = await started()
    await bench.fixate(HERE)
    now = bench.sequence * 10_000_000
    for late in (0, 1, 100_000_000):
        bench.session.sample(GazeSample(1, now - late, *HERE))
        refused = await bench.refusal()
        assert isinstance(refused.error, InvalidPrompt)
        assert refused.error.field == "timestamp_nanoseconds"
    assert (await bench.look(HERE)).state is GazeState.SAME_OBJECT


async def state(bench: Bench) -> GazeState:
    answer = await anext(bench.answers)
    assert isinstance(answer, GazeResult), answer
    return answer.state


async def test_bad_frames_are_refused_and_the_old_keyframe_serves() -> None:
    bench = await started()
    refusals: list[tuple[GazeFrame, type[SamserveError]]] = [
        (GazeFrame(1, image(2)), InvalidImage),
        (GazeFrame(10, image(2), np.zeros((3, 3))), InvalidImage),
        (GazeFrame(11, image(2), np.full((3, 3), np.inf)), InvalidImage),
        (GazeFrame(12, image(2, Size(200, 100))), InvalidImage),
        (GazeFrame(13, ImageInput(data=b"broken")), InvalidImage),
        (GazeFrame(14, ImageInput(image_id=ImageId.of(b"unknown"))), EmbeddingNotFound),
    ]
    for frame, kind in refusals:
        bench.session.frame(frame)
        refused = await bench.refusal()
        assert (refused.message, refused.sequence, type(refused.error)) == ("frame", frame.sequence, kind)
    answer = await bench.fixate(HERE)
    assert (answer.state, answer.keyframe_sequence) == (GazeState.NEW_MASK, 1)


async def test_a_new_scene_is_encoded_ahead_and_the_old_one_serves_until_it_is_ready() -> None:
    bench = await started()
    await bench.fixate(HERE)
    bench.encoder.let.clear()
    bench.motion.to_keyframe = None
    new = bench.frame(image(2))
    await settled()
    waiting = await bench.look(HERE)
    assert (waiting.state, waiting.keyframe_sequence, waiting.keyframe_pending) == (GazeState.SAME_OBJECT, 1, True)
    bench.now += 1
    bench.encoder.let.set()
    await eventually(lambda: bench.counted.frames["keyframe"] == 2)
    answer = await bench.fixate(HERE)
    assert (answer.state, answer.keyframe_sequence, answer.frame_sequence) == (GazeState.NEW_MASK, new, new)
    assert (answer.object_id, answer.keyframe_pending) == (2, False)


async def test_frames_like_the_keyframe_are_not_encoded() -> None:
    bench = await started()
    for nonce in range(1, 20):
        bench.frame(image(1, nonce=nonce))
        await settled()
    answer = await bench.fixate(HERE)
    assert (bench.encoder.encoded, answer.counts.keyframes, answer.counts.frames) == (1, 1, 20)
    assert answer.frame_sequence > 1


async def test_an_old_keyframe_is_replaced() -> None:
    bench = await started()
    bench.now += 5.1
    aged = bench.frame(image(1, nonce=1))
    await bench.until_keyframe(aged)
    assert bench.encoder.encoded == 2


async def test_encodes_are_limited_and_the_newest_frame_is_taken_then() -> None:
    bench = await started(GazeOptions(smoothing=None, keyframes=KeyframePolicy(max_encodes_per_second=1)))
    bench.motion.to_keyframe = None
    for scene in range(2, 8):
        bench.frame(image(scene))
        await settled()
    assert bench.encoder.encoded == 1
    await bench.until_keyframe(7)
    assert bench.encoder.encoded == 2


async def test_streams_of_one_tenant_share_its_encodes_and_those_of_none_do_not() -> None:
    encode_rate = TenantRateLimiter(0.001)
    for tenant in ("a", "b", "", ""):
        bench = Bench(tenant=tenant, encode_rate=encode_rate)
        bench.frame(image(1))
        await bench.until_keyframe(1)
    late = Bench(tenant="a", encode_rate=encode_rate)
    late.frame(image(1))
    await settled()
    assert (await late.look(HERE)).keyframe_pending
    assert late.encoder.encoded == 0
    await late.session.close()


async def test_gaze_is_mapped_into_the_keyframe_and_the_mask_back_by_the_clients_pose() -> None:
    bench = Bench(GazeOptions(smoothing=None, keyframes=KeyframePolicy(max_motion=0.5)))
    # The reference is a plane twice as large as the first frame.
    first, moved = plane.scaling(2, 2), np.array([[2.0, 0, 80], [0, 2, 0], [0, 0, 1]])
    bench.frame(image(1), first)
    await bench.until_keyframe(1)
    still = await bench.fixate((140.0, 100.0))
    assert still.mask is not None
    # The camera has turned right by 40 pixels: the same thing is now 40 pixels further left.
    second = bench.frame(image(1, nonce=1), moved)
    await settled()
    answer = await bench.look((100.0, 100.0))
    assert answer.mask is not None
    assert (answer.frame_sequence, answer.keyframe_sequence) == (second, 1)
    left, top = still.mask.bbox[:2]
    np.testing.assert_allclose(answer.mask.bbox[:2], (left - 40, top), atol=1)
    assert answer.object_id == 1
    assert bench.decoder.decoded == 1
    resting = await bench.fixate((100.0, 100.0))
    assert (resting.state, resting.mask) == (GazeState.SAME_OBJECT, None)


async def test_a_gaze_outside_the_keyframe_is_not_decoded() -> None:
    bench = Bench(GazeOptions(smoothing=None, keyframes=KeyframePolicy(max_motion=0.9)))
    bench.frame(image(1), plane.IDENTITY)
    await bench.until_keyframe(1)
    bench.frame(image(1, nonce=1), np.array([[1.0, 0, 200], [0, 1, 0], [0, 0, 1]]))
    await settled()
    for _ in range(10):
        answer = await bench.look((390.0, 100.0))
    assert answer.frame_sequence == 2
    assert (answer.state, bench.decoder.begun) == (GazeState.NO_FRAME, 0)


AGING = GazeOptions(smoothing=None, hold_seconds=60, keyframes=KeyframePolicy(max_encodes_per_second=1000))


async def aged(bench: Bench) -> int:
    """A new keyframe of the same scene."""
    bench.now += 6
    sequence = bench.frame(image(1, nonce=bench.frames))
    await bench.until_keyframe(sequence)
    return sequence


async def test_the_same_object_on_a_new_keyframe_keeps_its_number() -> None:
    bench = await started(AGING)
    await bench.fixate(HERE)
    keyframe = await aged(bench)
    answer = await bench.fixate(HERE)
    assert (answer.state, answer.object_id, answer.keyframe_sequence) == (GazeState.NEW_MASK, 1, keyframe)


async def test_the_object_is_kept_when_its_part_scores_higher_on_a_new_keyframe() -> None:
    bench = await started(AGING)
    thing = await bench.fixate(HERE)
    part, whole = 0.9, 0.8
    bench.decoder.iou_predictions = (0.8, part, whole, 0.6)
    await aged(bench)
    again = await bench.fixate(HERE)
    assert thing.mask is not None
    assert again.mask is not None
    assert (again.state, again.object_id, again.mask.area) == (GazeState.NEW_MASK, thing.object_id, thing.mask.area)


async def test_normalized_points_and_small_masks() -> None:
    bench = await started(GazeOptions(smoothing=None, coordinate_space=CoordinateSpace.NORMALIZED, max_mask_side=100))
    answer = await bench.fixate((0.25, 1 / 3))
    assert answer.mask is not None
    assert answer.mask.original_size == (75, 100)
    assert pixels(answer.mask)[25, 25]
    np.testing.assert_allclose(answer.point or (), (0.25, 1 / 3))


async def test_a_decoder_failure_is_reported_and_decodes_pause_for_its_retry_delay() -> None:
    bench = await started()
    bench.decoder.error = ModelUnavailable("down", 2.0)
    for _ in range(10):
        bench.send(HERE)
    refused = await bench.refusal()
    assert isinstance(refused.error, ModelUnavailable)
    begun = bench.decoder.begun
    assert [(await bench.look(HERE)).state for _ in range(5)] == [GazeState.HELD] * 5
    assert bench.decoder.begun == begun
    bench.decoder.error = None
    bench.now += 2.1
    assert (await bench.look(HERE)).state is GazeState.NEW_MASK


async def test_a_session_is_working_until_its_sample_is_answered() -> None:
    bench = await started()
    assert not bench.session.working
    bench.decoder.let.clear()
    for _ in range(8):
        bench.send(HERE)
    assert bench.session.working
    answering = asyncio.ensure_future(anext(bench.answers))
    await eventually(lambda: bench.decoder.in_flight == 1)
    assert bench.session.working
    bench.decoder.let.set()
    await answering
    assert not bench.session.working


async def test_every_sample_is_counted_once() -> None:
    bench = await started()
    await bench.fixate(HERE)
    bench.send(HERE)
    bench.send(HERE)
    await anext(bench.answers)
    assert sum(bench.counted.samples.values()) == bench.sequence


async def test_closing_cancels_the_decode_and_the_encode() -> None:
    bench = await started(AGING)
    bench.decoder.let.clear()
    bench.encoder.let.clear()
    bench.motion.to_keyframe = None
    bench.frame(image(2))
    for _ in range(8):
        bench.send(HERE)
    answering = asyncio.ensure_future(anext(bench.answers))
    await eventually(lambda: bench.decoder.in_flight == 1)
    await eventually(lambda: bench.encoder.in_flight == 1)
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    await bench.session.close()
    assert (bench.decoder.cancelled, bench.decoder.in_flight, bench.encoder.in_flight) == (1, 0, 0)


async def test_of_frames_that_come_at_once_only_the_newest_is_used(bench: Bench) -> None:
    for scene in (1, 2, 3):
        bench.frame(image(scene))
    await bench.until_keyframe(3)
    answer = await bench.look(None)
    assert (answer.counts.frames, answer.counts.frames_dropped, bench.encoder.encoded) == (3, 2, 1)


async def test_a_fault_of_the_gateway_ends_the_answers(bench: Bench) -> None:
    bench.encoder.values = np.ones(3, np.float16)
    bench.frame(image(1))
    with pytest.raises(ValueError, match="shape"):
        await anext(bench.answers)
