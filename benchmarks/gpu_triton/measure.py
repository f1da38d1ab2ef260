"""The measuring process, started by `__main__.py` with all packages importable."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_triton.carried import Unpacked
from benchmarks.gpu_triton.parts import Parts
from benchmarks.gpu_triton.records import Records, machine_facts
from benchmarks.gpu_triton.repository import MODEL_NAMES, write_repository
from benchmarks.gpu_triton.server import TritonFailed, log_tail, triton
from stack.triton_server import TritonMissing

CACHE_BYTES = 256 << 20

_START = "start of Triton"


def main(arguments: Sequence[str] | None = None) -> int:
    """Start Triton, measure and stop it. Returns the exit code."""
    parser = argparse.ArgumentParser(description="See benchmarks/gpu_triton/__main__.py.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--model", choices=MODEL_NAMES, required=True)
    parser.add_argument("--part-seconds", type=float, required=True)
    parser.add_argument("--unpacked", type=Path)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    deadline = started + options.budget
    carried = None if options.unpacked is None else Unpacked.under(options.unpacked)
    records = Records(options.out, machine_facts(options.device))
    os.environ["SAMSERVE_MEMORY_CACHE_BYTES"] = str(CACHE_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        repository = write_repository(Path(folder) / "models", options.model, options.device)
        log = options.out.with_suffix(".triton.log")
        try:
            with triton(repository.folder, log, options.device, carried, options.budget) as address:
                records.write(_START, seconds=round(time.monotonic() - started, 1), models=repository.reports())
                parts = Parts(address, repository.manifest, log, records, deadline, options.part_seconds)
                asyncio.run(parts.run(with_cuda=options.device == "cuda"))
        except (TritonFailed, TritonMissing) as error:
            print(f"gpu_triton: {error}", file=sys.stderr)
            records.failed(_START, str(error))
            return 1
        except BaseException as error:
            print(f"gpu_triton: {error!r}; Triton's log ends:\n{log_tail(log)}", file=sys.stderr)
            records.failed("the run", repr(error))
            raise
    return 0


def _end(*_: Any) -> None:
    """Exit by an exception, so that what was started is stopped."""
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
