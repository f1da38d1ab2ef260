"""The table of parity with the float32 model."""

from benchmarks.gpu_tables.markdown import part, table
from benchmarks.gpu_tables.results import Figure, Results

MEANS = ("iou_mean", "iou_mean_all_pixels")
LEASTS = ("iou_least", "iou_least_all_pixels")


def parity_figures(results: Results) -> list[Figure]:
    """Select the comparisons of masks with those of the float32 model."""
    return [figure for figure in results.of("parity") if "iou_mean" in figure]


def parity_table(results: Results) -> str:
    """Render errors and IoUs by formulation and weights."""
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
        "part in FP16", "weights", "largest error", "embedding cosine", "decided pixels: mean IoU", "smallest IoU",
        "all pixels: mean IoU", "smallest IoU",
    ]  # fmt: skip
    if not rows:
        return ""
    said = (
        f"Compared with the float32 model on the same device, {figures[0]['masks']} masks for each row. The error is "
        "that of the embedding or, for decoders, that of the logits relative to the largest logit. Decided pixels are "
        "those that the parity gate counts ([half precision](precision.md)). IoUs are truncated, not rounded."
    )
    return f"{said}\n\n{table(head, rows)}"
