"""The rendered parts of pages, keyed by the names in their marker comments."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.gpu_tables.accuracy import parity_table
from benchmarks.gpu_tables.costs import costs_table
from benchmarks.gpu_tables.decoder import decoder_table, sources_table
from benchmarks.gpu_tables.encoder import encoder_table
from benchmarks.gpu_tables.goals import goals_table
from benchmarks.gpu_tables.products import attention_table, ceilings_table, fp8_table, kernels_table
from benchmarks.gpu_tables.results import Results
from benchmarks.gpu_tables.triton import triton_table

Render = Callable[[Results], str]
TRITON_COMMAND = "benchmarks.gpu_triton"


def _headed(render: Render, *stages: str) -> Render:
    """Prefix a text with the device, versions, date and command of its figures. Empty if there are no figures."""

    def headed(results: Results) -> str:
        text = render(results)
        return f"{results.facts(stages)}. {_command(results, stages)}.\n\n{text}" if text else ""

    return headed


def _command(results: Results, stages: Sequence[str]) -> str:
    commands = []
    kit = [stage for stage in stages if stage != "triton"]
    if kit:
        budget = f"{results.runs[-1]['budget_seconds']:g}" if results.runs else "SECONDS"
        parts = f"stage{'s' if len(kit) > 1 else ''} {', '.join(kit)}"
        commands.append(f"`python -m benchmarks.gpu --budget {budget} --out FILE`, {parts}")
    if "triton" in stages:
        commands.append(f"`python -m {TRITON_COMMAND} --budget SECONDS --out FILE`")
    return "; ".join(commands)


PARTS: Mapping[str, Render] = {
    "goals": _headed(goals_table, "ceilings", "parity", "encoder", "decoder"),
    "encoder": _headed(encoder_table, "encoder"),
    "decoder": _headed(decoder_table, "decoder"),
    "sources": _headed(sources_table, "decoder"),
    "parity": _headed(parity_table, "parity"),
    "attention": _headed(attention_table, "attention"),
    "ceilings": _headed(ceilings_table, "ceilings"),
    "fp8": _headed(fp8_table, "fp8"),
    "kernels": _headed(kernels_table, "profile"),
    "triton": _headed(triton_table, "triton"),
    "costs": _headed(costs_table, "encoder", "decoder", "triton"),
}
