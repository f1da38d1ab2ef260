"""`samserve demo`: a real gateway in a process of its own, asked twice through gRPC: cold, and knowing the photo."""

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from samserve.cli import prompt, report
from samserve.cli.errors import CommandFailed
from samserve.cli.prompt import PromptFlags
from samserve.client import Client, Segmentation, ServerError, Unavailable

_PHOTO = Path(__file__).resolve().parents[3] / "docs" / "photos" / "coffee.jpg"
_PHOTO_PROMPT = PromptFlags(points=((300.0, 230.0, 1),))
_CENTRE = PromptFlags(points=((0.5, 0.5, 1),), normalized=True)

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.1
_LOG_LINES = 20


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "demo",
        help="start a gateway, segment a photo, stop it",
        description="Start a gateway, segment a photo through gRPC cold and warm, write a picture, stop it.",
    )
    parser.add_argument("--image", type=Path, metavar="PHOTO", help="your photo; without, a bundled one")
    parser.add_argument(
        "--point", type=prompt.point, metavar="X,Y", help="a point on the object; the centre by default"
    )
    parser.add_argument("--out", type=Path, default=Path("demo.png"), metavar="OVERLAY.png", help="default: demo.png")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the demo and print how it went.

    Raises:
        CommandFailed: the gateway did not start, or did not stop cleanly.
        ClientError, OSError: it could not be asked, or a file cannot be read or written.
    """
    photo, flags = _photo_and_prompt(arguments)
    data = photo.read_bytes()
    with _running_gateway() as client:
        info = client.server_info()
        print(f"model {info.model}, {info.precision}, {info.engine} engine")
        cold, warm = _segment(client, data, flags), _segment(client, data, flags)
        height, width = warm.original_size
        x, y, _ = flags.marks(warm.original_size).points[0]
        print(f"{photo}, {width} x {height}, at point {x:g},{y:g}")
        print(report.table(warm))
        for name, result in (("cold", cold), ("warm", warm)):
            print(f"{name} {report.timing(result.timings, result.embedding_source)}")
        report.write_overlay(arguments.out, data, warm, flags)
        print(f"wrote {arguments.out}")


def _photo_and_prompt(arguments: argparse.Namespace) -> tuple[Path, PromptFlags]:
    default = _PHOTO_PROMPT if arguments.image is None else _CENTRE
    flags = default if arguments.point is None else PromptFlags(points=(arguments.point,))
    return arguments.image or _PHOTO, flags


def _segment(client: Client, photo: bytes, flags: PromptFlags) -> Segmentation:
    return client.segment(photo, flags.point_coords, flags.point_labels, normalized=flags.normalized)


@contextmanager
def _running_gateway() -> Iterator[Client]:
    address = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "samserve", "serve", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
    with tempfile.TemporaryFile("w+") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            with Client(address) as client:
                _await_serving(process, client, started + _START_SECONDS)
                print(f"gateway serving on {address} after {time.monotonic() - started:.1f} s")
                yield client
            process.send_signal(signal.SIGTERM)
            code = process.wait(_STOP_SECONDS)
            if code != 0:
                raise CommandFailed(f"the gateway ended with exit code {code} instead of 0")
            print("gateway stopped cleanly")
        except subprocess.TimeoutExpired:
            _show(log)
            raise CommandFailed(f"the gateway did not stop within {_STOP_SECONDS:g} s of SIGTERM") from None
        except (CommandFailed, ServerError, Unavailable):
            _show(log)
            raise
        finally:
            process.kill()
            process.wait()


def _await_serving(process: "subprocess.Popen[bytes]", client: Client, deadline: float) -> None:
    while not client.healthy():
        if process.poll() is not None:
            raise CommandFailed(f"the gateway ended with exit code {process.returncode} before it served; see above")
        if time.monotonic() > deadline:
            raise CommandFailed(f"the gateway was not ready within {_START_SECONDS:g} s; see above")
        time.sleep(_POLL_SECONDS)


def _show(log: IO[str]) -> None:
    log.seek(0)
    sys.stderr.writelines(f"gateway: {line.rstrip()}\n" for line in log.readlines()[-_LOG_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
