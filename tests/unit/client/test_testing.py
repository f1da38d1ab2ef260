"""The fake gateway that users of the client have for their own tests, asked by the client."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from samserve.client import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceeded,
    GazeAnswer,
    ImageId,
    ImageNotFound,
    InvalidRequest,
    Overloaded,
    Prompt,
    Refused,
    ServerError,
    Unavailable,
)
from samserve.client.testing import FakeGateway

HEIGHT, WIDTH = 60, 80


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as gateway:
        yield gateway


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[Client]:
    with Client(gateway.address) as client:
        yield client


@pytest.fixture
def photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(file, "PNG")
    return file.getvalue()


def filled(x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_box_is_filled(client: Client, photo: bytes) -> None:
    result = client.segment(photo, box=[10, 5, 30, 25], multimask_output=False)
    np.testing.assert_array_equal(result.masks, [filled(10, 5, 30, 25)])
    assert result.boxes.tolist() == [[10, 5, 30, 25]]
    assert result.areas.tolist() == [400]
    assert result.low_res_masks.shape == (1, 64, 64)


def test_a_click_has_three_masks_around_it_and_the_smallest_is_the_best(client: Client, photo: bytes) -> None:
    result = client.segment(photo, [(0.5, 0.5), (0, 0)], [1, 0], normalized=True)
    assert len(result.masks) == 3
    assert result.masks[:, 30, 40].all()
    assert result.best == 0 == int(np.argmin(result.areas))


def test_logits_lie_where_the_mask_is(client: Client, photo: bytes) -> None:
    logits = client.segment(photo, box=[0, 0, 40, 60], multimask_output=False).low_res_masks[0]
    assert (logits[:48, :32] > 0).all()
    assert (logits[48:] < 0).all()
    assert (logits[:, 32:] < 0).all()


def test_masks_of_the_users_own_are_returned_as_they_are(photo: bytes) -> None:
    mine = np.random.default_rng(1).random((2, HEIGHT, WIDTH)) > 0.5
    with FakeGateway(list(mine)) as gateway, Client(gateway.address) as client:
        np.testing.assert_array_equal(client.segment(photo, text="a dog").masks, mine)


def test_a_function_of_the_users_own_sees_the_prompt_in_pixels(photo: bytes) -> None:
    seen: list[tuple[Prompt, tuple[int, int]]] = []

    def masks(prompt: Prompt, size: tuple[int, int]) -> list[npt.NDArray[np.bool_]]:
        seen.append((prompt, size))
        return []

    with FakeGateway(masks) as gateway, Client(gateway.address) as client:
        assert not client.segment(photo, [(0.5, 0.5)], box=[0, 0, 0.5, 1], normalized=True).rles
    ((prompt, size),) = seen
    assert size == (HEIGHT, WIDTH)
    assert prompt.point_coords == [(40, 30)]
    assert np.asarray(prompt.box).tolist() == [0, 0, 40, 60]


def test_masks_of_another_size_than_the_image_are_said(photo: bytes) -> None:
    said = r"a mask is \(2, 2\) and the image \(60, 80\)"
    small = FakeGateway([np.ones((2, 2), dtype=bool)])
    with small as gateway, Client(gateway.address) as client, pytest.raises(ServerError, match=said):
        client.segment(photo, box=[0, 0, 1, 1])


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("prompts[0].box", "is empty"),
        ImageNotFound("gone"),
        Overloaded("busy"),
        DeadlineExceeded("slow"),
        ServerError("broken", "INTERNAL"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_scripted_failure_is_raised_once(
    gateway: FakeGateway, client: Client, photo: bytes, error: ClientError
) -> None:
    gateway.fail(error)
    with pytest.raises(type(error)) as raised:
        client.segment(photo, box=[0, 0, 9, 9])
    if isinstance(error, InvalidRequest):
        assert str(raised.value) == str(error)
    assert client.segment(photo, box=[0, 0, 9, 9]).areas[0] == 81


def test_a_failure_that_the_client_may_repeat_is_repeated(gateway: FakeGateway, client: Client, photo: bytes) -> None:
    gateway.fail(Overloaded("busy", retry_after_seconds=0.01))
    gateway.fail(Unavailable("restarting"))
    assert client.embed(photo).original_size == (HEIGHT, WIDTH)
    assert [call.rpc for call in gateway.calls] == ["EmbedImage"] * 3


def test_images_are_known_by_their_ids_until_they_are_forgotten(
    gateway: FakeGateway, client: Client, photo: bytes
) -> None:
    image_id = client.embed(photo).image_id
    assert client.segment(image_id, box=[0, 0, 9, 9]).cached
    gateway.forget_images()
    with pytest.raises(ImageNotFound):
        client.segment(image_id, box=[0, 0, 9, 9])
    assert not client.segment(photo, box=[0, 0, 9, 9]).cached


def test_a_file_that_is_not_an_image_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"image\.data: is not an image"):
        client.embed(b"no image")


def test_calls_are_recorded_with_tenant(gateway: FakeGateway, photo: bytes) -> None:
    with Client(gateway.address, tenant="me") as client:
        client.segment(photo, box=[0, 0, 9, 9])
    (call,) = gateway.calls
    assert call.rpc == "Segment"
    assert call.request.prompts[0].box.x1 == 9
    assert call.metadata["samserve-tenant"] == "me"


def test_health_is_as_it_was_set(gateway: FakeGateway, client: Client) -> None:
    assert client.healthy()
    gateway.set_serving(False)
    assert not client.healthy()


def test_the_other_unary_calls_answer(client: Client, photo: bytes) -> None:
    assert client.server_info().limits.max_prompts == 512
    assert client.get_embedding(photo).values.shape == client.server_info().embedding_shape
    edges = client.detect_edges(photo)
    assert edges.shape == (HEIGHT, WIDTH)
    assert not edges.any()


def test_masks_are_generated_of_a_grid(client: Client, photo: bytes) -> None:
    progress: list[tuple[int, int]] = []
    masks = list(client.generate_masks(photo, points_per_side=3, on_progress=lambda *at: progress.append(at)))
    assert len(masks) == 9
    assert all(mask.mask[int(mask.point[1]), int(mask.point[0])] for mask in masks)
    assert progress == [(9, 9)]


def test_a_session_is_edited_and_undone(client: Client, photo: bytes) -> None:
    with client.interactive(photo) as session:
        session.add_point(40, 30)
        assert len(session.masks().masks) == 3
        session.set_box(10, 5, 30, 25)
        boxed = session.masks()
        assert (boxed.box, boxed.undoable_edits) == ((10, 5, 30, 25), 2)
        np.testing.assert_array_equal(boxed.masks[0].mask, filled(10, 5, 30, 25))
        session.move_point(0, 1, 2)
        assert session.masks().points == [(1, 2, 1)]
        session.remove_point(0)
        session.remove_box()
        assert session.masks().masks == []
        for _ in range(4):
            session.undo()
        assert session.masks().points == [(40, 30, 1)]
        session.remove_point(7)
        with pytest.raises(InvalidRequest) as raised:
            session.masks()
        assert raised.value.field == "remove_point.index"
        session.clear()
        assert session.masks().points == []


async def test_gaze_keeps_an_object_while_it_is_looked_at(gateway: FakeGateway, photo: bytes) -> None:
    async with AsyncClient(gateway.address) as client, client.gaze() as stream:
        await stream.sample(1, 1, 1)
        await stream.frame(ImageId.of(b"another"))
        await stream.frame(photo)
        for time, (x, y, valid) in enumerate([(40, 30, True), (41, 31, True), (5, 5, True), (5, 5, False)], start=2):
            await stream.sample(time, x, y, valid)
        await stream.end()
        answers = [answer async for answer in stream]
    states = [answer.state if isinstance(answer, GazeAnswer) else answer.field for answer in answers]
    assert states == ["no_frame", "frame", "new_mask", "same_object", "new_mask", "released"]
    assert isinstance(answers[1], Refused)
    last = answers[-1]
    assert isinstance(last, GazeAnswer)
    assert (last.counts.samples, last.counts.decodes, last.object_id) == (5, 2, 2)


def test_tracked_objects_stay_where_they_were(client: Client, photo: bytes) -> None:
    frames = list(client.track([photo, photo], {4: Prompt(box=[10, 5, 30, 25])}))
    assert [frame.objects[0].state for frame in frames] == ["started", "tracked"]
    assert [frame.objects[0].mask.area for frame in frames if frame.objects[0].mask] == [400, 400]
    with pytest.raises(InvalidRequest, match="no object"):
        list(client.track([photo], {}))


def test_the_example_of_the_documentation_passes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
    (tmp_path / "test_example.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    Image.new("RGB", (100, 80)).save(tmp_path / "photo.jpg")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:locust", "test_example.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
