"""Every benchmark runs for one round."""

import runpy
import sys
from pathlib import Path

import pytest

from benchmarks.gateway import Comparison, take_turns

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMANDS = sorted(f"benchmarks.{path.stem}" for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("module", COMMANDS)
def test_every_benchmark_says_how_it_is_run(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if module == "benchmarks.runtimes":
        pytest.importorskip("openvino", reason="openvino is missing: pip install -e '.[bench]'")
    # As `python -m` finds it, whoever has imported it before.
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


async def test_one_round_is_a_measurement() -> None:
    async def nothing() -> None:
        pass

    comparison = Comparison("nothing : nothing", nothing, nothing)
    await take_turns([comparison], 1)
    ratio, quartiles = str(comparison).strip("| ").split(" | ")[-2:]
    assert quartiles == f"{ratio} to {ratio}"
