"""`samserve track`: folders and videos against a real gateway, and what is written of them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from pycocotools.coco import COCO

from tests.support.gateway_process import samserve

FRAMES = 12


def frame(number: int) -> Image.Image:
    """A disc that moves 6 pixels to the right with each frame."""
    image = Image.new("RGB", (320, 240), (60, 90, 60))
    ImageDraw.Draw(image).ellipse((60 + 6 * number, 80, 140 + 6 * number, 160), fill=(200, 40, 40))
    return image


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of frames without leading zeros, and what else lies in folders."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(FRAMES):
        frame(number).save(folder / f"{number}.jpg", quality=95)
    (folder / "._3.jpg").write_bytes(b"\0\5\x16\7")
    return folder


def test_frames_are_followed_in_natural_order_and_their_masks_are_written(
    gateway_address: str, frames: Path, tmp_path: Path
) -> None:
    track = ("track", frames, "--box", "60,80,140,160", "--server", gateway_address)
    outputs = ("--out", tmp_path / "o.mp4", "--coco", tmp_path / "o.json", "--masks", tmp_path / "masks")
    done = samserve(*track, *outputs)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"started 1, tracked {FRAMES - 1}" in done.stdout
    data_set: Any = COCO(str(tmp_path / "o.json"))
    assert [data_set.imgs[number + 1]["file_name"] for number in range(FRAMES)] == [f"{n}.jpg" for n in range(FRAMES)]
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == sorted(f"{n}.png" for n in range(FRAMES))
    for annotation in data_set.anns.values():
        number = annotation["image_id"] - 1
        mask = data_set.annToMask(annotation).astype(bool)
        assert (annotation["track_id"], annotation["area"]) == (1, mask.sum())
        assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()
        with Image.open(tmp_path / "masks" / f"{number}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture) == 1, mask)
        assert np.nonzero(mask)[1].mean() == pytest.approx(100 + 6 * number, abs=6)
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    assert sum(capture.read()[0] for _ in range(FRAMES + 1)) == FRAMES
    capture.release()

    assert samserve(*track, *outputs).returncode == 0  # its own files it replaces
    # Masks among the frames are no frames.
    assert samserve(*track, "--masks", frames).returncode == 0
    assert f"tracked {FRAMES - 1}" in samserve(*track).stdout
    frame(0).save(frames / "0.png")
    refused = samserve(*track, "--masks", frames)
    assert refused.returncode == 2
    assert "0.png is an input; write to another file, or add --force" in refused.stderr


def test_a_video_over_itself_is_refused_unless_it_is_forced(gateway_address: str, tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for number in range(FRAMES):
        writer.write(np.asarray(frame(number))[..., ::-1])
    writer.release()
    content = video.read_bytes()
    track = ("track", video, "--box", "60,80,140,160", "--server", gateway_address, "--out", video)
    refused = samserve(*track)
    assert (refused.returncode, video.read_bytes()) == (2, content)
    assert "v.mp4 is an input" in refused.stderr
    forced = samserve(*track, "--force")
    assert (forced.returncode, forced.stderr) == (0, "")
    capture = cv2.VideoCapture(str(video))
    assert sum(capture.read()[0] for _ in range(FRAMES + 1)) == FRAMES
    capture.release()


def test_frames_that_cannot_be_read_are_left_out_and_named(gateway_address: str, frames: Path) -> None:
    (frames / "4.jpg").write_bytes(b"no image")
    done = samserve("track", frames, "--box", "60,80,140,160", "--server", gateway_address)
    assert done.returncode == 2
    assert f"tracked {FRAMES - 2}" in done.stdout
    left_out, summary = done.stderr.splitlines()
    assert left_out.startswith(
        f"samserve: left out {frames / '4.jpg'}: the photo cannot be read: unsupported image format; "
    )
    assert summary == "samserve: 1 frames were left out; see the errors above"
