"""One interface for TensorRT 10, 11 and TensorRT-RTX; and what is said where they are missing or refuse."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import pytest

from modeling.tensorrt_builder import (
    TENSORRT,
    TENSORRT_RTX,
    BuilderMissing,
    BuildFailed,
    Shapes,
    compile_engine,
    load_builder,
    strongly_typed_flags,
)

FLOAT16 = onnx.TensorProto.FLOAT16


def pretend(monkeypatch: pytest.MonkeyPatch, version: str, **network_flags: int) -> ModuleType:
    """A module called tensorrt of some version, as far as importing it and its network flags go."""
    module: Any = ModuleType("tensorrt")
    module.__version__ = version
    module.NetworkDefinitionCreationFlag = SimpleNamespace(**network_flags)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def graph(path: Path, op_type: str = "Relu", **attributes: Any) -> Path:
    tensors = [onnx.helper.make_tensor_value_info(name, FLOAT16, ["batch", 8]) for name in "xy"]
    nodes = [onnx.helper.make_node(op_type, ["x"], ["y"], **attributes)]
    made = onnx.helper.make_graph(nodes, "small", tensors[:1], tensors[1:])
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


SHAPES = {"x": Shapes((1, 8), (2, 8), (4, 8))}


@pytest.mark.parametrize("target", [TENSORRT, TENSORRT_RTX])
def test_a_missing_builder_is_named_with_what_to_install(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BuilderMissing) as refusal:
        load_builder(target)
    message = str(refusal.value)
    assert f"--target {target} cannot be built here" in message
    assert ("https://pypi.nvidia.com" if target == TENSORRT else ".[tensorrt-rtx]") in message


def test_a_tensorrt_too_old_for_typed_graphs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "8.6.1", EXPLICIT_BATCH=0)
    with pytest.raises(BuilderMissing, match=r"TensorRT 8\.6\.1 is too old"):
        load_builder(TENSORRT)


def test_typed_networks_are_asked_for_where_that_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = pretend(monkeypatch, "10.13.0", STRONGLY_TYPED=1)
    assert load_builder(TENSORRT) is ten
    assert strongly_typed_flags(ten) == 1 << 1
    without_choice = pretend(monkeypatch, "12.0.0", SOMETHING_ELSE=1)
    assert strongly_typed_flags(without_choice) == 0


def test_a_graph_becomes_an_engine(tmp_path: Path) -> None:
    told: list[str] = []
    engine = tmp_path / "small.engine"
    compile_engine(
        load_builder(TENSORRT_RTX), graph(tmp_path / "small.onnx"), engine, SHAPES, compute_capabilities=[89],
        tell=told.append,
    )  # fmt: skip
    assert engine.stat().st_size > 1000
    assert any(" of " in progress for progress in told)


def test_a_graph_that_cannot_be_parsed_is_refused_in_the_parsers_words(tmp_path: Path) -> None:
    odd = graph(tmp_path / "odd.onnx", "NoSuchOperator")
    with pytest.raises(BuildFailed, match=r"odd\.onnx cannot be parsed.*NoSuchOperator"):
        compile_engine(load_builder(TENSORRT_RTX), odd, tmp_path / "odd.engine", SHAPES)
    assert not (tmp_path / "odd.engine").exists()


def test_a_graph_that_cannot_be_compiled_is_refused_in_the_builders_words(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"cannot be compiled: .*x"):
        compile_engine(load_builder(TENSORRT_RTX), graph(tmp_path / "small.onnx"), tmp_path / "small.engine", {})


def test_an_unknown_gpu_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    small = graph(tmp_path / "small.onnx")
    with pytest.raises(BuildFailed, match=r"no compute capability 42; known are SM75, SM80, .*SM120"):
        compile_engine(load_builder(TENSORRT_RTX), small, tmp_path / "e", SHAPES, compute_capabilities=[42])
