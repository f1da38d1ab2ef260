"""The command as a user runs it: real processes, real gRPC, the repository's models."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.gateway_process import PHOTO, samserve


def test_the_demo_segments_cold_and_warm_leaves_a_picture_and_stops_cleanly(tmp_path: Path) -> None:
    out = tmp_path / "demo.png"
    done = samserve("demo", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    cold, warm = (line for line in done.stdout.splitlines() if line.startswith(("cold", "warm")))
    assert "newly encoded" in cold
    assert "cached in memory" in warm
    assert done.stdout.endswith("gateway stopped cleanly\n")
    with Image.open(PHOTO) as photo, Image.open(out) as picture:
        assert picture.height == photo.height
        assert picture.width > 3 * photo.width


def test_the_demo_takes_a_photo_of_the_users_own_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(PHOTO) as photo:
        photo.resize((300, 200)).save(tmp_path / "turned.jpg", exif=exif)
    done = samserve("demo", "--image", tmp_path / "turned.jpg", "--out", tmp_path / "demo.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "200 x 300, at point 100,150" in done.stdout
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.height == 300


def test_the_demo_says_when_the_point_is_outside_the_photo(tmp_path: Path) -> None:
    done = samserve("demo", "--point", "5000,20", "--out", tmp_path / "demo.png")
    assert done.returncode == 2
    assert "must be within" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_demo_says_why_its_gateway_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMSERVE_MODEL_REPOSITORY", str(tmp_path))
    done = samserve("demo", "--out", tmp_path / "demo.png")
    assert done.returncode == 2
    assert "manifest.json is missing" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("samserve: the gateway ended with exit status 2")


def test_a_gateway_of_the_commands_own_and_a_running_one_give_the_same_masks(gateway_address: str) -> None:
    def masks(*server: str) -> Any:
        done = samserve("segment", PHOTO, "--point", "300,230", "--point", "20,20,0", "--json", *server)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["masks"]

    assert masks() == masks("--server", gateway_address)


def test_a_taken_port_is_said_in_one_line(gateway_address: str) -> None:
    done = samserve("serve", "--port", gateway_address.rpartition(":")[2])
    assert done.returncode == 2
    assert f"cannot listen on {gateway_address}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["health", "metrics"])
def test_another_port_that_is_taken_is_said_by_its_name(
    gateway_address: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = gateway_address.rpartition(":")[2]
    monkeypatch.setenv(f"SAMSERVE_{kind.upper()}_PORT", port)
    done = samserve("serve", "--port", "0")
    assert done.returncode == 2
    assert f"{kind} port {port}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
