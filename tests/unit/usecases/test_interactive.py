"""Editing sessions on models that run when the test lets them."""

import asyncio

import numpy as np
import pytest

from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.domain.edits import AddPoint, ClearPrompt, Edit, MovePoint, SetBox, Undo
from samserve.domain.errors import CapacityExceeded, EmbeddingNotFound, InvalidArgument, ModelUnavailable
from samserve.domain.identity import ImageId
from samserve.domain.prompts import CoordinateSpace, PromptLimits
from samserve.usecases.embedder import ImageInput
from samserve.usecases.interactive import EditingSession, PromptMasks, RefusedEdit, SessionStart
from tests.support.fake_models import MANIFEST, FakeImageEncoder, FakeMaskDecoder, SceneDecoder, embedder, image
from tests.support.rendered import pixels
from tests.support.waiting import eventually, settled


class Bench:
    """One session and its models."""

    def __init__(self) -> None:
        self.encoder, self.decoder = FakeImageEncoder(), FakeMaskDecoder()
        self.sequence = 0
        self.session: EditingSession = EditingSession(
            tenant="",
            manifest=MANIFEST,
            embedder=embedder(self.encoder, SceneDecoder()),
            mask_decoder=self.decoder,
            limits=PromptLimits(max_points_per_prompt=3),
            mask_renderer=PillowMaskRenderer(),
        )
        self.answers = self.session.answers()

    def send(self, edit: Edit | SessionStart) -> int:
        self.sequence += 1
        if isinstance(edit, SessionStart):
            self.session.start(self.sequence, edit)
        else:
            self.session.edit(self.sequence, edit)
        return self.sequence

    async def masks(self) -> PromptMasks:
        async with asyncio.timeout(5):
            answer = await anext(self.answers)
        assert isinstance(answer, PromptMasks), answer
        return answer

    async def refused(self) -> RefusedEdit:
        async with asyncio.timeout(5):
            answer = await anext(self.answers)
        assert isinstance(answer, RefusedEdit)
        return answer

    async def after(self, edit: Edit | SessionStart) -> PromptMasks:
        """Send an edit and take its masks."""
        sequence = self.send(edit)
        answer = await self.masks()
        assert answer.sequence == sequence
        return answer


async def started(multimask_output: bool = True) -> Bench:
    bench = Bench()
    answer = await bench.after(SessionStart(image(1), multimask_output=multimask_output))
    assert (answer.masks, answer.undoable_edits) == ([], 0)
    return bench


async def test_a_single_point_gets_three_masks_and_its_refinement_one() -> None:
    bench = await started()
    assert len((await bench.after(AddPoint(100, 100, 1))).masks) == 3
    assert len((await bench.after(AddPoint(10, 10, 0))).masks) == 1
    first, second = bench.decoder.prompts
    assert not first.has_mask_input.any()
    assert second.has_mask_input.all()
    # The most certain of the three, not the single mask: a disc of radius 4.
    assert second.mask_input[0].max() == pytest.approx(4, abs=1)


async def test_without_multimask_output_every_answer_is_one_mask() -> None:
    bench = await started(multimask_output=False)
    assert len((await bench.after(AddPoint(100, 100, 1))).masks) == 1


async def test_undo_restores_the_previous_masks() -> None:
    bench = await started()
    await bench.after(AddPoint(100, 100, 1))
    second = await bench.after(AddPoint(200, 150, 1))
    await bench.after(SetBox((10, 10, 300, 200)))
    undone = await bench.after(Undo())
    assert undone.undoable_edits == second.undoable_edits == 2
    np.testing.assert_array_equal(undone.prompt.point_coords, second.prompt.point_coords)
    assert undone.prompt.box is None
    before, after = bench.decoder.prompts[1], bench.decoder.prompts[3]
    np.testing.assert_array_equal(before.mask_input, after.mask_input)
    np.testing.assert_array_equal(pixels(undone.masks[0]), pixels(second.masks[0]))


async def test_a_session_is_working_until_its_masks_are_answered() -> None:
    bench = Bench()
    bench.encoder.let.clear()
    bench.send(SessionStart(image(1)))
    started = asyncio.ensure_future(bench.masks())
    await eventually(lambda: bench.encoder.encoded == 1)
    assert bench.session.working
    bench.encoder.let.set()
    await started
    assert not bench.session.working
    bench.decoder.let.clear()
    bench.send(AddPoint(100, 100, 1))
    reading = asyncio.ensure_future(bench.masks())
    await eventually(lambda: bench.decoder.in_flight == 1)
    assert bench.session.working
    bench.decoder.let.set()
    await reading
    assert not bench.session.working


async def test_a_newer_edit_cancels_the_decode_of_the_older_one() -> None:
    bench = await started()
    bench.decoder.let.clear()
    bench.send(AddPoint(100, 100, 1))
    reading = asyncio.ensure_future(bench.masks())
    await eventually(lambda: bench.decoder.in_flight == 1)
    for x in range(20):
        last = bench.send(MovePoint(0, 100 + x, 100))
        await settled()
    assert bench.decoder.begun > 1
    assert bench.decoder.most_in_flight == 1
    bench.decoder.let.set()
    answer = await reading
    assert answer.sequence == last
    np.testing.assert_array_equal(answer.prompt.point_coords, [[119, 100]])
    assert bench.decoder.cancelled == bench.decoder.begun - 1
    assert answer.undoable_edits == 2


async def test_edits_that_come_while_the_image_is_encoded_are_applied_and_cancel_no_encode() -> None:
    bench = Bench()
    bench.encoder.let.clear()
    bench.send(SessionStart(image(1)))
    for x in (10, 20, 30):
        last = bench.send(AddPoint(x, 10, 1))
    reading = asyncio.ensure_future(bench.masks())
    await eventually(lambda: bench.encoder.encoded == 1)
    last = bench.send(Undo())
    await settled()
    bench.encoder.let.set()
    answer = await reading
    assert (answer.sequence, len(answer.prompt.point_coords)) == (last, 2)
    assert (bench.encoder.encoded, bench.decoder.begun) == (1, 1)


async def test_a_client_that_does_not_read_gets_no_decodes_and_bounded_memory() -> None:
    bench = await started()
    await bench.after(AddPoint(1, 1, 1))
    for x in range(1000):
        bench.send(MovePoint(0, x % 300, 1))
        bench.send(MovePoint(9, 0, 0))
    await settled()
    assert bench.decoder.begun == 1
    bench.session.end()
    refused = [answer async for answer in bench.answers if isinstance(answer, RefusedEdit)]
    assert 0 < len(refused) <= 64
    assert refused[-1].sequence == bench.sequence


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (AddPoint(float("nan"), 1, 1), "add_point.x"),
        (AddPoint(401, 1, 1), "add_point.x"),
        (MovePoint(0, 1, -1), "move_point.y"),
        (MovePoint(7, 1, 1), "move_point.index"),
        (SetBox((5, 5, 1, 9)), "set_box.x1"),
        (SetBox((5, 5, 401, 9)), "set_box.x1"),
    ],
)
async def test_bad_edits_are_refused_and_change_nothing(edit: Edit, field: str) -> None:
    bench = await started()
    first = await bench.after(AddPoint(100, 100, 1))
    sequence = bench.send(edit)
    refused = await bench.refused()
    assert isinstance(refused.error, InvalidArgument)
    assert (refused.sequence, refused.error.field) == (sequence, field)
    again = await bench.after(MovePoint(0, 100, 100))
    np.testing.assert_array_equal(again.prompt.point_coords, first.prompt.point_coords)


async def test_points_have_a_limit() -> None:
    bench = await started()
    for _ in range(3):
        await bench.after(AddPoint(1, 1, 1))
    bench.send(AddPoint(1, 1, 1))
    assert "limit is 3" in str((await bench.refused()).error)


async def test_edits_before_an_image_numbers_that_fall_and_unknown_images_are_refused() -> None:
    bench = Bench()
    bench.send(AddPoint(1, 1, 1))
    assert "start_session" in str((await bench.refused()).error)
    bench.session.edit(1, ClearPrompt())
    assert "above the last message's 1" in str((await bench.refused()).error)
    bench.send(SessionStart(ImageInput(image_id=ImageId.of(b"unknown"))))
    early = bench.send(AddPoint(1, 1, 1))
    refusals = [await bench.refused(), await bench.refused()]
    assert {type(refused.error) for refused in refusals} == {EmbeddingNotFound, InvalidArgument}
    assert {refused.sequence for refused in refusals} == {early - 1, early}
    assert (await bench.after(SessionStart(image(1)))).masks == []


async def test_too_many_edits_while_the_image_is_read_are_refused() -> None:
    bench = Bench()
    bench.send(SessionStart(image(1)))
    for _ in range(80):
        bench.send(AddPoint(1, 1, 1))
    assert isinstance((await bench.refused()).error, CapacityExceeded)


async def test_another_image_begins_anew() -> None:
    bench = await started()
    await bench.after(AddPoint(100, 100, 1))
    bench.decoder.let.clear()
    bench.send(AddPoint(200, 100, 1))
    bench.send(SessionStart(image(2), CoordinateSpace.NORMALIZED))
    bench.decoder.let.set()
    answer = await bench.masks()
    assert (answer.sequence, answer.masks, answer.undoable_edits) == (bench.sequence, [], 0)
    assert len((await bench.after(AddPoint(0.5, 0.5, 1))).masks) == 1


async def test_a_decoder_failure_is_reported_and_the_session_goes_on() -> None:
    bench = await started()
    bench.decoder.error = ModelUnavailable("down", 1.0)
    bench.send(AddPoint(100, 100, 1))
    assert isinstance((await bench.refused()).error, ModelUnavailable)
    bench.decoder.error = None
    assert (await bench.after(MovePoint(0, 100, 100))).masks


async def test_pending_edits_are_answered_before_the_session_ends() -> None:
    bench = await started()
    last = bench.send(AddPoint(100, 100, 1))
    bench.session.end()
    answers = [answer async for answer in bench.answers]
    assert [answer.sequence for answer in answers] == [last]


async def test_closing_cancels_the_encode() -> None:
    bench = Bench()
    bench.encoder.let.clear()
    bench.send(SessionStart(image(1)))
    await eventually(lambda: bench.encoder.in_flight == 1)
    await bench.session.close()
    await settled()
    assert bench.encoder.in_flight == 0


async def test_closing_cancels_the_decode() -> None:
    bench = await started()
    bench.decoder.let.clear()
    bench.send(AddPoint(100, 100, 1))
    reading = asyncio.ensure_future(bench.masks())
    await eventually(lambda: bench.decoder.in_flight == 1)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await bench.session.close()
    assert (bench.decoder.cancelled, bench.decoder.in_flight) == (1, 0)


async def test_a_start_whose_number_does_not_rise_is_refused_and_keeps_the_session() -> None:
    bench = await started()
    first = await bench.after(AddPoint(100, 100, 1))
    bench.session.start(first.sequence, SessionStart(image(2)))
    refused = await bench.refused()
    assert isinstance(refused.error, InvalidArgument)
    assert refused.error.field == "sequence"
    assert (await bench.after(AddPoint(10, 10, 0))).undoable_edits == 2


async def test_a_failure_after_an_answer_is_raised_and_does_not_end_the_session_quietly() -> None:
    bench = await started()
    bench.session.end(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await anext(bench.answers)
