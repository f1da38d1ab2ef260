"""Measures the model, and the classical baselines, against human segmentations.

    python -m training.evaluate --cases CASES.py --images FOLDER --weights runs/tiny.safetensors --baselines

CASES.py is the protocol: it gives `cases(folder, images)`, `iou(a, b)` and `score(list)`.
"""

import argparse
import importlib.util
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from modeling.tiny import IMAGE_SIZE
from training.baselines import felzenszwalb_regions, grabcut, region_at
from training.curves import plot_calibration
from training.predictor import Predictor

Scores = dict[str, list[float]]
NOTHING = (np.zeros((0, 2)), np.zeros(0, dtype=np.int64))


def load_cases(path: Path) -> ModuleType:
    """Import the evaluation protocol from its file."""
    spec = importlib.util.spec_from_file_location("cases", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worst_point(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[tuple[float, float], int]:
    """The most interior pixel (x, y) of the largest error region and its label, as in SAM's paper."""
    wrong = (mask != truth).astype(np.uint8)
    if not wrong.any():
        wrong = truth.astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(wrong)
    largest = parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    depth = cv2.distanceTransform(np.pad(largest.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(x) + 0.5, float(y) + 0.5), int(truth[y, x])


def measure_model(predictor: Predictor, case: Any, iou: Any, scores: Scores) -> None:
    """Add one object's results for every kind of prompt."""
    points, labels = np.array([case.point]), np.array([1])
    masks, predicted, logits = predictor.predict(points, labels)
    true = np.array([iou(mask, case.mask) for mask in masks])
    chosen = 1 + int(predicted[1:].argmax())
    scores["1 point, best of three"].append(true[1:].max())
    scores["1 point, chosen by score"].append(true[chosen])
    scores["1 point, single mask"].append(true[0])
    scores["predicted"] += predicted[1:].tolist()
    scores["true"] += true[1:].tolist()
    mask, previous = masks[chosen], logits[chosen]
    for _ in range(2):
        point, label = worst_point(mask, case.mask)
        points, labels = np.vstack([points, point]), np.append(labels, label)
        refined, _, logits = predictor.predict(points, labels, mask_input=previous)
        mask, previous = refined[0], logits[0]
    scores["3 points"].append(iou(mask, case.mask))
    masks, predicted, _ = predictor.predict(*NOTHING, box=case.box)
    scores["box, single mask"].append(iou(masks[0], case.mask))
    scores["box, chosen by score"].append(iou(masks[1 + int(predicted[1:].argmax())], case.mask))


def measure_baselines(
    image: NDArray[np.uint8], regions: list[NDArray[np.int64]], case: Any, iou: Any, scores: Scores
) -> None:
    """Add one object's results of the baselines."""
    found = [iou(mask, case.mask) for mask in region_at(regions, case.point)]
    scores["felzenszwalb at the point, best of three scales"].append(max(found))
    scores["felzenszwalb at the point, middle scale"].append(found[1])
    x0, y0, x1, y1 = (int(value) for value in case.box)
    inside = np.zeros_like(case.mask)
    inside[y0:y1, x0:x1] = True
    scores["the box itself"].append(iou(inside, case.mask))
    scores["GrabCut from the box"].append(iou(grabcut(image, case.box), case.mask))


def report(scores: Scores, protocol: ModuleType) -> str:
    """Format the table: one line per kind of prompt, mean IoU in percent."""
    predicted, true = scores.pop("predicted", []), scores.pop("true", [])
    lines = [f"{name:50s} {protocol.score(values):5.1f}" for name, values in scores.items()]
    if predicted:
        lines.append(f"{'correlation of predicted and true IoU':50s} {np.corrcoef(predicted, true)[0, 1]:5.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path("runs/tiny.safetensors"))
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    parser.add_argument("--first", type=int, help="evaluate only this many images")
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--calibration", type=Path, help="PNG file for a plot of true IoU by predicted IoU")
    arguments = parser.parse_args()
    protocol = load_cases(arguments.cases)
    predictor = Predictor.load(arguments.weights, arguments.image_size)
    scores: Scores = defaultdict(list)
    current: Path | None = None
    pixels, regions = np.zeros((0, 0, 3), dtype=np.uint8), []
    torch.set_grad_enabled(False)
    for case in tqdm(protocol.cases(arguments.images, arguments.first), desc="objects"):
        if case.image_path != current:
            current = case.image_path
            image = Image.open(case.image_path).convert("RGB")
            predictor.set_image(image)
            if arguments.baselines:
                pixels = np.asarray(image)
                regions = felzenszwalb_regions(pixels)
        measure_model(predictor, case, protocol.iou, scores)
        if arguments.baselines:
            measure_baselines(pixels, regions, case, protocol.iou, scores)
    if arguments.calibration:
        plot_calibration(scores["predicted"], scores["true"], arguments.calibration)
    print(f"{len(scores['3 points'])} objects, input {arguments.image_size}")
    print(report(scores, protocol))


if __name__ == "__main__":
    main()
