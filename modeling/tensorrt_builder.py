"""A common interface of TensorRT and TensorRT-RTX: compile an ONNX file to an engine file."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from modeling.progress import Tell

Builder = Literal["tensorrt", "tensorrt-rtx"]
TENSORRT: Builder = "tensorrt"
TENSORRT_RTX: Builder = "tensorrt-rtx"

OLDEST_TENSORRT = 10

# The bindings can be installed without the metapackage.
MODULES: Mapping[str, Sequence[str]] = {
    TENSORRT: ("tensorrt",),
    TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
HOW_TO_INSTALL: Mapping[str, str] = {
    TENSORRT: "TensorRT 10 or newer, on a machine with the GPU that will serve: pip install --extra-index-url "
    "https://pypi.nvidia.com tensorrt, or work in NVIDIA's container nvcr.io/nvidia/tensorrt of the release whose "
    "Triton will load the plans",
    TENSORRT_RTX: "TensorRT-RTX, which needs no GPU to compile: pip install -e '.[tensorrt-rtx]', or pip install "
    "--no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
}


class BuilderMissing(RuntimeError):
    """The builder that a target needs is not installed, or too old; the message says what to install."""


class BuildFailed(RuntimeError):
    """The builder rejected the graph; the message is the builder's."""


class Shapes(NamedTuple):
    """Shapes of one input tensor that an engine accepts, and the shape that it is optimised for."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


def load_builder(target: Builder) -> ModuleType:
    """Import TensorRT or TensorRT-RTX.

    Raises:
        BuilderMissing: it is not there.
    """
    failures = []
    for name in MODULES[target]:
        try:
            trt = importlib.import_module(name)
        except ImportError as error:
            failures.append(str(error))
            continue
        if target == TENSORRT and int(trt.__version__.split(".")[0]) < OLDEST_TENSORRT:
            raise BuilderMissing(f"TensorRT {trt.__version__} is too old. Install {HOW_TO_INSTALL[target]}")
        return trt
    raise BuilderMissing(
        f"--target {target} cannot be built here ({'; '.join(failures)}). Install {HOW_TO_INSTALL[target]}"
    )


def compile_engine(
    trt: ModuleType,
    graph: Path,
    engine: Path,
    shapes: Mapping[str, Shapes],
    *,
    compute_capabilities: Sequence[int] = (),
    tell: Tell = lambda progress: None,
) -> None:
    """Compile an ONNX file to an engine file. The graph's types are used as they are.

    Args:
        trt: what `load_builder` returned.
        graph: the ONNX file, its external data beside it.
        engine: the file to write.
        shapes: of every input with dynamic dimensions.
        compute_capabilities: such as 89 for SM 8.9, of the GPUs to compile for. TensorRT-RTX only, which takes all that
            it makes portable code for where none are given; TensorRT compiles for the GPU at hand.
        tell: is told how far the builder is.

    Raises:
        BuildFailed: the graph cannot be parsed or compiled.
    """
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(strongly_typed_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise BuildFailed(f"{graph} cannot be parsed: {'; '.join(errors) or log.complaints()}")

    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, (smallest, optimal, largest) in shapes.items():
        profile.set_shape(name, smallest, optimal, largest)
    config.add_optimization_profile(profile)
    if compute_capabilities:
        config.num_compute_capabilities = len(compute_capabilities)
        for index, capability in enumerate(compute_capabilities):
            config.set_compute_capability(_compute_capability(trt, capability), index)
    config.progress_monitor = _progress_monitor(trt, tell)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed(f"{graph} cannot be compiled: {log.complaints()}")
    engine.write_bytes(memoryview(plan))


def strongly_typed_flags(trt: ModuleType) -> int:
    """Flags of a strongly typed network: explicit in TensorRT 10, the only kind in TensorRT 11."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _compute_capability(trt: ModuleType, capability: int) -> Any:
    kinds: Any = getattr(trt, "ComputeCapability", None)
    if kinds is None:
        raise BuildFailed(
            "compute capabilities can be chosen with TensorRT-RTX only; TensorRT compiles for the GPU here"
        )
    try:
        return getattr(kinds, f"SM{capability}")
    except AttributeError:
        known = sorted((name for name in kinds.__members__ if name.startswith("SM")), key=lambda name: int(name[2:]))
        raise BuildFailed(f"there is no compute capability {capability}; known are {', '.join(known)}") from None


def _log(trt: ModuleType) -> Any:
    """A logger that collects errors for the exception and drops other messages."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

        def complaints(self) -> str:
            return "; ".join(self.errors) or "it does not say why"

    return Log()


def _progress_monitor(trt: ModuleType, tell: Tell) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(f"{phase_name}: {step + 1} of {self.steps[phase_name]}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            del self.steps[phase_name]

    return Monitor()
