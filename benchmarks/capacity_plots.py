"""Plots of `docs/capacity.md`."""

from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.capacity import Costs, Demand, che_hit_rate, lru_hit_rate, plan, zipf_bins

_SIMULATED = 100_000
_REQUESTS = 1_000_000
_MACHINES = ("gateway machines", "encoder GPUs", "decoder GPUs", "Redis shards, memory", "Redis shards, network")


def draw_hits(path: Path) -> None:
    """Hit rate against the share of the catalogue that is cached: Che's approximation, and a simulated LRU."""
    figure, axes = plt.subplots(figsize=(8.5, 4), layout="constrained")
    shares = np.geomspace(1e-4, 1, 60)
    for exponent, colour in ((0.6, "tab:blue"), (0.8, "tab:orange"), (1.0, "tab:green"), (1.2, "tab:red")):
        for catalogue, style in ((_SIMULATED, "-"), (1e9, ":")):
            popularity = zipf_bins(catalogue, exponent)
            rates = [che_hit_rate(share * catalogue, *popularity) for share in shares]
            axes.plot(100 * shares, rates, style, color=colour, label=f"exponent {exponent}, {catalogue:.0e} images")
        weights = np.arange(1, _SIMULATED + 1, dtype=np.float64) ** -exponent
        rng = np.random.default_rng(0)
        keys = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(_REQUESTS)).tolist()
        for share in (0.001, 0.01, 0.1, 0.5):
            rate = lru_hit_rate(round(share * _SIMULATED), iter(keys), _REQUESTS // 2)
            axes.plot(100 * share, rate, "o", color=colour, markersize=4)
    axes.set_xscale("log")
    axes.set(xlabel="cached, % of the catalogue", ylabel="hit rate", ylim=(0, 1))
    axes.set_title("LRU under Zipf: Che's approximation (lines), simulated (dots)", fontsize=10)
    axes.grid(alpha=0.2)
    figure.legend(fontsize=7, loc="outside right center")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_machines(path: Path, demand: Demand, costs: Costs) -> None:
    """Number of machines against images per day."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    days = np.geomspace(1e4, 1e9, 26)
    plans = [plan(replace(demand, images_per_day=each, catalogue=0, gaze_streams=0), costs) for each in days]
    for name in _MACHINES:
        axes.loglog(days, [each.count(name) for each in plans], label=name)
    axes.set(xlabel="images a day", ylabel="needed at the peak")
    axes.set_title(f"{demand.prompts_per_image:g} prompts an image, {demand.cached_share:.0%} cached", fontsize=10)
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)
