"""Triton's statistics of a model's requests: time in the queue and in each step of an execution."""

from typing import Any, NamedTuple

from tritonclient.grpc.aio import InferenceServerClient

from modeling.triton_config import MODELS

_STEPS = ("queue", "compute_input", "compute_infer", "compute_output")


class Counters(NamedTuple):
    """Totals since Triton started: rows, executions, and requests and nanoseconds of each step."""

    rows: int
    runs: int
    requests: tuple[int, ...]
    nanoseconds: tuple[int, ...]


async def counters(address: str) -> dict[str, Counters]:
    """Read the counters of each model."""
    found = {}
    async with InferenceServerClient(address) as client:
        for model in MODELS:
            (stats,) = (await client.get_inference_statistics(model)).model_stats
            steps = [getattr(stats.inference_stats, step) for step in _STEPS]
            found[model] = Counters(
                stats.inference_count,
                stats.execution_count,
                tuple(step.count for step in steps),
                tuple(step.ns for step in steps),
            )
    return found


def difference(before: Counters, after: Counters) -> dict[str, Any]:
    """Means per request between two readings, as fields of a record. Empty if the model did not run."""
    runs = after.runs - before.runs
    if not runs:
        return {}
    fields: dict[str, Any] = {"runs": runs, "rows_per_run": round((after.rows - before.rows) / runs, 2)}
    for index, step in enumerate(_STEPS):
        requests = after.requests[index] - before.requests[index]
        milliseconds = (after.nanoseconds[index] - before.nanoseconds[index]) / 1e6
        fields[f"{step}_mean_ms"] = round(milliseconds / max(1, requests), 4)
    return fields
