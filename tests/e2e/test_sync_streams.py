"""Gaze streams and interactive sessions of the synchronous client, against a gateway in a process of its own."""

import threading
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from samserve.client import Client, GazeAnswer, GazeStream, InvalidRequest, Refused, Unavailable
from samserve.domain.gaze.simulation import simulate_gaze
from tests.support.gateway_process import PHOTO


@pytest.fixture
def client(gateway_address: str) -> Iterator[Client]:
    with Client(gateway_address) as client:
        yield client


def test_a_person_looks_at_a_photo_in_one_thread_and_is_answered_in_another(client: Client) -> None:
    with Image.open(PHOTO) as photo:
        size = photo.height, photo.width
    samples = list(simulate_gaze(size, 2.0, seed=1, targets=[(300, 230), (100, 100)]))
    client.embed(PHOTO)
    received: list[GazeAnswer | Refused] = []
    refused_twice = threading.Event()
    with client.gaze(max_mask_side=200) as stream:

        def send() -> None:
            stream.frame(PHOTO)
            for number, sample in enumerate(samples):
                stream.sample(sample.timestamp_nanoseconds, sample.x, sample.y, sample.valid)
                time.sleep(0.005)
                if number == len(samples) // 2:
                    stream.frame(b"no image")
            stream.sample(samples[-1].timestamp_nanoseconds, 1.0, 1.0)
            refused_twice.wait(60)
            stream.end()

        sending = threading.Thread(target=send)
        sending.start()
        for answer in stream:
            received.append(answer)
            if sum(isinstance(item, Refused) for item in received) == 2:
                refused_twice.set()
        sending.join()
    answers = [answer for answer in received if isinstance(answer, GazeAnswer)]
    refused = {answer.field: answer for answer in received if isinstance(answer, Refused)}
    assert {field: item.sequence for field, item in refused.items()} == {
        "frame.image.data": 2,
        "sample.timestamp_nanoseconds": len(samples) + 1,
    }
    assert all(isinstance(item.error, InvalidRequest) for item in refused.values())
    masks = [answer.mask for answer in answers if answer.mask is not None]
    assert max(masks[0].mask.shape) == 200
    assert masks[0].mask.sum() == masks[0].area
    assert [answer.sequence for answer in answers] == sorted(answer.sequence for answer in answers)


def test_a_prompt_is_edited_and_refined(client: Client) -> None:
    with client.interactive(PHOTO) as session:
        session.add_point(300, 230)
        first = session.masks()
        assert (len(first.masks), first.points, first.undoable_edits) == (3, [(300, 230, 1)], 1)
        for x in range(100, 110):
            session.set_box(x, 50, 500, 350)
        boxed = session.masks()
        assert (len(boxed.masks), boxed.box, boxed.undoable_edits) == (1, (109, 50, 500, 350), 2)
        session.undo()
        assert [mask.area for mask in session.masks().masks] == [mask.area for mask in first.masks]
        session.add_point(-1, 5)
        with pytest.raises(InvalidRequest) as raised:
            session.masks()
        assert raised.value.field == "add_point.x"
        session.end()
        with pytest.raises(InvalidRequest, match="open a new one"):
            session.add_point(1, 1)


def test_a_stream_that_the_server_ended_says_why_to_who_sends(client: Client) -> None:
    with client.gaze(field_of_view_degrees=-1) as stream:
        stream.frame(PHOTO)
        with pytest.raises(InvalidRequest) as raised:
            look_away(stream)
        assert raised.value.field == "config.field_of_view_degrees"
        with pytest.raises(InvalidRequest, match="field_of_view"):
            next(stream)


def look_away(stream: GazeStream) -> None:
    """Send more than any buffer holds."""
    for number in range(1_000_000):
        stream.sample(number, 0, 0, valid=False)


def test_a_stream_that_is_left_leaves_no_thread(client: Client) -> None:
    client.server_info()
    before = set(threading.enumerate())
    for _ in range(3):
        with client.gaze() as stream:
            stream.frame(PHOTO)
            look_a_moment(stream)
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [thread for thread in set(threading.enumerate()) - before if "consume" in thread.name]


def look_a_moment(stream: GazeStream) -> None:
    stream.sample(1, 5, 5)
    assert isinstance(next(stream), GazeAnswer)


def test_what_cannot_be_sent_is_said_by_name(client: Client) -> None:
    with client.gaze() as stream, pytest.raises(InvalidRequest) as raised:
        stream.sample(1 << 63, 0, 0)
    assert raised.value.field == "timestamp_nanoseconds"
    with client.interactive(PHOTO) as session, pytest.raises(InvalidRequest) as raised:
        session.remove_point(-1)
    assert raised.value.field == "index"
    with pytest.raises(InvalidRequest) as raised:
        client.gaze(hold_seconds=float("nan"))
    assert raised.value.field == "hold_seconds"


def test_an_absent_server_is_said() -> None:
    with Client("127.0.0.1:1") as client:
        with client.gaze() as stream:
            stream.frame(PHOTO)
            with pytest.raises(Unavailable):
                next(stream)
        with client.interactive(PHOTO) as session:
            session.add_point(1, 1)
            with pytest.raises(Unavailable):
                session.masks()


def test_who_iterates_first_waits_for_the_first_message_or_the_end(client: Client) -> None:
    answers: list[GazeAnswer | Refused] = []
    with client.gaze() as stream:
        reader = threading.Thread(target=lambda: answers.extend(stream))
        reader.start()
        stream.frame(PHOTO)
        stream.sample(1, 5, 5)
        stream.end()
        reader.join(60)
    assert [answer.sequence for answer in answers] == [1]
    with client.gaze() as silent:
        reader = threading.Thread(target=lambda: answers.extend(silent))
        reader.start()
    reader.join(60)
    assert not reader.is_alive()
    assert len(answers) == 1
