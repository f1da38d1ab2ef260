"""Tables of GPU figures: from a made-up device, from none, and those of the pages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_tables.__main__ import NOT_MEASURED, main, rendered
from benchmarks.gpu_tables.markdown import number, part, with_parts
from benchmarks.gpu_tables.pages import PARTS
from benchmarks.gpu_tables.results import Results, add_figures, device_name, read_results

ROOT = Path(__file__).parents[3]
FACTS = {
    "model": "vit_h",
    "device": "ACME GPU 9000",
    "driver": "1.2.3",
    "versions": {"torch": "2.11.0", "triton": "3.6.0"},
    "date": "2026-11-27",
}
SQUARE = {"rows": 8192, "columns": 8192, "inner": 8192}

Figure = dict[str, Any]


def figure(stage: str, name: str, median_ms: float = 1.0, **fields: Any) -> Figure:
    """A timing of the made-up device."""
    times = {"median_ms": median_ms, "q1_ms": 0.9 * median_ms, "q3_ms": 1.1 * median_ms}
    return {"stage": stage, "name": name, "precision": "fp16", **times, **fields, **FACTS}


def encoder(name: str, rate: float, mode: str = "compiled, CUDA graph", batch: int = 4) -> Figure:
    """An encoder of so many images a second; an image is 6 TFLOP."""
    work = {"images_per_s": rate, "tflops": 6 * rate}
    return figure("encoder", name, 1e3 * batch / rate, shapes={"batch": batch}, mode=mode, compile_mode=None, **work)


def way(source: str, rate: float) -> Figure:
    """A decoder from an embedding's place to masks on the host."""
    name = f"gather, decode, masks to the host: {source}, 4 masks, fp32"
    sizes = {"bytes_in_per_prompt": 2097152.0, "bytes_out_per_prompt": 1048576.0}
    return figure("decoder", name, shapes={"rows": 64}, prompts_per_s=rate, **sizes)


LINES: list[Figure] = [
    {"event": "started", "budget_seconds": 300.0, **FACTS},
    figure("ceilings", "matrix product", shapes=SQUARE, tflops=800.0),
    figure("ceilings", "copy, host to device", shapes={"mib": 2.0, "pinned": True}, precision="bytes", gb_per_s=50.0),
    encoder("bias", 50.0),
    encoder("segment-anything-fast", 60.0),
    encoder("streamed", 90.0),
    encoder("streamed", 85.0, batch=1),
    figure("decoder", "absorbed", shapes={"images": 64, "prompts": 1}, mode="CUDA graph", prompts_per_s=9000.0),
    way("pinned", 15000.0),
    way("device slab", 24999.0),
    {
        "stage": "parity", "name": "encoder: streamed", "weights": "random", "masks": 72, "embedding_error": 0.01,
        "embedding_cosine": 0.999999, "iou_mean": 1.0, "iou_least": 0.996, "iou_mean_all_pixels": 0.998999,
        "iou_least_all_pixels": 0.99, **FACTS,
    },
]  # fmt: skip


def write(path: Path, lines: list[Figure]) -> None:
    """A file of figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def row(text: str, *starts: str) -> list[str]:
    """The cells of the one row that begins with these."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    [found] = [cells for cells in rows if cells[: len(starts)] == list(starts)]
    return found


def test_encoders_are_compared_with_the_ceiling_and_with_compiled_ones() -> None:
    text = rendered([Results(LINES)])["encoder"]
    mode = "compiled, CUDA graph"
    assert row(text, "streamed", mode)[2:] == ["90.0", "44.4 (40.0 to 48.9)", "68%", "1.80", "1.50"]
    assert row(text, "bias", mode)[4:] == ["38%", "1.00", "0.83"]
    assert row(text, "streamed, images/s") == ["streamed, images/s", "batch 1", "batch 4"]
    assert row(text, mode) == [mode, "85.0", "90.0"]


def test_each_table_names_the_device_the_versions_and_the_command() -> None:
    text = rendered([Results(LINES)])["encoder"]
    assert text.startswith("ACME GPU 9000, driver 1.2.3, PyTorch 2.11.0, Triton language 3.6.0, 2026-11-27. ")
    assert "`python -m benchmarks.gpu --budget 300 --out FILE`, stage encoder." in text


def test_goals_are_met_or_not() -> None:
    text = rendered([Results(LINES)])["goals"]
    assert row(text, "encoder, images/s")[1:4] == ["80.0", "90.0", "met"]
    assert row(text, "encoder, share of the FP16 ceiling")[1:4] == ["60%", "68%", "met"]
    assert row(text, "decoder, prompts/s from host memory")[2:4] == ["15,000", "met"]
    assert row(text, "decoder, prompts/s from a device slab")[2:4] == ["24,999", "not met"]
    # Rounded, it would read as if it were met.
    assert row(text, "IoU of FP16 masks, mean, all pixels")[2:4] == ["0.99899", "not met"]
    assert row(text, "IoU of FP16 masks, smallest, decided pixels")[2:4] == ["0.99600", "met"]


def test_a_goal_without_a_figure_is_not_measured() -> None:
    text = rendered([Results([line for line in LINES if line.get("stage") != "decoder"])])["goals"]
    assert row(text, "decoder, prompts/s from host memory")[2:4] == ["", "not measured"]


def test_the_newest_line_of_a_figure_counts() -> None:
    text = rendered([Results([*LINES, encoder("streamed", 99.0), encoder("bias", 45.0)])])["encoder"]
    assert row(text, "streamed", "compiled, CUDA graph")[2] == "99.0"
    assert row(text, "bias", "compiled, CUDA graph")[2] == "45.0"


def test_a_failure_is_shown_only_where_there_is_no_figure() -> None:
    failures = [
        {"stage": "encoder", "name": "bias", "mode": "compiled, CUDA graph", "skipped": "no time", **FACTS},
        {"stage": "encoder", "name": "new", "mode": "eager", "failed": "RuntimeError: no memory", **FACTS},
    ]
    text = rendered([Results([*LINES, *failures])])["encoder"]
    assert row(text, "bias", "compiled, CUDA graph")[2] == "50.0"
    assert "Not measured: new, eager (RuntimeError: no memory)." in text


def test_a_new_profile_replaces_all_kernels_of_the_former() -> None:
    def profile(kernel: str) -> list[Figure]:
        header = {"stage": "profile", "name": "encoder", "kernels": 9.0, "total_ms": 50.0, **FACTS}
        return [header, {**header, "kernel": kernel, "calls": 2.0, "ms": 5.0, "share": 0.1} | {"kernels": None}]

    lines = [{k: v for k, v in line.items() if v is not None} for name in ("old", "new") for line in profile(name)]
    text = rendered([Results(lines)])["kernels"]
    assert "`new`" in text
    assert "`old`" not in text


def test_ways_of_a_former_run_are_not_mixed_with_those_of_a_newer_one() -> None:
    newer = {**way("pinned", 20000.0), "shapes": {"rows": 16}}
    text = rendered([Results([*LINES, LINES[0], newer])])["sources"]
    assert row(text, "embeddings from")[-1] == "16 rows"
    assert row(text, "pinned")[-1] == "20,000"
    assert "device slab" not in text


def test_other_models_are_not_shown() -> None:
    lines = [{**line, "model": "tiny"} for line in LINES]
    assert set(rendered([Results(lines)]).values()) == {NOT_MEASURED}


def test_without_figures_every_table_says_so() -> None:
    assert rendered([]) == dict.fromkeys(PARTS, NOT_MEASURED)


@pytest.fixture
def pages(tmp_path: Path) -> Callable[..., int]:
    """Run the command on a page of two tables; returns its exit code."""
    (tmp_path / "docs").mkdir()
    markers = "\n".join(f"<!-- gpu: begin {name} -->\n<!-- gpu: end {name} -->" for name in ("encoder", "costs"))
    (tmp_path / "docs" / "page.md").write_text(f"Before.\n{markers}\nAfter.\n")

    def run(*flags: str) -> int:
        return main([*flags, "--docs", str(tmp_path / "docs"), "--results", str(tmp_path / "results")])

    return run


def test_check_reports_stale_tables_that_writing_updates(
    pages: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "page.md"
    before = page.read_text()
    assert pages("--check") == 1
    assert "page.md differ from the figures" in capsys.readouterr().err
    assert page.read_text() == before
    assert pages() == 0
    assert page.read_text().count(NOT_MEASURED) == 2
    assert pages("--check") == 0
    write(tmp_path / "results" / "gpu-acme-gpu-9000.jsonl", LINES)
    assert pages("--check") == 1
    assert pages() == 0
    assert "ACME GPU 9000" in page.read_text()
    assert page.read_text().startswith("Before.\n")
    assert page.read_text().endswith("\nAfter.\n")
    assert pages("--check") == 0


def test_figures_of_a_run_are_added_to_the_files_of_their_device(tmp_path: Path) -> None:
    run = tmp_path / "run.jsonl"
    write(run, [*LINES, figure("triton", "bare encoder by shared_memory", 40.0)])
    results = tmp_path / "results"
    for count in (1, 2):
        kit, triton = add_figures(run, results)
        assert (kit.name, triton.name) == ("gpu-acme-gpu-9000.jsonl", "gpu-triton-acme-gpu-9000.jsonl")
        assert len(kit.read_text().splitlines()) == count * len(LINES)
    [result] = read_results(results)
    assert result.one("triton", "bare encoder by shared_memory") is not None


def test_figures_of_a_processor_are_refused(
    pages: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run.jsonl", [{**line, "driver": None} for line in LINES])
    assert pages("--add", str(tmp_path / "run.jsonl")) == 2
    assert "has no figures of a GPU" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_charts_are_drawn(pages: Callable[..., int], tmp_path: Path) -> None:
    write(tmp_path / "results" / "gpu-acme-gpu-9000.jsonl", LINES)
    assert pages("--plots", str(tmp_path)) == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"gpu-encoder.png", "gpu-decoder.png"}


def test_the_pages_show_the_committed_figures(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("images", "photos", "*.png"))
    flags = ["--check", "--docs", str(tmp_path / "docs"), "--results", str(ROOT / "benchmarks" / "results")]
    assert main(flags) == 0, "run python -m benchmarks.gpu_tables"


def test_every_table_is_on_a_page() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert all(f"<!-- gpu: begin {name} -->" in pages for name in PARTS)


def test_a_page_that_wants_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown part nothing"):
        with_parts("<!-- gpu: begin nothing -->\n<!-- gpu: end nothing -->", {"encoder": ""})


def test_a_device_names_its_file() -> None:
    assert device_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


@pytest.mark.parametrize(
    ("value", "text"), [(15441.0, "15,441"), (100.4, "100"), (57.158, "57.2"), (2.7, "2.70"), (0.0605, "0.0605")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_parts_of_one_are_cut() -> None:
    assert [part(value) for value in (1.0, 0.9999999, 0.999, 0.998999)] == ["1.00000", "0.99999", "0.99900", "0.99899"]
