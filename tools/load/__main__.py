"""Find the capacity of a gateway with a closed loop, then load it with fixed rates below and above the capacity.

    python -m tools.load [--host HOST:PORT | --processes N] [--seconds S] [--check]

Starts a gateway of its own (ONNX Runtime) where no host is given. Prints a table and writes `report.md`,
`load.png` and every call under --output. With --check the exit status says whether all verdicts hold.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil

from samserve.cli.gateway_process import gateway_process
from samserve.client import Client
from tools.load.report import Phase, draw, read_calls, table, verdicts
from tools.load.traffic import Pictures

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
GRACE_SECONDS = 30
"""Time for requests in flight at the end of a phase, beyond the deadline of a call."""

CONNECTIONS_PER_PROCESS = 4
"""The kernel assigns connections to processes at random. With this many, nearly every process gets some."""


class Machine:
    """CPU usage of this machine between two readings, by program."""

    def __init__(self) -> None:
        self._last = self._read()

    def shares(self, generator_seconds: float, load_seconds: float) -> tuple[float, float]:
        """Cores used by the gateway under load, and by other programs, since the last reading."""
        last, self._last = self._last, self._read()
        elapsed, gateway, busy = (now - then for now, then in zip(self._last, last, strict=True))
        return gateway / load_seconds, max(0.0, busy - gateway - generator_seconds) / elapsed

    def _read(self) -> tuple[float, float, float]:
        gateway = sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))
        times = psutil.cpu_times()
        return time.monotonic(), gateway, sum(times) - times.idle - getattr(times, "iowait", 0.0)


@contextmanager
def gateway_apart(processes: int) -> Iterator[str]:
    """Run the gateway on all cores but one, which is reserved for this process and those that it starts afterwards.

    Else more load would take from the gateway what it costs to make it.
    """
    this, cores = psutil.Process(), sorted(psutil.Process().cpu_affinity())
    if len(cores) > 1:
        this.cpu_affinity(cores[:-1])
    with gateway_process("--processes", f"{processes}") as address:
        this.cpu_affinity(cores[-1:])
        try:
            yield address
        finally:
            this.cpu_affinity(cores)


def run_phase(name: str, host: str, users: Sequence[str], options: argparse.Namespace, load: float | None) -> Phase:
    """Put this load on a gateway with Locust, in a separate process."""
    record = options.output / f"{name.replace(' ', '-')}.json"
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", host, "--headless", "--only-summary"]
    command += ["--run-time", f"{options.seconds}s", "--stop-timeout", f"{options.deadline + GRACE_SECONDS:g}"]
    command += ["--exit-code-on-error", "0", "--loglevel", "WARNING", "--spawn-rate", "1000"]
    command += ["--deadline", f"{options.deadline}", "--cold-share", f"{options.cold_share}"]
    command += ["--pictures", f"{options.pictures}", "--zipf", f"{options.zipf}"]
    command += ["--gaze-streams", f"{options.gaze_streams}", "--record", str(record), *users]
    if options.gaze_streams:
        command.append("GazeUser")
    print(f"{name} ...", file=sys.stderr, flush=True)
    machine = Machine()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode or not record.is_file():
        sys.exit(f"locust failed in phase {name}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    written = json.loads(record.read_text())
    gateway, others = machine.shares(written["total_processor_seconds"], written["seconds"])
    seconds = float(options.seconds)
    generator = written["generator_processor_seconds"] / written["seconds"]
    return Phase(name, load, seconds, read_calls(written), generator, gateway, others)


def measure(host: str, options: argparse.Namespace) -> list[Phase]:
    """Fill the cache with the catalogue, measure the capacity, and load the gateway with multiples of it."""
    for _ in range(1 if options.processes == 1 else CONNECTIONS_PER_PROCESS * options.processes):
        with Client(host, timeout_seconds=120) as client:
            for picture in Pictures(options.pictures, options.zipf, 0).catalogue:
                client.embed(picture.data)
    users = ["--users", f"{options.users + options.gaze_streams}", "ClosedLoopUser"]
    closed = run_phase(f"closed loop of {options.users}", host, users, options, None)
    if not closed.goodput:
        sys.exit(f"nothing was answered in the closed loop: {dict(closed.codes)}")
    phases = [closed]
    for load in options.loads:
        users = ["--users", f"{1 + options.gaze_streams}", "--rate", f"{load * closed.goodput}", "FixedRateUser"]
        phases.append(run_phase(f"{load:g} ×", host, users, options, load))
    return phases


def main() -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(prog="python -m tools.load", description=__doc__)
    parser.add_argument("--host", help="address of a running gateway or proxy; default: start a gateway")
    parser.add_argument("--processes", type=int, default=1, help="processes of the gateway that it starts")
    parser.add_argument("--seconds", type=int, default=30, help="duration of each load")
    parser.add_argument(
        "--loads", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0], help="fixed rates, as multiples of the capacity"
    )
    parser.add_argument("--users", type=int, default=8, help="callers of the closed loop")
    parser.add_argument("--deadline", type=float, default=5.0, help="deadline of a request in seconds")
    parser.add_argument(
        "--cold-share", type=float, default=0.03, help="share of requests for an image that was never sent"
    )
    parser.add_argument("--pictures", type=int, default=100, help="number of images in the catalogue")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of Zipf's law for the popularity of images")
    parser.add_argument("--gaze-streams", type=int, default=1, help="gaze streams that run beside the requests")
    parser.add_argument("--output", type=Path, default=Path("runs/load"))
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a verdict fails")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    load_before = os.getloadavg()[0]
    with nullcontext(options.host) if options.host else gateway_apart(options.processes) as host:
        phases = measure(host, options)
    findings = verdicts(phases)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), load average {load_before:.1f} when it began"
    text = f"{table(phases)}\n\nMilliseconds are p50 / p95 / p99.\n\n" + "\n".join(f"- {each}" for each in findings)
    print(text)
    draw(phases, options.output / "load.png")
    report = (
        f"# Load\n\n`{' '.join(['python -m tools.load', *sys.argv[1:]])}`\n\n{machine}\n\n{text}\n\n![](load.png)\n"
    )
    (options.output / "report.md").write_text(report)
    print(f"\nwritten: {options.output / 'report.md'}")
    if options.check and not all(finding.holds for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
