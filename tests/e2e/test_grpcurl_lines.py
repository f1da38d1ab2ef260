"""The grpcurl commands of examples/README.md, run as documented against a real gateway."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from samserve import api
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway_process import PHOTO

README = Path(__file__).parents[2] / "examples" / "README.md"
M = TypeVar("M", bound=Message)

DOCUMENTED_ADDRESS, DOCUMENTED_PHOTO = "localhost:50051", "photo.jpg"


def documented_commands() -> list[str]:
    """Commands of the README's shell blocks that call grpcurl, with continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    commands = re.split(r"\n(?! )", "".join(block for block in blocks if "grpcurl" in block).strip())
    assert all("grpcurl" in command for command in commands)
    return commands


def run(command: str, address: str, folder: Path) -> str:
    """Run a documented command in a folder that has the photo; return its output."""
    assert DOCUMENTED_ADDRESS in command
    shutil.copy(PHOTO, folder / DOCUMENTED_PHOTO)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command.replace(DOCUMENTED_ADDRESS, address)],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(command: str, address: str, folder: Path, message: M) -> M:
    """Run a documented command and parse the JSON that it prints."""
    return json_format.Parse(run(command, address, folder), message)


def command(method: str) -> str:
    [found] = [command for command in documented_commands() if command.endswith(method)]
    return found


def test_all_documented_commands_are_tested_here() -> None:
    assert len(documented_commands()) == 4


def test_describe_lists_the_rpcs(gateway_address: str, tmp_path: Path) -> None:
    described = run(command(f"describe {api.SERVICE_NAME}"), gateway_address, tmp_path)
    assert set(re.findall(r"rpc (\w+) ", described)) == set(api.RPCS)


def test_server_info_names_the_model(gateway_address: str, tmp_path: Path) -> None:
    assert answer(command("/GetServerInfo"), gateway_address, tmp_path, pb.GetServerInfoResponse()).model


def test_health_is_serving(gateway_address: str, tmp_path: Path) -> None:
    health = answer(command("Health/Check"), gateway_address, tmp_path, health_pb2.HealthCheckResponse())
    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_segment_returns_a_mask_of_the_photo(gateway_address: str, tmp_path: Path) -> None:
    [result] = answer(command("/Segment"), gateway_address, tmp_path, pb.SegmentResponse()).results
    [mask] = result.masks
    assert (mask.coco_rle.size.height, mask.coco_rle.size.width) == (400, 600)
    assert mask.area > 0
