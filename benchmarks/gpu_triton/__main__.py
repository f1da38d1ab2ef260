"""Benchmark the gateway with a real Triton on a GPU, end to end, with a time limit.

    python -m benchmarks.gpu_triton --out FILE.jsonl --budget SECONDS [--device cuda|cpu] [--model vit_h|tiny]

Triton's Python backend runs the models with PyTorch and random weights. The benchmark measures a warm `Segment` over
gRPC and with system shared memory, Triton without the gateway and with the embedding in CUDA shared memory, 16
concurrent callers, and new images. Each figure is appended to FILE as a line of JSON at once; Triton's log is written
next to it. If packages are missing, `python -m benchmarks.gpu_triton_carry` collects them on another machine in the
folder `.carry/`, which is used if it exists.

This process imports only the standard library. It stops everything that it started, also when the time is up.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_triton.carried import CarryInvalid, unpack
from benchmarks.gpu_triton.session import ProcessSession

CARRIED_PYTHON = (3, 12)
STOP_SECONDS = 15.0
"""Part of the budget reserved for stopping what was started."""
LINE_CHARACTERS = 300

_FACTS = ("stage", "name", "device", "driver", "versions", "date")


def main(arguments: Sequence[str] | None = None) -> int:
    """Unpack, measure in a separate process, clean up and print a table. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description="The gateway and Triton on a GPU, end to end.", epilog="python -m benchmarks.gpu_triton --help"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to which JSON lines are appended")
    parser.add_argument("--budget", type=float, required=True, help="time limit of the whole run in seconds")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", choices=("vit_h", "vit_l", "vit_b", "tiny"), default="vit_h")
    parser.add_argument("--carry", type=Path, default=Path(".carry"), help="folder of the collected packages")
    parser.add_argument("--part-seconds", type=float, default=8.0, help="seconds of timed calls per part")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.budget
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.touch()
    already = len(options.out.read_text().splitlines())
    with tempfile.TemporaryDirectory() as folder:
        try:
            flags, environment = _prepare(options.carry, Path(folder))
        except CarryInvalid as error:
            print(f"gpu_triton: {error}", file=sys.stderr)
            _append(options.out, "carried packages", str(error))
            return 2
        command = [sys.executable, "-m", "benchmarks.gpu_triton.measure", *flags]
        command += ["--out", str(options.out), "--device", options.device, "--model", options.model]
        command += ["--part-seconds", str(options.part_seconds)]
        command += ["--budget", str(max(0.0, deadline - time.monotonic() - STOP_SECONDS))]
        with ProcessSession(command, environment) as session:
            code = session.wait(deadline - STOP_SECONDS)
        if code is None:
            _append(options.out, "the run", f"it was not over after {options.budget:g} s and was ended")
    print(table([json.loads(line) for line in options.out.read_text().splitlines()[already:]]))
    return 1 if code is None else code


def _prepare(carry: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Command-line flags and environment of the measuring process."""
    if not carry.is_dir():
        return [], dict(os.environ)
    if sys.version_info[:2] != CARRIED_PYTHON:
        raise CarryInvalid(f"the packages in {carry} are for Python 3.12; choose another folder with --carry")
    unpacked = unpack(carry, folder)
    path = [str(unpacked.site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return ["--unpacked", str(folder)], {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def _append(out: Path, name: str, failure: str) -> None:
    with out.open("a") as file:
        file.write(json.dumps({"stage": "triton", "name": name, "failed": failure}) + "\n")


def table(records: Sequence[dict[str, Any]]) -> str:
    """Format one short line per record."""
    lines = []
    for record in records:
        if "median_ms" in record:
            text = f"{record['median_ms']:.2f} ms ({record['q1_ms']:.2f} to {record['q3_ms']:.2f})"
            if "requests_per_second" in record:
                text += f", {record['requests_per_second']:.1f} requests/s"
        else:
            text = json.dumps({key: value for key, value in record.items() if key not in _FACTS})[:LINE_CHARACTERS]
        lines.append(f"{record['name']}: {text}")
    return "\n".join(lines)


def _end(*_: Any) -> None:
    """Exit by an exception, so that what was started is stopped."""
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
