"""The streams over real gRPC: bounds, silence, slow and dying clients, drain."""

import asyncio
import gc
import io
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from samserve.domain.identity import ImageId
from samserve.gateway.process import gateway
from samserve.gateway.settings import Settings
from samserve.usecases.observers import GAZE_SAMPLE_OUTCOMES
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub
from tests.support.gateway import (
    CENTRE_CLICK,
    FOUND_IOU,
    PNG_CLICK,
    Served,
    disc,
    drained,
    iou,
    photo,
    pixels_of,
    refusal,
    rest,
    serving,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHOTO = Path(__file__).parents[3] / "docs" / "photos" / "coffee.jpg"
CONFIG = pb.SegmentGazeRequest(config=pb.GazeConfig(max_mask_side=32))
START = pb.SegmentStreamRequest(sequence=1, start_session=pb.StartSession(image=pb.Image(data=photo(1))))
RPCS = ("SegmentGaze", "SegmentStream", "TrackObjects")


def frame(sequence: int, image: pb.Image | None = None, **fields: Any) -> pb.SegmentGazeRequest:
    image = image or pb.Image(data=photo(1))
    return pb.SegmentGazeRequest(frame=pb.GazeFrame(sequence=sequence, image=image, **fields))


def sample(
    sequence: int, x: float = 20, y: float = 15, valid: bool = True, step: int = 10_000_000
) -> pb.SegmentGazeRequest:
    return pb.SegmentGazeRequest(
        sample=pb.GazeSample(sequence=sequence, timestamp_nanoseconds=sequence * step, x=x, y=y, valid=valid)
    )


def track(sequence: int, image: pb.Image | None = None, **fields: Any) -> pb.TrackObjectsRequest:
    return pb.TrackObjectsRequest(sequence=sequence, frame=image or pb.Image(data=photo(1)), **fields)


OUTSIDE = pb.Prompt(points=[pb.Point(x=64.5, y=1, label=pb.POINT_LABEL_FOREGROUND)])
UNSAID = pb.Prompt(points=[pb.Point(x=1, y=1)])
START_TRACKING = track(1, prompts=[pb.TrackedPrompt(object_id=1, prompt=CENTRE_CLICK)])


async def opened(served: Served, rpc: str = "SegmentGaze") -> Any:
    """A stream that has said its first word."""
    call: Any = getattr(served.stub, rpc)()
    first: Any = {"SegmentGaze": CONFIG, "SegmentStream": START, "TrackObjects": START_TRACKING}[rpc]
    await call.write(first)
    if rpc != "SegmentGaze":
        await call.read()
        return call
    await call.write(frame(1))
    sequence = 0
    while True:
        sequence += 1
        await call.write(sample(sequence, valid=False, step=1))
        if (await call.read()).answer.keyframe_sequence:
            return call
        await asyncio.sleep(0.01)


async def until_none_is_open(served: Served, seconds: float = 5) -> None:
    """Wait until the gateway has ended all streams."""
    await eventually(lambda: open_streams(served) == 0, seconds)


def open_streams(served: Served) -> float:
    return served.counted("samserve_in_flight", limit="streams")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving(stream_idle_seconds=20) as served:
        yield served


async def test_gaze_answers_keep_the_order_and_the_stamps_of_their_samples(served: Served) -> None:
    call = await opened(served)
    for sequence in range(1, 101):
        await call.write(sample(sequence))
        await asyncio.sleep(0.002)
    await call.done_writing()
    answers = [message.answer async for message in rest(call)]
    sequences = [answer.sequence for answer in answers]
    assert sequences == sorted(set(sequences))
    assert sequences[-1] == 100
    assert all(answer.timestamp_nanoseconds == answer.sequence * 10_000_000 for answer in answers)
    states = [answer.state for answer in answers]
    first = states.index(pb.GAZE_STATE_NEW_MASK)
    assert set(states[:first]) <= {pb.GAZE_STATE_SACCADE}
    assert set(states[first + 1 :]) == {pb.GAZE_STATE_SAME_OBJECT}
    assert [answer.HasField("mask") for answer in answers].count(True) == 1
    assert answers[first].mask.coco_rle.size == pb.Size(height=24, width=32)
    counts = answers[-1].counts
    assert counts.samples == counts.samples_dropped + counts.samples_skipped + counts.decodes
    outcomes = {
        outcome: served.counted("samserve_gaze_samples_total", outcome=outcome) for outcome in GAZE_SAMPLE_OUTCOMES
    }
    assert sum(outcomes.values()) == counts.samples
    assert (outcomes["decoded"], outcomes["dropped"]) == (1, counts.samples_dropped)
    assert await call.code() == grpc.StatusCode.OK


def view(shift: int) -> pb.Image:
    """What a camera sees of a photo after it has turned right by so many pixels."""
    file = io.BytesIO()
    with Image.open(PHOTO) as whole:
        whole.crop((100 + shift, 50, 500 + shift, 350)).save(file, "JPEG", quality=90)
    return pb.Image(data=file.getvalue())


@pytest.mark.parametrize("known", [True, False], ids=["the client's pose", "estimated"])
async def test_a_mask_follows_the_camera_without_another_encode(served: Served, known: bool) -> None:
    call: Any = served.stub.SegmentGaze()
    await call.write(pb.SegmentGazeRequest(config=pb.GazeConfig(field_of_view_degrees=50)))
    clock = 0

    async def look(x: float) -> pb.GazeAnswer:
        nonlocal clock
        clock += 1
        await call.write(sample(clock, x=x, y=150))
        message: pb.SegmentGazeResponse = await call.read()
        assert message.answer.sequence == clock, message
        return message.answer

    def pose(shift: int) -> list[float]:
        return [1, 0, shift, 0, 1, 0, 0, 0, 1] if known else []

    await call.write(frame(1, view(0), reference_homography=pose(0)))
    answer = pb.GazeAnswer()
    while not answer.HasField("mask"):
        answer = await look(200)
        await asyncio.sleep(0.005)
    still, shift = answer.mask, 16
    await call.write(frame(2, view(shift), reference_homography=pose(shift)))
    while not (answer.frame_sequence == 2 and answer.HasField("mask")):
        answer = await look(200 - shift)
        await asyncio.sleep(0.005)
    assert (answer.keyframe_sequence, answer.counts.keyframes) == (1, 1)
    assert answer.object_id == 1
    # What has left the frame on the left is not seen, and what comes in on the right the keyframe does not show.
    seen = pixels_of(answer.mask)
    assert seen.sum() > 1000
    assert iou(pixels_of(still)[:, shift:], seen[:, :-shift]) > 0.95
    assert not seen[:, -shift:].any()
    call.cancel()


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (sample(900, x=float("nan")), "sample.x"),
        (sample(0), "sample.timestamp_nanoseconds"),
        (frame(1), "frame.sequence"),
        (frame(900, pb.Image(data=b"hello")), "frame.image.data"),
        (frame(901, pb.Image(data=photo(1, (20, 20)))), "frame.image"),
        (frame(902, pb.Image()), "frame.image"),
        (frame(903, pb.Image(image_id="dog")), "frame.image.image_id"),
        (frame(904, pb.Image(image_id="sha256:" + "0" * 64)), "frame"),
        (frame(905, reference_homography=[1.0] * 8), "frame.reference_homography"),
        (frame(906, reference_homography=[1.0] * 9), "frame.reference_homography"),
        (frame(907, reference_homography=[1e300, 0, 0, 0, 1e-300, 0, 0, 0, 1e308]), "frame.reference_homography"),
        (CONFIG, "config"),
        (pb.SegmentGazeRequest(), "message"),
    ],
)
async def test_a_bad_gaze_message_gets_an_error_and_the_stream_goes_on(
    served: Served, message: pb.SegmentGazeRequest, field: str
) -> None:
    call = await opened(served)
    await call.write(message)
    error = (await call.read()).error
    assert (error.field, bool(error.description)) == (field, True)
    assert error.sequence == message.frame.sequence + message.sample.sequence
    expected = grpc.StatusCode.NOT_FOUND if field == "frame" else grpc.StatusCode.INVALID_ARGUMENT
    assert error.code == expected.value[0]
    await call.write(sample(5000))
    assert (await call.read()).answer.sequence == 5000
    call.cancel()


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([frame(1)], "config"),
        ([pb.SegmentGazeRequest()], "config"),
        ([pb.SegmentGazeRequest(config=pb.GazeConfig(mask_format=99))], "config.mask_format"),  # type: ignore[arg-type]
        ([pb.SegmentGazeRequest(config=pb.GazeConfig(field_of_view_degrees=180))], "config.field_of_view_degrees"),
        (
            [pb.SegmentGazeRequest(config=pb.GazeConfig(filter=pb.OneEuroFilter(beta=float("nan"))))],
            "config.filter.beta",
        ),
        (
            [pb.SegmentGazeRequest(config=pb.GazeConfig(velocity_threshold=pb.VelocityThreshold()))],
            "config.velocity_threshold.threshold",
        ),
        ([pb.SegmentGazeRequest(config=pb.GazeConfig(min_confidence=2))], "config.min_confidence"),
    ],
)
async def test_a_gaze_stream_that_cannot_go_on_ends_with_a_status(
    served: Served, messages: list[pb.SegmentGazeRequest], field: str
) -> None:
    call: Any = served.stub.SegmentGaze()
    for message in messages:
        await call.write(message)
    refused = await refusal(drained(call))
    assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_devices_clock_may_begin_anywhere(served: Served) -> None:
    call: Any = served.stub.SegmentGaze()
    await call.write(CONFIG)
    await call.write(sample(1, step=-(1 << 63)))
    assert (await call.read()).answer.timestamp_nanoseconds == -(1 << 63)
    call.cancel()


async def test_an_interactive_session_refines_moves_and_undoes(served: Served) -> None:
    call = await opened(served, "SegmentStream")

    async def send(sequence: int, **edit: Any) -> pb.SegmentStreamResponse:
        await call.write(pb.SegmentStreamRequest(sequence=sequence, **edit))
        answer: pb.SegmentStreamResponse = await call.read()
        assert answer.sequence == sequence
        return answer

    point = PNG_CLICK.points[0]
    first = await send(2, add_point=point)
    refined = await send(3, add_point=pb.Point(x=50, y=40, label=pb.POINT_LABEL_BACKGROUND))
    assert (len(refined.masks.points), refined.masks.undoable_edits) == (2, 2)
    undone = await send(4, undo=pb.Undo())
    assert undone.masks.masks == first.masks.masks
    boxed = await send(5, set_box=pb.Box(x0=5, y0=5, x1=60, y1=40))
    assert boxed.masks.box == pb.Box(x0=5, y0=5, x1=60, y1=40)
    assert (await send(6, set_box=pb.Box(x0=9, y0=5, x1=5, y1=40))).error.field == "set_box.x1"
    assert (await send(7, add_point=pb.Point(x=1, y=1))).error.field == "add_point.label"
    assert (await send(8, move_point=pb.MovePoint(index=3, x=1, y=1))).error.field == "move_point.index"
    assert not (await send(9, clear_prompt=pb.ClearPrompt())).masks.masks
    for sequence, (field, start) in enumerate(
        {
            "start_session.image": pb.StartSession(),
            "start_session.image.data": pb.StartSession(image=pb.Image(data=b"hello")),
            "start_session.mask_format": pb.StartSession(
                image=pb.Image(data=photo(2)),
                mask_format=99,  # type: ignore[arg-type]
            ),
        }.items(),
        start=10,
    ):
        assert (await send(sequence, start_session=start)).error.field == field
    start = pb.StartSession(image=pb.Image(data=photo(2)), mask_format=pb.MASK_FORMAT_PNG, multimask_output=True)
    assert not (await send(20, start_session=start)).masks.masks
    other = await send(21, add_point=point)
    assert [mask.WhichOneof("form") for mask in other.masks.masks] == ["png"] * 3
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_objects_are_tracked_and_bad_frames_are_skipped(served: Served) -> None:
    call = await opened(served, "TrackObjects")
    bad = {
        "sequence": track(1),
        "frame": track(2, pb.Image(data=photo(1, (20, 20)))),
        "frame.data": track(2, pb.Image(data=b"hello")),
        "frame.image_id": track(2, pb.Image(image_id="dog")),
        "prompts[0].object_id": track(2, prompts=[pb.TrackedPrompt(prompt=PNG_CLICK)]),
        "prompts[0].prompt": track(2, prompts=[pb.TrackedPrompt(object_id=2)]),
        "prompts[0].prompt.points[0].x": track(2, prompts=[pb.TrackedPrompt(object_id=2, prompt=OUTSIDE)]),
        "prompts[1].prompt.points[0].label": track(
            2, prompts=[pb.TrackedPrompt(object_id=3, prompt=PNG_CLICK), pb.TrackedPrompt(object_id=2, prompt=UNSAID)]
        ),
        "mask_format": track(2, mask_format=99),
        "removed_object_ids": track(2, removed_object_ids=[1] * 513),
    }
    for field, message in bad.items():
        await call.write(message)
        answer = await call.read()
        assert (answer.sequence, answer.error.field) == (message.sequence, field)
    await call.write(track(3))
    answer = await call.read()
    [tracked] = answer.frame.objects
    assert (tracked.object_id, tracked.state) == (1, pb.TRACK_STATE_TRACKED)
    assert iou(pixels_of(tracked.mask), disc()) >= FOUND_IOU
    call.cancel()


@pytest.mark.parametrize("rpc", RPCS)
async def test_boxes_of_masks_are_in_the_streams_coordinate_space(served: Served, rpc: str) -> None:
    boxes = {space: await box_of_the_disc(served, rpc, space) for space in ("PIXELS", "NORMALIZED")}
    height, width = boxes["PIXELS"][1]
    np.testing.assert_allclose(
        np.array(boxes["NORMALIZED"][0]) * [width, height, width, height], boxes["PIXELS"][0], atol=1.0
    )
    assert max(boxes["NORMALIZED"][0]) <= 1 < max(boxes["PIXELS"][0])


async def box_of_the_disc(served: Served, rpc: str, space: str) -> tuple[list[float], tuple[int, int]]:
    """The box of the mask that a click on the disc gives in this space, and the size of the mask."""
    coordinates = pb.CoordinateSpace.Value(f"COORDINATE_SPACE_{space}")
    x, y = (0.5, 0.5) if space == "NORMALIZED" else (32.0, 24.0)
    click = pb.Point(x=x, y=y, label=pb.POINT_LABEL_FOREGROUND)
    call: Any = getattr(served.stub, rpc)()
    if rpc == "SegmentGaze":
        config = pb.GazeConfig(coordinate_space=coordinates, max_mask_side=32)
        await call.write(pb.SegmentGazeRequest(config=config))
        await call.write(frame(1))
        sequence, mask = 0, None
        while mask is None:
            sequence += 1
            await call.write(sample(sequence, x, y))
            answer = (await call.read()).answer
            mask = answer.mask if answer.HasField("mask") else None
            await asyncio.sleep(0.002)
    elif rpc == "SegmentStream":
        image = pb.Image(data=photo(1))
        start = pb.StartSession(image=image, coordinate_space=coordinates)
        await call.write(pb.SegmentStreamRequest(sequence=1, start_session=start))
        await call.read()
        await call.write(pb.SegmentStreamRequest(sequence=2, add_point=click))
        mask = (await call.read()).masks.masks[0]
    else:
        prompts = [pb.TrackedPrompt(object_id=1, prompt=pb.Prompt(points=[click]))]
        await call.write(track(1, prompts=prompts, coordinate_space=coordinates))
        mask = (await call.read()).frame.objects[0].mask
    call.cancel()
    box, size = mask.bbox, mask.coco_rle.size
    return [box.x0, box.y0, box.x1, box.y1], (size.height, size.width)


async def test_tracking_goes_on_after_the_last_object_was_removed(served: Served) -> None:
    call = await opened(served, "TrackObjects")
    for request in (track(2, removed_object_ids=[1]), track(3, pb.Image(data=photo(2)))):
        await call.write(request)
        answer = await call.read()
        assert (answer.sequence, answer.WhichOneof("answer")) == (request.sequence, "frame")
        assert not answer.frame.objects
        assert answer.frame.image_id == ImageId.of(request.frame.data)
    await call.write(track(4, prompts=START_TRACKING.prompts))
    assert (await call.read()).frame.objects[0].state == pb.TRACK_STATE_STARTED
    call.cancel()


@pytest.mark.parametrize("rpc", RPCS)
async def test_streams_beyond_the_limit_are_refused_and_a_place_is_free_again_at_once(rpc: str) -> None:
    async with serving(max_streams=1) as served:
        first = await opened(served, rpc)
        second: Any = getattr(served.stub, rpc)()
        refused = await refusal(drained(second))
        assert (refused.code, refused.retry_after_seconds) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
        first.cancel()
        await until_none_is_open(served)
        (await opened(served, rpc)).cancel()


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_silent_client_loses_its_stream(rpc: str) -> None:
    async with serving(stream_idle_seconds=1) as served:
        call = await opened(served, rpc)
        refused = await refusal(drained(call))
        assert (refused.code, refused.message) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no message received for 1 s")
        await until_none_is_open(served)


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_drain_ends_streams_with_a_status_that_says_so(rpc: str) -> None:
    async with gateway(Settings(port=0, stop_grace_seconds=20)) as running:
        channel = grpc.aio.insecure_channel(running.address)
        served = Served(running, channel, SegmentationServiceStub(channel))
        call = await opened(served, rpc)
        ended = asyncio.ensure_future(refusal(drained(call)))
    refused = await asyncio.wait_for(ended, 10)
    assert (refused.code, refused.message) == (
        grpc.StatusCode.UNAVAILABLE,
        "the gateway is shutting down; reconnect",
    )
    assert (
        running.metrics.registry.get_sample_value("samserve_requests_total", {"rpc": rpc, "code": "UNAVAILABLE"}) == 1
    )
    await channel.close()


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_dying_client_frees_everything_at_once(served: Served, rpc: str) -> None:
    await until_none_is_open(served)
    tasks, cancelled = len(asyncio.all_tasks()), ended(served, rpc, "CANCELLED")
    channel = grpc.aio.insecure_channel(served.gateway.address)
    call = await opened(Served(served.gateway, channel, SegmentationServiceStub(channel)), rpc)
    assert open_streams(served) == 1
    await channel.close()
    del call
    await until_none_is_open(served)
    assert ended(served, rpc, "CANCELLED") == cancelled + 1
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_streams_deadline_ends_it(served: Served, rpc: str) -> None:
    await until_none_is_open(served)
    # Which of the two clocks is ahead decides between them.
    codes = ("DEADLINE_EXCEEDED", "CANCELLED")
    before = sum(ended(served, rpc, code) for code in codes)
    call: Any = getattr(served.stub, rpc)(timeout=0.5)
    assert (await refusal(drained(call))).code == grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: sum(ended(served, rpc, code) for code in codes) == before + 1)
    await until_none_is_open(served)


def ended(served: Served, rpc: str, code: str) -> float:
    """How many calls have ended so."""
    return served.counted("samserve_requests_total", rpc=rpc, code=code)


async def test_a_client_that_does_not_read_loses_its_stream_and_uses_bounded_memory() -> None:
    # Small windows of flow control, so that the client's side is full after few answers.
    narrow = [("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0)]
    async with (
        serving(stream_idle_seconds=1) as served,
        grpc.aio.insecure_channel(served.gateway.address, options=narrow) as channel,
    ):
        call = await opened(Served(served.gateway, channel, SegmentationServiceStub(channel)))
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        flooding = asyncio.ensure_future(flood(call))
        await until_none_is_open(served, seconds=60)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
        # It hears of the end once it reads again. Of the status too, were it not writing (grpc.aio has one for both).
        with pytest.raises(grpc.aio.AioRpcError):
            await drained(call)
        await asyncio.gather(flooding, return_exceptions=True)
        assert ended(served, "SegmentGaze", "DEADLINE_EXCEEDED") == 1


async def flood(call: Any) -> None:
    """Frames, and faults that each get an answer, as fast as they go."""
    large, sequence = pb.Image(data=photo(5, (700, 700))), 1000
    while True:
        sequence += 1
        await call.write(sample(sequence, x=float("nan")))
        if sequence % 100 == 0:
            await call.write(frame(sequence, large))


async def test_tenants_of_streams_do_not_see_each_others_images(served: Served) -> None:
    await served.stub.EmbedImage(
        pb.EmbedImageRequest(image=pb.Image(data=photo(1))), metadata=(("samserve-tenant", "a"),)
    )
    image_id = (
        await served.stub.EmbedImage(
            pb.EmbedImageRequest(image=pb.Image(data=photo(1))), metadata=(("samserve-tenant", "a"),)
        )
    ).image_id
    codes = {}
    for tenant in ("a", "b"):
        call: Any = served.stub.TrackObjects(metadata=(("samserve-tenant", tenant),))
        await call.write(
            track(1, pb.Image(image_id=image_id), prompts=[pb.TrackedPrompt(object_id=1, prompt=PNG_CLICK)])
        )
        codes[tenant] = (await call.read()).error.code
        call.cancel()
    assert codes == {"a": 0, "b": grpc.StatusCode.NOT_FOUND.value[0]}


async def test_the_client_that_streams_gets_its_request_id_back(served: Served) -> None:
    call: Any = served.stub.SegmentGaze(metadata=(("x-request-id", "abc"),))
    assert dict(await call.initial_metadata())["x-request-id"] == "abc"
    call.cancel()
