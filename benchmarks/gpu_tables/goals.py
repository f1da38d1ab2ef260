"""The table of goals and results."""

from collections.abc import Iterator

from benchmarks.gpu_tables.accuracy import LEASTS, MEANS, parity_figures
from benchmarks.gpu_tables.decoder import PINNED, SLAB, WAY, fastest, way_figures
from benchmarks.gpu_tables.encoder import BATCH, RIVALS, best_encoder, ceiling, mode_of, rival
from benchmarks.gpu_tables.markdown import number, part, table
from benchmarks.gpu_tables.results import Figure, Results

IMAGES_PER_S = 80.0
CEILING_SHARE = 0.6
OVER_COMPILED = 1.3
PROMPTS_PER_S = {PINNED: 15_000.0, SLAB: 25_000.0}
IOU_MEAN, IOU_LEAST = 0.999, 0.995

Row = list[str]


def goals_table(results: Results) -> str:
    """Render one row per goal."""
    rows = [*_encoder(results), *_decoder(results), *_parity(results)]
    measured = any(row[2] for row in rows)
    return table(["goal", "minimum", "reached", "", "configuration"], rows) if measured else ""


def _row(goal: str, least: float, value: float | None, told: str, by: str) -> Row:
    if value is None:
        return [goal, told, "", "not measured", ""]
    reached = part(value) if least < 1 and "IoU" in goal else f"{value:.0%}" if least < 1 else number(value)
    return [goal, told, reached, "met" if value >= least else "not met", by]


def _encoder(results: Results) -> Iterator[Row]:
    best, same_batch, top = best_encoder(results), best_encoder(results, BATCH), ceiling(results)
    by = _named(best)
    yield _row("encoder, images/s", IMAGES_PER_S, _value(best, "images_per_s"), number(IMAGES_PER_S), by)
    rate = _value(best, "tflops")
    share = None if top is None or rate is None else rate / top
    yield _row("encoder, share of the FP16 ceiling", CEILING_SHARE, share, f"{CEILING_SHARE:.0%}", by)
    compared = _value(same_batch, "images_per_s")
    for formulation, label in RIVALS.items():
        other = rival(results, formulation)
        ratio = None if other is None or compared is None else compared / other
        goal = f"encoder, ratio to torch.compile ({label}), batch {BATCH}"
        yield _row(goal, OVER_COMPILED, ratio, f"{OVER_COMPILED:g} ×", _named(same_batch))


def _decoder(results: Results) -> Iterator[Row]:
    for source, least in PROMPTS_PER_S.items():
        best = fastest(way_figures(results, source))
        place = "a device slab" if source == SLAB else "host memory"
        by = "" if best is None else f"{best['name'].removeprefix(WAY)}, {best['shapes']['rows']} rows"
        yield _row(f"decoder, prompts/s from {place}", least, _value(best, "prompts_per_s"), number(least), by)


def _parity(results: Results) -> Iterator[Row]:
    figures = parity_figures(results)
    for fields, least, kind in ((MEANS, IOU_MEAN, "mean"), (LEASTS, IOU_LEAST, "smallest")):
        for field, pixels in zip(fields, ("decided pixels", "all pixels"), strict=True):
            worst = min(figures, key=lambda figure, field=field: float(figure[field]), default=None)  # type: ignore[misc]
            by = "" if worst is None else f"worst: {worst['name']}"
            yield _row(f"IoU of FP16 masks, {kind}, {pixels}", least, _value(worst, field), f"{least:g}", by)


def _value(figure: Figure | None, field: str) -> float | None:
    return None if figure is None else float(figure[field])


def _named(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure['name']}, {mode_of(figure)}, batch {figure['shapes']['batch']}"
