"""The report of a load test: a table, verdicts and a plot."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

SHED = "RESOURCE_EXHAUSTED"
OURS = ("INTERNAL", "UNKNOWN")
MIN_GOODPUT_SHARE = 0.9
"""Required goodput beyond the capacity, as a share of the peak."""
MAX_LOST_SHARE = 0.01
"""Required share of `SHED` among the calls beyond the capacity that were not answered in time."""

SEGMENT_KINDS = ("warm", "cold")
KINDS = (*SEGMENT_KINDS, "gaze")


@dataclass(frozen=True)
class Call:
    """One call, or one gaze answer, as recorded by `locustfile.Recording`; times in seconds."""

    kind: str
    due: float
    late: float
    seconds: float
    code: str


@dataclass(frozen=True)
class Phase:
    """One load.

    Attributes:
        name: for the table.
        load: multiple of the capacity; None for the closed loop.
        seconds: for which requests were sent.
        calls: all of them.
        generator_share: processor time of the load generator, in cores.
        gateway_share: the gateway's likewise, where it runs here.
        others_share: what else ran on the machine.
    """

    name: str
    load: float | None
    seconds: float
    calls: Sequence[Call]
    generator_share: float
    gateway_share: float
    others_share: float

    @property
    def segment(self) -> list[Call]:
        """The calls of `Segment`."""
        return [call for call in self.calls if call.kind in SEGMENT_KINDS]

    @property
    def offered(self) -> float:
        """Requests per second."""
        return len(self.segment) / self.seconds

    @property
    def codes(self) -> Counter[str]:
        """Number of `Segment` calls by status code."""
        return Counter(call.code for call in self.segment)

    @property
    def goodput(self) -> float:
        """Requests per second that were answered within the callers' deadline."""
        return self.codes["OK"] / self.seconds

    def latencies(self, kind: str, code: str = "OK") -> list[float]:
        """Seconds from the due time of each request to its answer."""
        return [call.seconds for call in self.calls if call.kind == kind and call.code == code]

    @property
    def refusals(self) -> list[float]:
        """Seconds from sending a request to its rejection for load."""
        return [call.seconds for call in self.segment if call.code == SHED]


@dataclass(frozen=True)
class Verdict:
    """A claim, and whether it held."""

    claim: str
    holds: bool
    found: str

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'FAILS'}: {self.claim} ({self.found})"


def verdicts(phases: Sequence[Phase]) -> list[Verdict]:
    """The claims that must hold for a gateway under overload."""
    fixed = [phase for phase in phases if phase.load is not None]
    peak = max(phase.goodput for phase in fixed)
    past = [phase for phase in fixed if phase.load is not None and phase.load > 1]
    claims = []
    for phase in past:
        share = phase.goodput / peak if peak else 0.0
        claim = f"at {phase.load:g} times the capacity goodput is at least {MIN_GOODPUT_SHARE:.0%} of its peak"
        claims.append(Verdict(claim, share >= MIN_GOODPUT_SHARE, f"{share:.0%}"))
        lost = Counter(phase.codes)
        total = lost.total()
        answered, shed = lost.pop("OK", 0), lost.pop(SHED, 0)
        claim = f"at {phase.load:g} times the capacity the rest is rejected with {SHED}"
        rest = ", ".join(f"{count} {code}" for code, count in lost.items()) or "nothing else"
        found = f"{answered} answered, {shed} rejected, {rest}"
        claims.append(Verdict(claim, lost.total() <= MAX_LOST_SHARE * total and shed > 0, found))
    faults = Counter(call.code for phase in phases for call in phase.calls if call.code in OURS)
    found = ", ".join(f"{count} {code}" for code, count in faults.items()) or "none"
    claims.append(Verdict(f"nothing is {' or '.join(OURS)}", not faults, found))
    return claims


def table(phases: Sequence[Phase]) -> str:
    """Render a Markdown table. Latencies of answered requests are p50 / p95 / p99 in milliseconds."""
    lines = [
        "| load | offered/s | goodput/s | rejected | other | warm | cold | gaze | rejections"
        " | sent late, p99 | cores: gateway, generator, others |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for phase in phases:
        codes = Counter(phase.codes)
        total = max(1, codes.total())
        codes.pop("OK", None)
        refused = codes.pop(SHED, 0)
        cells = [phase.name, f"{phase.offered:.1f}", f"{phase.goodput:.1f}", f"{refused / total:.0%}"]
        cells.append(", ".join(f"{count} {code}" for code, count in codes.items()) or "-")
        cells += [_quantiles(phase.latencies(kind)) for kind in KINDS]
        cells += [_quantiles(phase.refusals), _milliseconds([call.late for call in phase.segment], 99)]
        cells.append(f"{phase.gateway_share:.2f}, {phase.generator_share:.2f}, {phase.others_share:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _quantiles(seconds: Sequence[float]) -> str:
    return " / ".join(_milliseconds(seconds, share) for share in (50, 95, 99)) if seconds else "-"


def _milliseconds(seconds: Sequence[float], percent: float) -> str:
    return f"{1000 * np.percentile(seconds, percent):.0f}" if seconds else "-"


def draw(phases: Sequence[Phase], path: Path) -> None:
    """Draw goodput and latency against the load, and both over time."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    fixed = [phase for phase in phases if phase.load is not None]
    _draw_goodput(axes[0][0], fixed)
    _draw_latency(axes[0][1], fixed)
    _draw_time(axes[1][0], axes[1][1], fixed)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_goodput(axes: Axes, phases: Sequence[Phase]) -> None:
    places = np.arange(len(phases))
    good = np.array([phase.goodput for phase in phases])
    shed = np.array([phase.codes[SHED] / phase.seconds for phase in phases])
    rest = np.array([phase.offered for phase in phases]) - good - shed
    axes.bar(places, good, color="tab:green", label="answered in time")
    axes.bar(places, shed, bottom=good, color="tab:orange", label=f"rejected ({SHED})")
    axes.bar(places, rest, bottom=good + shed, color="tab:red", label="anything else")
    axes.axhline(MIN_GOODPUT_SHARE * good.max(), color="black", linestyle=":", label="90 % of the peak")
    axes.set_xticks(places, [phase.name for phase in phases])
    axes.set(title="What became of the requests", xlabel="arrivals, multiples of the capacity", ylabel="requests/s")
    axes.legend(loc="upper left")


def _draw_latency(axes: Axes, phases: Sequence[Phase]) -> None:
    places = np.arange(len(phases))
    series: dict[str, list[list[float]]] = {kind: [phase.latencies(kind) for phase in phases] for kind in KINDS}
    series["rejections"] = [phase.refusals for phase in phases]
    for (name, values), colour in zip(
        series.items(), ("tab:blue", "tab:purple", "tab:cyan", "tab:orange"), strict=True
    ):
        for percent, style in ((50, "--"), (99, "-")):
            line = [1000 * float(np.percentile(each, percent)) if each else np.nan for each in values]
            label = f"{name} p{percent}"
            axes.plot(places, line, style, color=colour, marker="o", markersize=3, label=label)
    axes.set_yscale("log")
    axes.set_xticks(places, [phase.name for phase in phases])
    axes.set(title="Latency from when it was due", xlabel="arrivals, multiples of the capacity", ylabel="ms")
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize=7, ncols=2)


def _draw_time(rates: Axes, latencies: Axes, phases: Sequence[Phase]) -> None:
    for phase, colour in zip(phases, plt.colormaps["viridis"](np.linspace(0, 0.9, len(phases))), strict=True):
        bins = np.arange(0, phase.seconds + 1)
        answered = [call for call in phase.segment if call.code == "OK"]
        ended = np.histogram([call.due + call.seconds for call in answered], bins)[0]
        rates.plot(bins[:-1] + 0.5, ended, color=colour, label=phase.name)
        slots = np.digitize([call.due for call in answered], bins)
        p99 = [
            1000 * np.percentile([call.seconds for call, at in zip(answered, slots, strict=True) if at == slot], 99)
            if (slots == slot).any()
            else np.nan
            for slot in range(1, len(bins))
        ]
        latencies.plot(bins[:-1] + 0.5, p99, color=colour, label=phase.name)
    rates.set(title="Answers over time", xlabel="s", ylabel="answered requests/s", ylim=(0, None))
    latencies.set(title="p99 of the answered, over time", xlabel="s, when they were due", ylabel="ms", ylim=(0, None))
    rates.legend()
    latencies.legend()


def read_calls(record: dict[str, Any]) -> list[Call]:
    """Read the calls from a file that `locustfile` wrote."""
    return [Call(*call) for call in record["calls"]]
