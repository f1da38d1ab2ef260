"""Every example runs as its first lines say, against one real gateway."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.support.gateway_process import PHOTO

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    """Boxes of a detector on the photo."""
    path = tmp_path / "detections.json"
    boxes = [[180, 20, 300, 330], [40, 250, 120, 90]]
    path.write_text(json.dumps([{"bbox": box, "category_id": 47, "score": 0.5} for box in boxes]))
    return path


def example(name: str, server: str, folder: Path, *arguments: str | Path, image: Path = PHOTO) -> str:
    """What the example prints."""
    command = [sys.executable, str(EXAMPLES / name), str(image), "--server", server, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("segment.py", ["--point", "300,230"], ["mask 0: IoU", "mask 2: IoU", "to mask.png"]),
        ("refine.py", ["--object", "0.5,0.57"], ["first:   IoU", "cached: True"]),
        ("batch.py", ["--in-flight", "2"], ["coffee.jpg: areas ["]),
        ("generate.py", ["--points-per-side", "4"], ["16 of 16 points", "masks to everything.png"]),
        ("gaze.py", [], ["new_mask, object 1", "60 samples"]),
        ("interactive.py", [], ["click: 1 points", "box: 2 points, box (", "undo: 2 points, box None"]),
        ("track.py", [], ["frame 1: object 1 started", "frame 3: object 1 tracked"]),
    ],
)
def test_an_example_runs(
    gateway_address: str, tmp_path: Path, name: str, arguments: Sequence[str], said: Sequence[str]
) -> None:
    output = example(name, gateway_address, tmp_path, *arguments)
    assert [line for line in said if line not in output] == []


def test_the_mask_that_is_saved_is_as_large_as_the_photo(gateway_address: str, tmp_path: Path) -> None:
    example("segment.py", gateway_address, tmp_path, "--out", "found.png")
    with Image.open(tmp_path / "found.png") as mask, Image.open(PHOTO) as photo:
        assert mask.size == photo.size
        assert mask.getextrema() == (0, 255)


def test_a_folder_of_frames_is_tracked(gateway_address: str, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    with Image.open(PHOTO) as photo:
        for number in range(2):
            photo.crop((4 * number, 0, photo.width - 4 + 4 * number, photo.height)).save(frames / f"{number}.jpg")
    output = example("track.py", gateway_address, tmp_path, image=frames)
    assert "frame 2: object 1 tracked" in output


def test_boxes_become_coco_results(gateway_address: str, tmp_path: Path, detections: Path) -> None:
    example("boxes_to_coco.py", gateway_address, tmp_path, "--boxes", detections, "--out", "segmented.json")
    results = json.loads((tmp_path / "segmented.json").read_text())
    assert [(result["category_id"], result["score"]) for result in results] == [(47, 0.5)] * 2
    assert all(result["segmentation"]["size"] == [400, 600] for result in results)


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="Node.js or npm is missing")
def test_node_segments_by_the_proto_alone(gateway_address: str, tmp_path: Path) -> None:
    # A copy, so that the packages do not land in the checkout.
    folder = tmp_path / "examples" / "node"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "protos").symlink_to(EXAMPLES.parent / "protos")
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    subprocess.run(npm, cwd=folder, capture_output=True, timeout=240, check=True)
    command = ["node", "segment.js", str(PHOTO), gateway_address, "300,230"]
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "600 x 400" in done.stdout
    assert done.stdout.count("mask ") == 3


def test_every_example_is_run_here() -> None:
    names = {file.name for file in EXAMPLES.glob("*.py")}
    text = Path(__file__).read_text()
    assert {name for name in names if f'"{name}"' not in text} == set()
