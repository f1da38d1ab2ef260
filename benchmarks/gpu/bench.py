"""The context of one stage: device, model, remaining time, and the file of figures."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.figures import FigureFile
from benchmarks.gpu.timing import SECONDS, Task, Timing, measure

Make = Callable[[], Task]
"""Sets up a task and returns it: weights, inputs, compilation. Setting up is not timed. If it raises, the figure
failed."""


@dataclass
class Bench:
    """Device, model, deadline and output file of one stage.

    Attributes:
        stage: its name, in every line.
        device: "cuda" or "cpu".
        model: a name that `models.shapes_of` knows.
        seed: of random weights.
        deadline: by `time.monotonic()`; what would begin after it is skipped.
    """

    stage: str
    device: str
    model: str
    seed: int
    deadline: float
    file: FigureFile

    @property
    def on_gpu(self) -> bool:
        """True on a GPU. On a CPU the run only checks that the code works."""
        return self.device == "cuda"

    def time(
        self,
        name: str,
        make: Make,
        *,
        shapes: Mapping[str, Any],
        precision: str,
        work: Mapping[str, float] | None = None,
        seconds: float = SECONDS,
        **more: Any,
    ) -> Timing | None:
        """Measure one figure and write its line. Returns None, after writing a line, if it was skipped or failed.

        Args:
            name: of the figure, unique in its stage together with `shapes` and `precision`.
            make: sets the task up.
            shapes: what distinguishes figures of one name.
            precision: in which the task computes.
            work: what one run does, by unit: `{"images": 4}` gives `images_per_s`. "flop" gives `tflops`, "bytes"
                gives `gb_per_s`.
            more: further fields of the line.
        """
        about = {"name": name, "shapes": dict(shapes), "precision": precision}

        def timed() -> Timing:
            timing = measure(make(), self.device, seconds)
            rates = dict(_rates(work or {}, timing.median_ms))
            self.write({**about, **_rounded(timing._asdict()), **_rounded(rates), **more})
            return timing

        timing: Timing | None = self.attempt(about, timed)
        return timing

    def attempt(self, about: Mapping[str, Any], part: Callable[[], Any]) -> Any:
        """Run one part of a stage in inference mode. If it fails, or if too little time is left, write a line with the
        reason.

        Compiled code is made for tensors of inference mode or for others, not for both, so inputs are made in it too.
        """
        if time.monotonic() > self.deadline:
            self.write({**about, "skipped": "no time is left for this stage"})
            return None
        try:
            with torch.inference_mode():
                return part()
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
            self.write({**about, "failed": f"{type(error).__name__}: {str(error)[:300]} ({where})"})
            return None

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line that is not a timing."""
        self.file.write({"stage": self.stage, **line})


def _rates(work: Mapping[str, float], milliseconds: float) -> list[tuple[str, float]]:
    names = {"flop": ("tflops", 1e-12), "bytes": ("gb_per_s", 1e-9)}
    per_second = {unit: amount / milliseconds * 1e3 for unit, amount in work.items()}
    return [
        (names[unit][0], rate * names[unit][1]) if unit in names else (f"{unit}_per_s", rate)
        for unit, rate in per_second.items()
    ]


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in values.items()}
