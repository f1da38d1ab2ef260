"""The table of metrics in the docs is the one that the code makes."""

from pathlib import Path

from samserve.domain.manifest import ModelManifest
from samserve.gateway.settings import default_model_repository
from samserve.observability.metrics import Metrics

DOCS = Path(__file__).parents[3] / "docs" / "observability.md"
HEADER = "| metric | kind | labels | what it is |\n|---|---|---|---|\n"


def table(metrics: Metrics) -> str:
    """A row for each of samserve's own metrics: its name as it is queried, and its labels with their values."""
    rows = []
    for family in metrics.registry.collect():
        if not family.name.startswith("samserve_"):
            continue
        values: dict[str, list[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le" and value not in values.setdefault(label, []):
                    values[label].append(value)
        # What depends on the build and the models, or is in the proto, is named and not listed.
        labels = "; ".join(
            f"`{label}`" + ("" if family.name.endswith("_info") or label == "rpc" else f": {', '.join(listed)}")
            for label, listed in values.items()
        )
        name = family.name + "_total" * (family.type == "counter")
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return HEADER + "\n".join(rows) + "\n"


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    metrics = Metrics()
    metrics.models.build("0", "onnxruntime")
    metrics.models.model(ModelManifest.read(default_model_repository()))
    expected = table(metrics)
    assert expected in DOCS.read_text(), f"put this table into {DOCS.name}:\n\n{expected}"
