"""Measure SAM's encoder and decoder on a GPU in stages, within a time budget in seconds.

    python -m benchmarks.gpu --budget 400 --out figures.jsonl
    python -m benchmarks.gpu --budget 120 --out figures.jsonl --device cpu --model tiny    only checks that it runs

Every figure is one JSON line, written at once. docs/gpu.md says what each decides.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import MODEL_NAMES, STAGES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 if the device is not available."""
    started = time.monotonic()
    options = _options(arguments)
    if options.device == "cpu":
        # Triton reads this variable on import to choose between compiling and interpreting kernels.
        os.environ["TRITON_INTERPRET"] = "1"
    # Import the modules of all stages once, before their processes are forked.
    from benchmarks.gpu import parity, profile  # noqa: F401
    from benchmarks.gpu.figures import FigureFile, describe
    from benchmarks.gpu.stages import run_stages

    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            common: dict[str, Any] = pool.apply(describe, (options.device,))
        except (RuntimeError, AssertionError) as error:
            print(f"benchmarks.gpu: PyTorch cannot use a GPU here: {error}", file=sys.stderr)
            return 2
    file = FigureFile(options.out, {"model": options.model, **common})
    chosen = [stage for stage in STAGES if stage.name in options.stages]
    budget = options.budget - (time.monotonic() - started)
    file.write({"event": "started", "budget_seconds": options.budget, "stages": [stage.name for stage in chosen]})
    run_stages(chosen, file, budget, {"device": options.device, "model": options.model, "seed": options.seed})
    file.write({"event": "ended", "seconds": round(time.monotonic() - started, 1)})
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, required=True, metavar="SECONDS", help="for everything")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="lines are appended to it")
    parser.add_argument(
        "--stages", type=_names, default=names, metavar="A,B", help=f"some of {', '.join(names)}; all by default"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", choices=MODEL_NAMES, default="vit_h", help="tiny: the bundled model's frame")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():
        parser.error(f"--out {options.out}: the folder {options.out.parent} does not exist; create it first")
    if options.budget <= 0:
        parser.error(f"--budget {options.budget:g} is not above 0; give it seconds, 400 for all stages")
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - {stage.name for stage in STAGES}
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown stages: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    sys.exit(main())
