"""The table of parity with single precision."""

from benchmarks.gpu_tables.markdown import part, table
from benchmarks.gpu_tables.results import Figure, Results

MEANS = ("iou_mean", "iou_mean_all_pixels")
LEASTS = ("iou_least", "iou_least_all_pixels")


def parity_figures(results: Results) -> list[Figure]:
    """Comparisons of masks with those of the float32 model."""
    return [figure for figure in results.of("parity") if "iou_mean" in figure]


def parity_table(results: Results) -> str:
    """Errors and IoUs by formulation and weights."""
    figures = parity_figures(results)
    rows = [
        [
            figure["name"],
            "with outliers" if "outlier" in figure.get("weights", "") else "random",
            f"{figure.get('embedding_error', figure.get('logit_error')):.4f}",
            f"{figure['embedding_cosine']:.7f}" if "embedding_cosine" in figure else "",
            *(part(figure[name]) for pair in zip(MEANS, LEASTS, strict=True) for name in pair),
        ]
        for figure in figures
    ]
    head = [
        "what is in FP16", "weights", "largest error", "embedding cosine", "IoU, mean", "least",
        "of all pixels, mean", "least",
    ]  # fmt: skip
    if not rows:
        return ""
    said = (
        f"Against the float32 model on the same device; {figures[0]['masks']} masks each. The error is that of "
        "embeddings, for decoders that of logits as a part of the largest. The first two IoUs count the pixels that "
        "are decided, as the gate does ([half precision](precision.md)), the last two all pixels. IoUs are cut, not "
        "rounded."
    )
    return f"{said}\n\n{table(head, rows)}"
