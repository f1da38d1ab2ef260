"""The stages of a run: their purpose, their time limits, and running each in a separate process."""

import importlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figures import FigureFile
from benchmarks.gpu.plan import Stage

GRACE_SECONDS = 20.0
"""Grace period when a stage's time is up. A compilation cannot be interrupted, only killed."""


def run_stages(stages: Iterable[Stage], file: FigureFile, budget: float, bench: dict[str, Any]) -> None:
    """Run stages one after the other, each in its own process.

    A process keeps a stage's end, however it comes, from ending the run: an exception, a GPU error that no call of that
    process survives, memory that runs out, or a time limit. It is forked, so that imports are paid for once; nothing
    here may initialise CUDA.

    Args:
        stages: in their order.
        file: of figures.
        budget: seconds for all of them.
        bench: `device`, `model` and `seed`.
    """
    end = time.monotonic() + budget
    for stage in stages:
        left = end - time.monotonic()
        if left < stage.least_seconds:
            reason = f"{left:.0f} s are left, and it needs {stage.least_seconds:.0f}"
            file.write({"stage": stage.name, "event": "skipped", "reason": reason})
            continue
        seconds = min(stage.most_seconds, left)
        started = time.monotonic()
        outcome = _run_apart(stage.name, file, seconds, min(seconds + GRACE_SECONDS, left), bench)
        took = round(time.monotonic() - started, 1)
        file.write({"stage": stage.name, "event": outcome, "seconds": took})


def _run_apart(name: str, file: FigureFile, seconds: float, limit: float, bench: dict[str, Any]) -> str:
    process = multiprocessing.get_context("fork").Process(target=_child, args=(name, file, seconds, bench))
    process.start()
    process.join(limit)
    assert process.pid is not None
    if process.is_alive():
        _kill_group(process.pid)
        process.join()
        return f"stopped after {limit:.0f} s"
    # Also kills the processes that the stage started, such as compiler workers.
    _kill_group(process.pid)
    return "finished" if process.exitcode == 0 else f"ended with exit code {process.exitcode}"


def _child(name: str, file: FigureFile, seconds: float, bench: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    try:
        if bench["device"] == "cpu":
            # On a shared machine, several threads wait for each other longer than they compute.
            torch.set_num_threads(1)
        stage: Any = importlib.import_module(f"benchmarks.gpu.{name}")
        stage.run(Bench(stage=name, deadline=time.monotonic() + seconds, file=file, **bench))
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))[-1500:]
        file.write({"stage": name, "failed": f"{type(error).__name__}: {str(error)[:300]}", "trace": trace})
        os._exit(1)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
