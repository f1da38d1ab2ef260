"""The charts of `docs/benchmarks.md`: images per second by formulation, prompts per second by batch size."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.gpu_tables.decoder import decoder_figures, way_figures
from benchmarks.gpu_tables.encoder import BATCH, ceiling, encoder_figures, mode_of
from benchmarks.gpu_tables.goals import CEILING_SHARE, IMAGES_PER_S, PROMPTS_PER_S
from benchmarks.gpu_tables.results import Results


def draw_encoder(path: Path, results: Results) -> None:
    """Draw a bar chart of images per second at batch 4, with the ceiling and the goal."""
    figures = [figure for figure in encoder_figures(results) if figure["shapes"]["batch"] == BATCH]
    figures.sort(key=lambda figure: float(figure["images_per_s"]))
    if not figures:
        return
    canvas, axes = plt.subplots(figsize=(8, 1.5 + 0.3 * len(figures)), layout="constrained")
    labels = [f"{figure['name']} ({mode_of(figure)})" for figure in figures]
    rates = [float(figure["images_per_s"]) for figure in figures]
    compiled = ["tab:blue" if figure["mode"].startswith("compiled") else "tab:gray" for figure in figures]
    axes.bar_label(axes.barh(labels, rates, color=compiled), fmt="%.1f", padding=-26, fontsize=8, color="white")
    top = ceiling(results)
    if top is not None:
        # TFLOP per image, derived from the figures.
        images = top / (float(figures[-1]["tflops"]) / rates[-1])
        axes.axvline(images, color="black", label=f"FP16 product of 8192³: {images:.0f} images/s")
        axes.axvline(CEILING_SHARE * images, color="black", linestyle=":", label=f"{CEILING_SHARE:.0%} of it")
    axes.axvline(IMAGES_PER_S, color="tab:red", linestyle="--", label=f"goal: {IMAGES_PER_S:.0f} images/s")
    axes.set(xlabel=f"images/s, batch {BATCH}", title=f"ViT-H encoder, {figures[-1]['device']}")
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="x", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right")
    canvas.savefig(path, dpi=90)
    plt.close(canvas)


def draw_decoder(path: Path, results: Results) -> None:
    """Draw prompts per second against the number of images, one prompt each: decoders alone, then with copies."""
    figures = [figure for figure in decoder_figures(results) if figure["shapes"]["prompts"] == 1]
    if not figures:
        return
    canvas, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, mode in dict.fromkeys((figure["name"], figure["mode"]) for figure in figures):
        same = [figure for figure in figures if (figure["name"], figure["mode"]) == (name, mode)]
        points = sorted((int(figure["shapes"]["images"]), float(figure["prompts_per_s"])) for figure in same)
        axes.plot(*zip(*points, strict=True), "o-", label=f"{name} ({mode})", markersize=4)
    for (source, goal), colour in zip(PROMPTS_PER_S.items(), ("tab:cyan", "black"), strict=True):
        place = "host memory" if source == "pinned" else f"a {source}"
        fastest: dict[int, float] = {}
        for figure in way_figures(results, source):
            rows = int(figure["shapes"]["rows"])
            fastest[rows] = max(fastest.get(rows, 0.0), float(figure["prompts_per_s"]))
        if fastest:
            label = f"from {place}, copies included"
            axes.plot(*zip(*sorted(fastest.items()), strict=True), "x--", color=colour, label=label, markersize=5)
        axes.axhline(goal, color=colour, linestyle=":", label=f"goal from {place}", linewidth=1)
    axes.set_xscale("log", base=2)
    images = sorted({int(figure["shapes"]["images"]) for figure in figures})
    axes.set_xticks(images, [str(count) for count in images])
    axes.set(xlabel="images, one prompt each", ylabel="prompts/s", ylim=(0, None))
    axes.set_title(f"SAM's decoder, {figures[0]['device']}", fontsize=11)
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8)
    canvas.savefig(path, dpi=90)
    plt.close(canvas)
