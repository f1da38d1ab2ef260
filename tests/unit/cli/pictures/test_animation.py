"""Moving pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from samserve.cli.errors import CommandFailed
from samserve.cli.output import is_own
from samserve.cli.pictures.animation import (
    UnreadableVideo,
    VideoFile,
    draw_gaze,
    draw_objects,
    frames_per_second,
    read_frames,
    write_animation,
)
from samserve.cli.pictures.files import write_picture
from samserve.cli.pictures.photo import Picture


def picture(shade: int) -> Picture:
    return np.full((60, 80, 3), shade, np.uint8)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_every_frame_is_in_the_animation(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving{suffix}"
    write_animation(path, [picture(shade) for shade in (10, 120, 240)], 10)
    assert is_own(path)
    with Image.open(path) as animation:
        shades = [np.asarray(frame.convert("L")).mean() for frame in ImageSequence.Iterator(animation)]
    np.testing.assert_allclose(shades, [10, 120, 240], atol=6)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving{suffix}"
    video = VideoFile(path, 12)
    for shade in (10, 120, 240):
        video.write(picture(shade))
    video.close()
    assert frames_per_second(path) == pytest.approx(12)
    assert is_own(path)
    frames = list(read_frames(path, pytest.fail))
    np.testing.assert_allclose([frame.picture.mean() for frame in frames], [10, 120, 240], atol=6)
    assert [frame.name for frame in frames] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    (tmp_path / "frame.jpg").write_bytes(frames[1].data)
    with Image.open(tmp_path / "frame.jpg") as image:
        assert image.size == (80, 60)


def test_a_folder_is_read_in_natural_order_without_companions(tmp_path: Path) -> None:
    for name, shade in (("10.png", 200), ("9.png", 100), ("._9.png", 0), ("notes.txt", 0)):
        if name in ("._9.png", "notes.txt"):
            (tmp_path / name).write_text("not a frame")
        else:
            Image.fromarray(picture(shade)).save(tmp_path / name)
    write_picture(tmp_path / "8.png", Image.fromarray(picture(1)))
    frames = list(read_frames(tmp_path, pytest.fail))
    assert [(frame.name, frame.picture.mean()) for frame in frames] == [("9.png", 100), ("10.png", 200)]
    assert frames_per_second(tmp_path) == 25


def test_frames_that_cannot_be_followed_are_left_out_and_named(tmp_path: Path) -> None:
    Image.fromarray(picture(100)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"hello")
    Image.new("RGB", (5, 4)).save(tmp_path / "3.png")
    Image.fromarray(picture(200)).save(tmp_path / "4.png")
    told: list[str] = []
    assert [frame.name for frame in read_frames(tmp_path, told.append)] == ["1.png", "4.png"]
    broken, small = told
    formats = "JPEG, PNG, WEBP, GIF, BMP, TIFF"
    reason = f"the photo cannot be read: unsupported image format; expected one of {formats}"
    assert broken == f"{tmp_path / '2.png'}: {reason}"
    assert small == f"{tmp_path / '3.png'}: has 5 x 4 pixels, but the first frame has 80 x 60"


def test_a_photo_on_its_side_is_one_frame_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(100)).save(tmp_path / "1.jpg", exif=exif)
    (frame,) = read_frames(tmp_path, pytest.fail)
    assert frame.picture.shape == (80, 60, 3)


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no photos"):
        list(read_frames(tmp_path, pytest.fail))
    (tmp_path / "broken.png").write_bytes(b"hello")
    with pytest.raises(UnreadableVideo, match="no image that can be read"):
        list(read_frames(tmp_path, lambda _: None))
    with pytest.raises(UnreadableVideo, match="not a video"):
        list(read_frames(tmp_path / "broken.png", pytest.fail))
    with pytest.raises(FileNotFoundError):
        list(read_frames(tmp_path / "absent.mp4", pytest.fail))
    with pytest.raises(ValueError, match=r"\.mp4"):
        VideoFile(tmp_path / "out.mov", 25)


def test_each_object_is_tinted_in_its_own_colour_and_the_rest_is_unchanged() -> None:
    left, right = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    left[10:20, 5:15], right[10:20, 25:35] = True, True
    drawn = draw_objects(picture(100), {1: left, 2: right}, "")
    assert (drawn[30, 20] != drawn[30, 60]).any()
    assert (drawn[30, 20] != 100).any()
    assert (drawn[5, 5] == 100).all()


def test_the_gaze_marker_is_hollow_while_the_gaze_is_invalid() -> None:
    seen, unseen = picture(100), picture(100)
    draw_gaze(seen, [(20, 20), (40, 30)], seen=True)
    draw_gaze(unseen, [(20, 20), (40, 30)], seen=False)
    assert (seen[30, 40] != unseen[30, 40]).any()
    assert (seen[5, 75] == 100).all()
    draw_gaze(unseen, [], seen=True)
