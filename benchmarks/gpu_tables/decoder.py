"""Tables of the decoder: alone, and with the copies of embeddings and masks between host and device."""

from benchmarks.gpu_tables.markdown import number, table
from benchmarks.gpu_tables.results import Figure, Results, newest_run

WAY = "gather, decode, masks to the host: "
GATHER = "gather, "
SLAB, PINNED, PAGEABLE = "device slab", "pinned", "pageable"


def decoder_figures(results: Results) -> list[Figure]:
    """Select the timings of decoders without copies."""
    return [figure for figure in results.of("decoder") if "prompts" in figure.get("shapes", {})]


def way_figures(results: Results, source: str | None = None) -> list[Figure]:
    """Select the newest run's timings that include copying embeddings to the device and masks to the host."""
    start = WAY if source is None else f"{WAY}{source}, "
    ways = [figure for figure in results.of("decoder") if figure["name"].startswith(WAY) and "median_ms" in figure]
    return [figure for figure in newest_run(ways) if figure["name"].startswith(start)]


def fastest(figures: list[Figure]) -> Figure | None:
    """Return the figure with the most prompts per second."""
    return max(figures, key=lambda figure: float(figure["prompts_per_s"]), default=None)


def decoder_table(results: Results) -> str:
    """Render prompts per second by formulation, mode, number of images and prompts per image."""
    figures = decoder_figures(results)
    shapes = sorted({_shape(figure) for figure in figures}, key=lambda shape: (shape[1] > 1, shape))
    rates = {(figure["name"], figure["mode"], _shape(figure)): number(figure["prompts_per_s"]) for figure in figures}
    kinds = dict.fromkeys((figure["name"], figure["mode"]) for figure in figures)
    rows = [[name, mode, *(rates.get((name, mode, shape), "") for shape in shapes)] for name, mode in sorted(kinds)]
    head = ["formulation", "mode", *(f"{images} × {prompts}" for images, prompts in shapes)]
    said = "Prompts per second, by images × prompts per image. A prompt is one click, which takes two tokens."
    return f"{said}\n\n{table(head, rows)}" if rows else ""


def sources_table(results: Results) -> str:
    """Render prompts per second by the memory that holds the embeddings and by the masks copied to the host."""
    figures = way_figures(results)
    counts = sorted({int(figure["shapes"]["rows"]) for figure in figures})
    rates = {(figure["name"], figure["shapes"]["rows"]): number(figure["prompts_per_s"]) for figure in figures}
    rows = []
    for name, figure in {figure["name"]: figure for figure in figures}.items():
        source, _, output = name.removeprefix(WAY).partition(", ")
        into, out = (f"{float(figure[field]) / 1024:,.0f}" for field in ("bytes_in_per_prompt", "bytes_out_per_prompt"))
        rows.append([source, output, "0" if source == SLAB else into, out, *(rates.get((name, n), "") for n in counts)])
    head = ["embeddings from", "masks to the host", "KiB in", "KiB out", *(f"{count} rows" for count in counts)]
    if not rows:
        return ""
    said = (
        "Prompts per second, each on a different image. Times include gathering the embeddings from their memory, "
        "decoding, and copying masks to the host. KiB in and out are copied between host and device for each prompt."
    )
    return "\n\n".join([said, table(head, sorted(rows)), *_gathers(results)])


def _gathers(results: Results) -> list[str]:
    gathers = [figure for figure in results.of("decoder") if figure["name"].startswith(GATHER) and "gb_per_s" in figure]
    gathers = newest_run(gathers)
    if not gathers:
        return []
    most = max(int(figure["shapes"]["rows"]) for figure in gathers)
    told = [
        f"{figure['name'].removeprefix(GATHER)} {number(figure['gb_per_s'])} GB/s"
        for figure in gathers
        if figure["shapes"]["rows"] == most
    ]
    return [f"Gathering {most} embeddings alone: {', '.join(told)}."]


def _shape(figure: Figure) -> tuple[int, int]:
    return int(figure["shapes"]["images"]), int(figure["shapes"]["prompts"])
