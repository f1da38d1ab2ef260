"""The tracking use case on a decoder that draws discs where it is asked to."""

import numpy as np
import pytest

from samserve.adapters.images.mask_renderer import PillowMaskRenderer
from samserve.domain.embedding import Embedding
from samserve.domain.errors import InvalidArgument, InvalidImage, InvalidPrompt, ModelUnavailable
from samserve.domain.geometry import Size
from samserve.domain.identity import ImageId
from samserve.domain.prompts import CoordinateSpace, ObjectPrompt, PointLabel, PromptBatch, PromptLimits
from samserve.usecases.embedder import ImageInput
from samserve.usecases.ports import DecodedMasks
from samserve.usecases.tracking import TrackingResult, TrackingSession, TrackQuery, TrackState
from tests.support.fake_models import MANIFEST, FakeImageEncoder, FakeMaskDecoder, SceneDecoder, embedder, image


def click(x: float, y: float) -> ObjectPrompt:
    return ObjectPrompt(np.array([[x, y]]), np.array([PointLabel.FOREGROUND], dtype=np.int32))


class Bench:
    """One session and its models."""

    def __init__(self) -> None:
        self.decoder, self.encoder = FakeMaskDecoder(), FakeImageEncoder()
        self.sequence = 0
        self.session: TrackingSession = TrackingSession(
            tenant="",
            manifest=MANIFEST,
            embedder=embedder(self.encoder, SceneDecoder()),
            mask_decoder=self.decoder,
            prompt_limits=PromptLimits(),
            max_objects=2,
            mask_renderer=PillowMaskRenderer(),
        )

    async def track(self, prompts: dict[int, ObjectPrompt] | None = None, **query: object) -> TrackingResult:
        self.sequence += 1
        source = image(1, nonce=self.sequence)
        return await self.session.track(TrackQuery(self.sequence, source, prompts or {}, **query))  # type: ignore[arg-type]


async def test_an_object_is_followed_by_its_logits_its_box_and_a_point_inside() -> None:
    bench = Bench()
    started = (await bench.track({7: click(200, 150)})).objects[0]
    assert (started.object_id, started.state, started.overlap) == (7, TrackState.STARTED, 1)
    followed = (await bench.track()).objects[0]
    assert followed.state is TrackState.TRACKED
    assert followed.overlap > 0.5
    prompts = bench.decoder.prompts[1]
    assert prompts.has_mask_input.all()
    assert prompts.point_labels[0].tolist() == [
        PointLabel.FOREGROUND,
        PointLabel.BOX_TOP_LEFT,
        PointLabel.BOX_BOTTOM_RIGHT,
    ]
    point, low, high = prompts.point_coords[0]
    np.testing.assert_allclose(point, [200 * 64 / 400, 150 * 64 / 400], atol=2)
    assert (low < point).all()
    assert (point < high).all()


async def test_among_the_candidates_certainty_times_overlap_decides() -> None:
    bench = Bench()
    await bench.track({1: click(200, 150)})
    # The object is the disc of radius 4. The most certain candidate is far larger, the most alike uncertain.
    bench.decoder.radii = (12.0, 3.5, 4.0, 2.0)
    bench.decoder.iou_predictions = (0.95, 0.9, 0.5, 0.9)
    followed = (await bench.track()).objects[0]
    assert followed.mask is not None
    np.testing.assert_allclose(np.sqrt(followed.mask.area / np.pi), 3.5 * 400 / 32, rtol=0.15)


async def test_an_object_that_is_gone_is_lost_and_found_again_where_it_was() -> None:
    bench = Bench()
    first = (await bench.track({1: click(200, 150)})).objects[0]
    radii = bench.decoder.radii
    bench.decoder.radii = (16.0, 16.0, 16.0, 16.0)
    for _ in range(3):
        lost = (await bench.track()).objects[0]
        assert (lost.state, lost.mask) == (TrackState.LOST, None)
        assert lost.overlap < 0.3
    bench.decoder.radii = radii
    found = (await bench.track()).objects[0]
    assert found.state is TrackState.FOUND
    assert found.mask is not None
    assert first.mask is not None
    np.testing.assert_allclose(found.mask.bbox, first.mask.bbox, atol=30)
    assert (await bench.track()).objects[0].state is TrackState.TRACKED


async def test_a_mask_that_creeps_into_its_surroundings_is_lost() -> None:
    bench = Bench()
    await bench.track({1: click(200, 150)})
    states = []
    # Each overlaps the one before by three quarters, and the third has more than twice the area of the first.
    for radius in (4.7, 5.4, 6.2, 7.3):
        bench.decoder.radii = (radius,) * 4
        states.append((await bench.track()).objects[0].state)
    assert states == [TrackState.TRACKED] * 2 + [TrackState.LOST] * 2


async def test_an_object_that_comes_nearer_slowly_is_followed() -> None:
    bench = Bench()
    await bench.track({1: click(200, 150)})
    for radius in np.geomspace(4, 8, 24):
        bench.decoder.radii = (float(radius),) * 4
        assert (await bench.track()).objects[0].state is TrackState.TRACKED


async def test_a_candidate_of_like_size_is_the_object_rather_than_one_that_has_run_away() -> None:
    bench = Bench()
    await bench.track({1: click(200, 150)})
    bench.decoder.radii = (6.4, 6.4, 3.3, 6.4)
    bench.decoder.iou_predictions = (1.0, 1.0, 0.5, 1.0)
    followed = (await bench.track()).objects[0]
    assert followed.mask is not None
    np.testing.assert_allclose(np.sqrt(followed.mask.area / np.pi), 3.3 * 400 / 32, rtol=0.15)


async def test_a_model_that_is_far_less_sure_has_lost_the_object() -> None:
    bench = Bench()
    await bench.track({1: click(200, 150)})
    bench.decoder.iou_predictions = (0.4, 0.4, 0.4, 0.4)
    assert (await bench.track()).objects[0].state is TrackState.LOST


async def test_a_mask_of_different_appearance_is_not_the_tracked_object() -> None:
    bench = Bench()
    await bench.track({1: click(200, 150)})
    bench.encoder.values = np.array([1, 1, -1, -1], np.float16)
    assert (await bench.track()).objects[0].state is TrackState.LOST
    bench.encoder.values = np.ones(4, np.float16)
    assert (await bench.track()).objects[0].state is TrackState.FOUND


async def test_an_object_that_starts_empty_is_lost_from_then_on() -> None:
    bench = Bench()
    bench.decoder.radii = (-1.0, -1.0, -1.0, -1.0)
    started = (await bench.track({1: click(200, 150)})).objects[0]
    assert started.mask is not None
    assert started.mask.area == 0
    assert (await bench.track()).objects[0].state is TrackState.LOST
    assert bench.decoder.begun == 1


async def test_objects_start_start_anew_and_are_removed_on_any_frame() -> None:
    bench = Bench()
    await bench.track({1: click(100, 100)})
    both = await bench.track(
        {2: ObjectPrompt(box=np.array([0.5, 0.5, 0.9, 0.9]))}, coordinate_space=CoordinateSpace.NORMALIZED
    )
    assert [(o.object_id, o.state) for o in both.objects] == [(1, TrackState.TRACKED), (2, TrackState.STARTED)]
    box = bench.decoder.prompts[1].point_coords[1, :2]
    np.testing.assert_allclose(box, [[0.5 * 64, 0.5 * 48], [0.9 * 64, 0.9 * 48]])
    anew = await bench.track({1: click(300, 200)})
    assert [(o.object_id, o.state) for o in anew.objects] == [(1, TrackState.STARTED), (2, TrackState.TRACKED)]
    left = await bench.track(removed=[1])
    assert [o.object_id for o in left.objects] == [2]


async def test_after_the_last_object_was_removed_frames_pass_without_work_until_another_starts() -> None:
    bench = Bench()
    await bench.track({1: click(100, 100), 2: click(300, 200)})
    encoded, decoded = bench.encoder.encoded, bench.decoder.begun
    for removed in ([1, 2], [], [2, 7]):
        passed = await bench.track(removed=removed)
        assert not passed.objects
    assert (bench.encoder.encoded, bench.decoder.begun) == (encoded, decoded)
    again = await bench.track({2: click(300, 200)})
    assert [(o.object_id, o.state) for o in again.objects] == [(2, TrackState.STARTED)]


async def test_the_last_object_may_be_removed_where_another_starts() -> None:
    bench = Bench()
    await bench.track({1: click(100, 100)})
    swapped = await bench.track({2: click(300, 200)}, removed=[1])
    assert [(o.object_id, o.state) for o in swapped.objects] == [(2, TrackState.STARTED)]


async def test_frames_without_objects_are_checked_as_others_are() -> None:
    bench = Bench()
    with pytest.raises(InvalidPrompt, match="no object is tracked"):
        await bench.track(removed=[1])
    await bench.track({1: click(100, 100)})
    await bench.track(removed=[1])
    refused = {
        "sequence": TrackQuery(1, image(1)),
        "frame": TrackQuery(9, image(1, Size(100, 100))),
        "image": TrackQuery(9, ImageInput(data=b"broken")),
    }
    for field, query in refused.items():
        with pytest.raises(InvalidImage) as raised:
            await bench.session.track(query)
        assert raised.value.field.partition(".")[0] == field
    known = ImageId.of(b"known")
    assert (await bench.session.track(TrackQuery(9, ImageInput(image_id=known)))).image_id == known


async def test_all_objects_are_decoded_together() -> None:
    bench = Bench()
    await bench.track({1: click(100, 100), 2: click(300, 200)})
    await bench.track()
    assert [len(prompts) for prompts in bench.decoder.prompts] == [2, 2]


async def test_bad_frames_are_refused_and_change_nothing() -> None:
    bench = Bench()
    with pytest.raises(InvalidPrompt):
        await bench.track()
    await bench.track({1: click(200, 150)})
    refused: list[tuple[TrackQuery, str]] = [
        (TrackQuery(1, image(1)), "sequence"),
        (TrackQuery(9, image(1, Size(100, 100))), "frame"),
        (TrackQuery(9, image(1), {2: click(401, 1)}), "prompts[0].prompt.points[0].x"),
        (TrackQuery(9, image(1), {2: click(float("nan"), 1)}), "prompts[0].prompt.points[0].x"),
        (TrackQuery(9, image(1), {2: click(1, 1), 3: click(1, 1)}), "prompts"),
    ]
    for query, field in refused:
        with pytest.raises(InvalidArgument) as raised:
            await bench.session.track(query)
        assert raised.value.field == field
        assert isinstance(raised.value, InvalidImage | InvalidPrompt)
    bench.decoder.error = ModelUnavailable("down", 1.0)
    with pytest.raises(ModelUnavailable):
        await bench.session.track(TrackQuery(9, image(1)))
    bench.decoder.error = None
    assert (await bench.session.track(TrackQuery(9, image(1)))).objects[0].state is TrackState.TRACKED


async def test_what_appears_far_from_the_object_is_not_the_object() -> None:
    bench = Bench()
    first = (await bench.track({1: click(200, 150)})).objects[0]
    decode = bench.decoder.decode

    async def decode_with_another(embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        decoded = await decode(embedding, prompts)
        decoded.low_res_masks[:, :, :6, :6] = 5
        return decoded

    bench.decoder.decode = decode_with_another  # type: ignore[method-assign]
    for _ in range(3):
        followed = (await bench.track()).objects[0]
        assert followed.state is TrackState.TRACKED
        assert first.mask is not None
        assert followed.mask is not None
        np.testing.assert_allclose(followed.mask.bbox, first.mask.bbox, atol=30)
