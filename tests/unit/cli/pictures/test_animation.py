"""Moving pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from samserve.cli.pictures.animation import (
    Picture,
    UnreadableVideo,
    VideoFile,
    draw_gaze,
    draw_objects,
    frames_per_second,
    read_frames,
    write_animation,
)


def picture(shade: int) -> Picture:
    return np.full((60, 80, 3), shade, np.uint8)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_every_frame_is_in_the_animation(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving{suffix}"
    write_animation(path, [picture(shade) for shade in (10, 120, 240)], 10)
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
    frames = list(read_frames(path))
    np.testing.assert_allclose([pixels.mean() for _, pixels in frames], [10, 120, 240], atol=6)
    (tmp_path / "frame.jpg").write_bytes(frames[1][0])
    with Image.open(tmp_path / "frame.jpg") as image:
        assert image.size == (80, 60)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, shade in (("b.png", 200), ("a.png", 100), ("notes.txt", 0)):
        if name.endswith("txt"):
            (tmp_path / name).write_text("not a frame")
        else:
            Image.fromarray(picture(shade)).save(tmp_path / name)
    assert [pixels.mean() for _, pixels in read_frames(tmp_path)] == [100, 200]
    assert frames_per_second(tmp_path) == 25


def test_unreadable_and_unwritable_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="no images"):
        list(read_frames(tmp_path))
    (tmp_path / "broken.png").write_bytes(b"hello")
    with pytest.raises(UnreadableVideo, match="not an image"):
        list(read_frames(tmp_path))
    with pytest.raises(UnreadableVideo, match="not a video"):
        list(read_frames(tmp_path / "broken.png"))
    with pytest.raises(FileNotFoundError):
        list(read_frames(tmp_path / "absent.mp4"))
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
