"""Compare the GPU costs assumed by `benchmarks.capacity` with the measured ones (docs/capacity.md)."""

from dataclasses import replace
from typing import NamedTuple

from benchmarks.capacity import Costs, Demand, plan
from benchmarks.gpu_tables.decoder import PAGEABLE, PINNED, SLAB, WAY, decoder_figures, fastest, way_figures
from benchmarks.gpu_tables.encoder import BATCH, best_encoder, mode_of
from benchmarks.gpu_tables.markdown import number, table
from benchmarks.gpu_tables.results import Figure, Results

EXPORTED_ENCODER, EXPORTED_DECODER, GRAPH = "folded", "exported", "CUDA graph"
TRITON_ENCODER = "bare encoder by shared_memory"
TRITON_DECODER = "bare Triton by shared_memory, 16 callers"
DAYS = (1e6, 1e9)
PROMPTS_PER_IMAGE = 8.0


class Cost(NamedTuple):
    """Milliseconds of a GPU for one image or one prompt, and how they were measured."""

    where: str
    milliseconds: float


def costs_table(results: Results) -> str:
    """Render the costs by way of measurement, then the GPUs that a fleet needs at the default costs and at Triton's."""
    encode, decode = encode_costs(results), decode_costs(results)
    if not encode and not decode:
        return ""
    default = Costs()
    rows = [
        [step, cost.where, number(cost.milliseconds), f"{cost.milliseconds / assumed:.2f}"]
        for step, assumed, costs in (("encode", 1e3 * default.encode, encode), ("decode", 1e3 * default.decode, decode))
        for cost in [Cost("default", assumed), *costs]
    ]
    text = table(["step", "measured", "ms of a GPU", "ratio to default"], rows)
    plans = [_plan_row("defaults", default)]
    served = through_triton(results)
    if served is not None:
        plans.append(_plan_row("through Triton", served))
    head = ["GPUs needed at the peak", "encode, decode", *(_day(day) for day in DAYS)]
    return f"{text}\n\n{table(head, plans)}"


def encode_costs(results: Results) -> list[Cost]:
    """List the measured costs of encoding an image."""
    costs = []
    exported = results.one("encoder", EXPORTED_ENCODER, mode=GRAPH, shapes={"batch": BATCH})
    for label, figure in (("exported formulation", exported), ("fastest", best_encoder(results))):
        if figure is not None:
            batch = figure["shapes"]["batch"]
            where = f"{label}: {figure['name']}, {mode_of(figure)}, batch {batch}"
            costs.append(Cost(where, figure["median_ms"] / batch))
    served = results.one("triton", TRITON_ENCODER)
    if served is not None:
        costs.append(Cost("through Triton, exported formulation, one caller", served["median_ms"]))
    return costs


def decode_costs(results: Results) -> list[Cost]:
    """List the measured costs of decoding a prompt."""
    alone = decoder_figures(results)
    exported = fastest([figure for figure in alone if (figure["name"], figure["mode"]) == (EXPORTED_DECODER, GRAPH)])
    costs = [
        Cost(f"{label}: {figure['name']}, {figure['mode']}, {_shape(figure)}", _per_prompt(figure))
        for label, figure in (("exported formulation, alone", exported), ("fastest, alone", fastest(alone)))
        if figure is not None
    ]
    for source in (SLAB, PINNED, PAGEABLE):
        # All four masks in float32, which is what the gateway requests.
        whole = [figure for figure in way_figures(results, source) if "4 masks" in figure["name"]]
        figure = fastest(whole)
        if figure is not None:
            where = f"fastest, with copies: {figure['name'].removeprefix(WAY)}, {figure['shapes']['rows']} rows"
            costs.append(Cost(where, 1e3 / figure["prompts_per_s"]))
    served = results.one("triton", TRITON_DECODER)
    if served is not None:
        where = "through Triton, exported formulation, 16 callers"
        costs.append(Cost(where, 1e3 / served["requests_per_second"]))
    return costs


def through_triton(results: Results) -> Costs | None:
    """Return the costs measured through Triton, or None if there are none."""
    encoder, decoder = results.one("triton", TRITON_ENCODER), results.one("triton", TRITON_DECODER)
    if encoder is None or decoder is None:
        return None
    return replace(Costs(), encode=encoder["median_ms"] / 1e3, decode=1 / decoder["requests_per_second"])


def _shape(figure: Figure) -> str:
    return f"{figure['shapes']['images']} × {figure['shapes']['prompts']}"


def _per_prompt(figure: Figure) -> float:
    return 1e3 / float(figure["prompts_per_s"])


def _plan_row(name: str, costs: Costs) -> list[str]:
    told = []
    for day in DAYS:
        planned = plan(Demand(day, PROMPTS_PER_IMAGE, gaze_streams=0.0), costs)
        told.append(f"{planned.count('encoder GPUs'):,} encoders, {planned.count('decoder GPUs'):,} decoders")
    return [name, f"{number(1e3 * costs.encode)} ms, {number(1e3 * costs.decode)} ms", *told]


def _day(images: float) -> str:
    return f"{images:,.0f} images a day"
