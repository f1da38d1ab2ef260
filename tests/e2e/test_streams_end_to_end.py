"""Streams as a user has them: the client library against a gateway in a process of its own, and the commands."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from samserve.client import (
    AsyncClient,
    AsyncGazeStream,
    Client,
    GazeAnswer,
    ImageId,
    InvalidRequest,
    Prompt,
    Refused,
    Unavailable,
)
from samserve.domain.gaze.simulation import simulate_gaze
from tests.support.gateway_process import PHOTO, samserve


async def test_a_person_looks_at_a_photo(gateway_address: str) -> None:
    with Image.open(PHOTO) as photo:
        size = photo.height, photo.width
    samples = list(simulate_gaze(size, 2.0, seed=1, targets=[(300, 230), (100, 100)]))
    async with AsyncClient(gateway_address) as client:
        await client.embed(PHOTO)
        async with client.gaze(max_mask_side=200) as stream:

            async def send() -> None:
                await stream.frame(PHOTO)
                for sample in samples:
                    await stream.sample(sample.timestamp_nanoseconds, sample.x, sample.y, sample.valid)
                    await asyncio.sleep(0.005)
                await stream.sample(samples[-1].timestamp_nanoseconds, 1.0, 1.0)
                await stream.end()

            sending = asyncio.create_task(send())
            received = [answer async for answer in stream]
            await sending
    answers = [answer for answer in received if isinstance(answer, GazeAnswer)]
    refused = [answer for answer in received if isinstance(answer, Refused)]
    assert [(item.sequence, type(item.error)) for item in refused] == [(len(samples) + 1, InvalidRequest)]
    masks = [answer.mask for answer in answers if answer.mask is not None]
    assert masks
    assert max(masks[0].mask.shape) == 200
    assert masks[0].mask.sum() == masks[0].area
    stamps = {sample.timestamp_nanoseconds for sample in samples}
    assert {answer.timestamp_nanoseconds for answer in answers} <= stamps
    assert answers[-1].counts.samples >= len(samples)


async def test_a_prompt_is_edited_and_refined(gateway_address: str) -> None:
    async with AsyncClient(gateway_address) as client, client.interactive(PHOTO) as session:
        await session.add_point(300, 230)
        first = await session.masks()
        assert (len(first.masks), first.points, first.undoable_edits) == (3, [(300, 230, 1)], 1)
        for x in range(100, 110):
            await session.set_box(x, 50, 500, 350)
        boxed = await session.masks()
        assert (len(boxed.masks), boxed.box, boxed.undoable_edits) == (1, (109, 50, 500, 350), 2)
        await session.undo()
        undone = await session.masks()
        assert [mask.area for mask in undone.masks] == [mask.area for mask in first.masks]
        await session.add_point(-1, 5)
        with pytest.raises(InvalidRequest) as raised:
            await session.masks()
        assert raised.value.field == "add_point.x"


def frames(count: int) -> list[bytes]:
    files = []
    with Image.open(PHOTO) as photo:
        for index in range(count):
            file = io.BytesIO()
            photo.crop((4 * index, 0, photo.width - 40 + 4 * index, photo.height)).save(file, "JPEG")
            files.append(file.getvalue())
    return files


async def test_an_object_is_tracked_alike_by_both_clients(gateway_address: str) -> None:
    prompts = {5: Prompt(box=[180, 120, 420, 330])}

    async def live() -> AsyncIterator[bytes]:
        for frame in frames(3):
            yield frame

    with Client(gateway_address) as client:
        known = list(client.track(frames(3), prompts))
    async with AsyncClient(gateway_address) as asking:
        seen = [frame async for frame in asking.track(live(), prompts)]
    assert [frame.sequence for frame in known] == [1, 2, 3]
    assert [frame.objects[0].state for frame in known] == ["started", "tracked", "tracked"]
    for first, second in zip(known, seen, strict=True):
        assert [(o.object_id, o.state) for o in first.objects] == [(o.object_id, o.state) for o in second.objects]
        masks = first.objects[0].mask, second.objects[0].mask
        assert (masks[0] is None) == (masks[1] is None)
        if masks[0] is not None and masks[1] is not None:
            np.testing.assert_array_equal(masks[0].mask, masks[1].mask)


async def test_refused_frames_are_said(gateway_address: str) -> None:
    with Client(gateway_address) as client, pytest.raises(InvalidRequest, match="no object"):
        list(client.track(frames(1), {}))


async def test_an_absent_server_is_said() -> None:
    async with AsyncClient("127.0.0.1:1") as client, client.gaze() as stream:
        with pytest.raises(Unavailable):
            await look(stream)


async def look(stream: AsyncGazeStream) -> None:
    await stream.frame(ImageId.of(b"any"))
    async for _ in stream:
        pass


def test_the_gaze_command_writes_an_animation(gateway_address: str, tmp_path: Path) -> None:
    out = tmp_path / "gaze.gif"
    done = samserve("gaze", PHOTO, "--seconds", "2", "--target", "300,230", "--out", out, "--server", gateway_address)
    assert (done.returncode, done.stderr) == (0, "")
    assert "240 samples" in done.stdout
    with Image.open(out) as animation:
        assert 20 < sum(1 for _ in ImageSequence.Iterator(animation)) <= 30


def test_the_track_command_reads_a_folder_and_its_own_video(gateway_address: str, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, data in enumerate(frames(4)):
        (folder / f"{index:02d}.jpg").write_bytes(data)
    flags = ("--box", "180,120,420,330", "--server", gateway_address)
    done = samserve("track", folder, *flags, "--out", tmp_path / "out.mp4")
    assert (done.returncode, done.stderr) == (0, "")
    assert len([line for line in done.stdout.splitlines() if " ms " in line]) == 4
    again = samserve("track", tmp_path / "out.mp4", *flags)
    assert (again.returncode, again.stderr) == (0, "")
    assert len([line for line in again.stdout.splitlines() if " ms " in line]) == 4


def test_what_the_commands_cannot_do_is_said_in_one_line(gateway_address: str, tmp_path: Path) -> None:
    wrong: list[tuple[str | Path, ...]] = [
        ("gaze", PHOTO, "--out", tmp_path / "gaze.mov"),
        ("gaze", PHOTO, "--rate", "0"),
        ("track", tmp_path, "--point", "1,1"),
        ("track", PHOTO.with_suffix(".txt"), "--point", "1,1"),
        ("track", Path(__file__), "--point", "1,1"),
        ("track", tmp_path),
        ("track", tmp_path, "--point", "1,1", "--out", tmp_path / "out.mov"),
    ]
    for arguments in wrong:
        done = samserve(*arguments, "--server", gateway_address)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
