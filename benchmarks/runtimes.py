"""Compare ONNX Runtime with OpenVINO on the graphs of a model repository, on this machine's CPU.

    python -m benchmarks.runtimes --repository model_repository

All runtimes are loaded into one process and alternate (A B C A B C ...), so that other load on the machine affects all
of them alike. Read the ratios and, on a busy machine, those of the CPU time. Differences are relative to ONNX Runtime,
which the parity gate has compared with PyTorch in float32.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import openvino

from modeling.differences import largest, mask_iou
from modeling.probes import probe_images, probe_prompts
from modeling.prompts import prompt_tensors
from samserve.domain.manifest import DECODER, ENCODER, ModelManifest

Arrays = list[npt.NDArray[Any]]
Runner = Callable[[Sequence[npt.NDArray[Any]]], Arrays]

WARM_UP_ROUNDS = 2


@dataclass
class Contestant:
    """One runtime with both graphs.

    Attributes:
        name: for the table.
        encoder: runs `sam_image_encoder`.
        decoder: runs `sam_mask_decoder`.
        load_seconds: for both graphs.
        memory_mb: resident memory that loading and a first run of both graphs added, in MB (10⁶ bytes).
        seconds: of each run, by task.
        processor_seconds: of all threads in each run, by task.
        answers: outputs of the last run, by task.
    """

    name: str
    encoder: Runner
    decoder: Runner
    load_seconds: float
    memory_mb: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor_seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, Arrays] = field(default_factory=dict)


def onnx_runtime(path: Path, threads: int) -> Runner:
    """Load a graph into ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [graph_input.name for graph_input in session.get_inputs()]

    def run(inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        outputs: Arrays = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return run


def openvino_runtime(path: Path, threads: int, precision: str) -> Runner:
    """Load a graph into OpenVINO's CPU plugin with an inference precision of "f32" or "bf16"."""
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(threads),
    }
    request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()

    def run(inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        request.infer(list(inputs), share_inputs=True)
        return [tensor.data.copy() for tensor in request.output_tensors]

    return run


LOADERS: dict[str, Callable[[Path, int], Runner]] = {
    "onnxruntime": onnx_runtime,
    "openvino f32": lambda path, threads: openvino_runtime(path, threads, "f32"),
    "openvino bf16": lambda path, threads: openvino_runtime(path, threads, "bf16"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 8, 64], help="numbers of prompts to decode")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)

    manifest = ModelManifest.read(options.repository)
    tasks = _tasks(manifest, options.prompts)
    # Without hardware support, OpenVINO emulates bfloat16 ten times more slowly.
    has_bfloat16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    names = [name for name in LOADERS if has_bfloat16 or "bf16" not in name]
    contestants = [_load(name, options.repository, options.threads, tasks) for name in names]
    for _ in range(options.rounds):
        for task, inputs in tasks.items():
            for contestant in contestants:
                _run(contestant, task, inputs)
    print(f"{manifest.model}, {options.threads} threads, median of {options.rounds} interleaved rounds")
    print(f"bfloat16 in this CPU: {'yes' if has_bfloat16 else 'no, so it is left out'}\n")
    _print_speed(contestants, list(tasks))
    print()
    _print_cost_and_difference(contestants, list(tasks))
    return 0


def _tasks(manifest: ModelManifest, prompt_counts: Sequence[int]) -> dict[str, Arrays]:
    """Inputs by task: `encode`, and `decode P` with P prompts on one image, padded to a common length.

    The embedding is filled in by the first contestant.
    """
    probe = probe_images(1, manifest.image_size)[0]
    tasks: dict[str, Arrays] = {"encode": [probe.image[None], np.array([probe.input_size], np.int32)]}
    prompts = probe_prompts(probe.input_size, manifest.low_res_size)
    for count in prompt_counts:
        row = [prompts[index % len(prompts)] for index in range(count)]
        tasks[f"decode {count}"] = list(prompt_tensors([row], manifest.low_res_size))
    return tasks


def _load(name: str, repository: Path, threads: int, tasks: dict[str, Arrays]) -> Contestant:
    memory = _resident_bytes()
    start = time.perf_counter()
    encoder, decoder = (LOADERS[name](repository / graph / "1" / "model.onnx", threads) for graph in (ENCODER, DECODER))
    contestant = Contestant(name, encoder, decoder, load_seconds=time.perf_counter() - start)
    for task, inputs in tasks.items():
        if task == "encode":
            embedding = contestant.encoder(inputs)[0]
            continue
        if inputs[0].dtype != np.float16:
            inputs.insert(0, embedding)
        for _ in range(WARM_UP_ROUNDS):
            contestant.decoder(inputs)
    contestant.memory_mb = (_resident_bytes() - memory) / 1e6
    return contestant


def _run(contestant: Contestant, task: str, inputs: Arrays) -> None:
    runner = contestant.encoder if task == "encode" else contestant.decoder
    start, processor_start = time.perf_counter(), time.process_time()
    contestant.answers[task] = runner(inputs)
    contestant.seconds.setdefault(task, []).append(time.perf_counter() - start)
    contestant.processor_seconds.setdefault(task, []).append(time.process_time() - processor_start)


def _resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _print_speed(contestants: Sequence[Contestant], tasks: Sequence[str]) -> None:
    """Print medians of wall and CPU time in ms, each with its ratio to the first runtime's."""
    _print_row("task", "runtime", "wall, ms", "ratio", "processor, ms", "ratio")
    _print_row(*["---"] * 6)
    for task in tasks:
        for contestant in contestants:
            cells = []
            for times, base in (
                (contestant.seconds, contestants[0].seconds),
                (contestant.processor_seconds, contestants[0].processor_seconds),
            ):
                median = statistics.median(times[task])
                cells += [f"{1000 * median:.1f}", f"{median / statistics.median(base[task]):.2f}"]
            _print_row(task, contestant.name, *cells)


def _print_cost_and_difference(contestants: Sequence[Contestant], tasks: Sequence[str]) -> None:
    """Print the cost of loading, and the differences from the first runtime's outputs."""
    _print_row("runtime", "load, s", "memory, MB", "embedding error", "logit error", "smallest mask IoU")
    _print_row(*["---"] * 6)
    reference = contestants[0].answers
    for contestant in contestants:
        pairs = [(contestant.answers[task][0], reference[task][0]) for task in tasks]
        embeddings, *masks = pairs
        ious = [mask_iou(*prompt) for answer in masks for prompt in zip(*(side[0] for side in answer), strict=True)]
        _print_row(
            contestant.name,
            f"{contestant.load_seconds:.2f}",
            f"{contestant.memory_mb:.0f}",
            f"{largest(embeddings[0] - embeddings[1]):.2g}",
            f"{max(largest(logits - expected) for logits, expected in masks):.2g}",
            f"{np.min(ious):.4f}",
        )


def _print_row(*cells: str) -> None:
    print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    sys.exit(main())
