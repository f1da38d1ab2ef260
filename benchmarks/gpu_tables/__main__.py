"""Write the GPU tables of docs/benchmarks.md and docs/capacity.md from the figures in benchmarks/results.

python -m benchmarks.gpu_tables                      write the tables
python -m benchmarks.gpu_tables --check              exit with 1 if a page differs from the figures
python -m benchmarks.gpu_tables --add FILE.jsonl     add the figures of a run, then write the tables
python -m benchmarks.gpu_tables --plots docs/images  also draw the charts
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_tables.markdown import with_parts
from benchmarks.gpu_tables.pages import PARTS
from benchmarks.gpu_tables.results import RESULTS, Results, add_figures, read_results

NOT_MEASURED = "Not measured: `benchmarks/results/` has no such figures."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if `--check` finds a difference, 2 if added figures have no GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="compare only; write nothing")
    parser.add_argument("--add", type=Path, action="append", default=[], metavar="FILE.jsonl", help="figures of a run")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="folder for gpu-encoder.png and gpu-decoder.png")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FOLDER", help=f"of figures (default {RESULTS})"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), metavar="FOLDER", help="of pages (default docs)")
    options = parser.parse_args(arguments)
    try:
        for source in options.add:
            print("figures added to", *add_figures(source, options.results))
    except ValueError as error:
        print(f"gpu_tables: {error}", file=sys.stderr)
        return 2
    results = read_results(options.results)
    parts = rendered(results)
    differing = []
    for path in sorted(options.docs.glob("*.md")):
        page = path.read_text()
        new = with_parts(page, parts)
        if new != page:
            differing.append(path)
            if not options.check:
                path.write_text(new)
    if options.plots and results:
        from benchmarks.gpu_tables.plots import draw_decoder, draw_encoder

        draw_encoder(options.plots / "gpu-encoder.png", results[0])
        draw_decoder(options.plots / "gpu-decoder.png", results[0])
    if options.check and differing:
        pages = " and ".join(str(path) for path in differing)
        print(f"gpu_tables: {pages} differ from the figures; run python -m benchmarks.gpu_tables", file=sys.stderr)
        return 1
    print(*(f"{path} written" for path in differing), sep="\n")
    return 0


def rendered(results: Sequence[Results]) -> dict[str, str]:
    """Render each part for every device in turn."""
    parts = {}
    for name, render in PARTS.items():
        texts = [text for text in (render(result) for result in results) if text]
        parts[name] = "\n\n".join(texts) or NOT_MEASURED
    return parts


if __name__ == "__main__":
    sys.exit(main())
