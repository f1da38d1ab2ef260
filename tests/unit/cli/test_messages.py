"""Output of the command; user errors are one line with exit code 2 and no traceback."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from samserve.cli import main
from tests.support.scripted_gateway import MASK, Failure, ScriptedGateway, running_gateway


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with running_gateway() as scripted:
        yield scripted


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """A photo of the size that the scripted gateway answers for."""
    path = tmp_path / "photo.png"
    Image.new("RGB", (8, 6), "teal").save(path)
    return str(path)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_people_read_a_table(gateway: ScriptedGateway, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", photo, "--point", "1,2", "--server", gateway.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{photo}, 8 x 6, sha256:")
    assert lines[3].split() == ["*", "1", "0.875", "0.750", "15", "2,", "1,", "7,", "4"]
    assert "cached in memory (mask decode 5.0)" in lines[-1]


def test_programs_read_json(gateway: ScriptedGateway, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", photo, "--point", "1,2", "--json", "--server", gateway.address]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["original_size"], answer["best"], len(answer["masks"])) == ([6, 8], 1, 3)
    assert answer["masks"][0]["box"] == [2, 1, 7, 4]
    np.testing.assert_array_equal(coco_mask.decode(answer["masks"][0]["rle"]).astype(bool), MASK)
    assert answer["timings"]["decode_seconds"] == pytest.approx(0.005)


def test_the_flags_reach_the_server(gateway: ScriptedGateway, photo: str) -> None:
    flags = ["--point", "0.5,0.5", "--point", "0,0,0", "--normalized", "--single", "--server", gateway.address]
    assert main(["segment", photo, *flags]) == 0
    (request,) = gateway.requests
    assert len(request.prompts[0].points) == 2
    assert not request.multimask_output


def test_an_overlay_of_one_mask_is_as_large_as_the_photo(gateway: ScriptedGateway, photo: str, tmp_path: Path) -> None:
    out = tmp_path / "overlay.png"
    assert main(["segment", photo, "--point", "1,2", "--single", "--out", str(out), "--server", gateway.address]) == 0
    with Image.open(out) as picture:
        assert picture.size == (8, 6)


def test_a_photo_that_the_server_saw_in_another_size_is_not_drawn_on(
    gateway: ScriptedGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "other.png")
    flags = ["--point", "1,2", "--out", str(tmp_path / "o.png"), "--server", gateway.address]
    assert main(["segment", str(tmp_path / "other.png"), *flags]) == 2
    assert "the photo has (9, 9)" in told(capsys)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["segment", "missing.jpg", "--point", "1,2"], "missing.jpg: No such file"),
        (["segment", __file__], "no prompt given: use --point"),
        (
            ["segment", __file__, "--box", "0,0,4,4", "--box", "4,4,8,8", "--point", "1,1"],
            "combined with one --box only",
        ),
        (
            ["segment", __file__, "--point", "1,2", "--out", "o.gif"],
            "--out o.gif: expected a name ending in .png, .jpg",
        ),
        (
            ["segment", __file__, "--point", "1,2", "--mask", "o.jpg"],
            "--mask o.jpg: expected a name ending in .png, .tif",
        ),
        (
            ["segment", __file__, "--point", "1,2", "--cutout", "o.jpg"],
            "--cutout o.jpg: expected a name ending in .png",
        ),
        (["segment", __file__, "--point", "1,2", "--image-id", "3"], "require --boxes"),
        (["segment", __file__, "--point", "1,2", "--server", "127.0.0.1:1"], "127.0.0.1:1 is unavailable"),
        (
            ["serve", "--port", "99999"],
            "--port (SAMSERVE_PORT) is '99999': Input should be less than or equal to 65",
        ),
        (["serve", "--backend", "steam"], "(SAMSERVE_BACKEND) is 'steam': Input should be 'onnxruntime' or 'triton'"),
        (["serve", "--engine", "steam"], "(SAMSERVE_ENGINE) is 'steam': Input should be 'embedded' or 'triton'"),
        (
            ["serve", "--processes", "9", "--metrics-port", "65530"],
            "is '9': 9 metrics ports from 65530 on exceed",
        ),
        (["serve", "--model-repository", "/nowhere"], "with build_engines.py"),
    ],
)
def test_user_errors_are_reported_in_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert line in told(capsys)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "COMMAND"),
        (["segment"], "IMAGE"),
        (["segment", "photo.jpg", "--point", "1"], "expected X,Y or X,Y,LABEL"),
        (["serve", "--colour", "red"], "--colour"),
    ],
)
def test_wrong_flags_are_said_in_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert line in told(capsys)


def test_a_refusal_of_the_server_is_reported_in_one_line(
    gateway: ScriptedGateway, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.failures.append(Failure(grpc.StatusCode.INTERNAL, "broken"))
    assert main(["segment", photo, "--point", "1,2", "--server", gateway.address]) == 2
    assert "INTERNAL (broken)" in told(capsys)


def test_a_password_is_not_in_the_message_of_a_wrong_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--redis-url", "redis://user:pass/word@cache:6379"]) == 2
    message = capsys.readouterr().err
    assert "--redis-url (SAMSERVE_REDIS_URL) cannot be used: must be redis://HOST:PORT" in message
    assert "word" not in message.replace("password", "")
