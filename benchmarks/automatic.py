"""Compare the service's automatic mask generator with Meta's, on the same runtime, graphs and photos.

    python -m benchmarks.automatic [--repository FOLDER] [--image PHOTO] [--points-per-side N] [--rounds N]

The service is called through a gateway and the client, including gRPC, encoding and RLE. Meta's generator runs in this
process and also returns RLE. The photo is tried at several sizes, because the cost of Meta's generator at full
resolution grows with the size. The thresholds let about two thirds of this model's masks pass; SAM's default thresholds
would let none pass.
"""

import argparse
import asyncio
import io
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from modeling.meta_generator import MetaGenerator, Record
from samserve.client import AsyncClient, GeneratedMask
from samserve.gateway.process import gateway
from samserve.gateway.settings import Settings

PHOTO = Path(__file__).resolve().parents[1] / "docs" / "photos" / "coffee.jpg"
LONGEST_SIDES = (600, 1800)
POINTS_PER_BATCH = 16
"""With SAM's 64, Meta's generator would need 1.7 GB for the logits of the larger photo."""

SAME_IOU = 0.99
_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True)
class Turn:
    """One photo processed by both generators."""

    seconds: float
    meta_seconds: float
    masks: int
    meta_masks: int
    matched: int


def calibrated(repository: Path, photo: Image.Image) -> dict[str, float]:
    """Thresholds that about two thirds of this model's masks pass."""
    pixels = np.asarray(photo.resize((300, 200)))
    for offset in (1.0, 0.3, 0.1, 0.03):
        parameters: dict[str, Any] = {"points_per_side": 5, "stability_score_offset": offset, "box_nms_thresh": 1.0}
        everything = MetaGenerator(repository, pred_iou_thresh=0.0, stability_score_thresh=0.0, **parameters)
        records = everything.generate(pixels)
        stability = float(np.quantile([record["stability_score"] for record in records], 0.2))
        if stability > 0.3:
            break
    iou = float(np.quantile([record["predicted_iou"] for record in records], 0.2))
    return {"pred_iou_thresh": iou, "stability_score_thresh": stability, "stability_score_offset": offset}


def matched(masks: list[GeneratedMask], records: list[Record]) -> int:
    """Count the masks that both have in common."""
    if not masks or not records:
        return 0
    ours: Any = [mask.rle for mask in masks]
    theirs: Any = [record["segmentation"] for record in records]
    # The third argument is COCO's `iscrowd`.
    ious = np.array(coco.iou(ours, theirs, [0] * len(theirs)))
    return int((ious.max(axis=1) >= SAME_IOU).sum())


async def turn(client: AsyncClient, meta: MetaGenerator, photo: Image.Image, parameters: dict[str, Any]) -> Turn:
    """Run both generators, one after the other, on a photo that neither has seen."""
    pixels = np.asarray(photo).copy()
    pixels[0, 0] = np.random.default_rng().integers(0, 256, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    started = time.perf_counter()
    stream = client.generate_masks(file.getvalue(), timeout_seconds=_TIMEOUT_SECONDS, **parameters)
    masks = [mask async for mask in stream]
    between = time.perf_counter()
    records = meta.generate(pixels)
    ended = time.perf_counter()
    return Turn(between - started, ended - between, len(masks), len(records), matched(masks, records))


async def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Settings().model_repository)
    parser.add_argument("--image", type=Path, default=PHOTO)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with Image.open(arguments.image) as opened:
        photo = opened.convert("RGB")
    parameters: dict[str, Any] = calibrated(arguments.repository, photo)
    parameters |= {"points_per_side": arguments.points_per_side, "points_per_batch": POINTS_PER_BATCH}
    print(", ".join(f"{name} {value:.3g}" for name, value in parameters.items()))
    meta = MetaGenerator(arguments.repository, **parameters)
    settings = Settings(port=0, model_repository=arguments.repository)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        print("| photo | samserve | Meta's | ratio | samserve's masks | Meta's masks | in both |")
        print("|---|---|---|---|---|---|---|")
        for side in LONGEST_SIDES:
            scale = side / max(photo.size)
            scaled = photo.resize((round(photo.width * scale), round(photo.height * scale)))
            turns = [await turn(client, meta, scaled, parameters) for _ in range(arguments.rounds)]
            ratio = statistics.median(one.seconds / one.meta_seconds for one in turns)
            last = turns[-1]
            print(
                f"| {scaled.width} x {scaled.height} | {statistics.median(one.seconds for one in turns):.1f} s "
                f"| {statistics.median(one.meta_seconds for one in turns):.1f} s | {ratio:.2f} "
                f"| {last.masks} | {last.meta_masks} | {last.matched} |",
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(main())
