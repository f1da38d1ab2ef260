"""`samserve segment --boxes`: instance segmentation from a detector's boxes."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from samserve.cli import report
from samserve.cli.connection import connect
from samserve.cli.detections import DetectedBox, coco_results, read_detections
from samserve.cli.errors import CommandFailed
from samserve.cli.pictures.photo import read_photo
from samserve.cli.sa1b import write_atomically
from samserve.client import Segmentation
from samserve.client.rle import decode_rle


def run(arguments: argparse.Namespace) -> None:
    """Segment all boxes of one photo, print a summary, and write the requested files.

    Raises:
        CommandFailed: another prompt is given too, or the boxes cannot be used.
        ClientError: the server rejected the request, or did not answer.
        OSError: a file cannot be read or written.
    """
    if arguments.point or arguments.box or arguments.normalized:
        raise CommandFailed("--boxes cannot be combined with --point, --box or --normalized")
    if arguments.coco is None and arguments.out is None and not arguments.json:
        raise CommandFailed("--boxes needs an output: give --coco OUT.json, --out OVERLAY.png or --json")
    photo = arguments.image.read_bytes()
    boxes, segmentations = asyncio.run(_segment(photo, arguments))
    results = json.dumps(coco_results(boxes, segmentations))
    if arguments.json:
        print(results)
    else:
        height, width = segmentations[0].original_size
        print(f"{arguments.image}, {width} x {height}, {len(boxes)} boxes")
        print(report.timing(segmentations[0].timings, segmentations[0].embedding_source))
    if arguments.coco is not None:
        write_atomically(arguments.coco, results.encode())
    if arguments.out is not None:
        _write_overlay(arguments.out, photo, boxes, segmentations)


async def _segment(photo: bytes, arguments: argparse.Namespace) -> tuple[list[DetectedBox], list[Segmentation]]:
    async with connect(arguments.server) as client:
        image = await client.embed(photo)
        boxes = read_detections(arguments.boxes, arguments.image, image.original_size)
        at_once = (await client.server_info()).limits.max_prompts
        segmentations: list[Segmentation] = []
        for start in range(0, len(boxes), at_once):
            prompts = [box.prompt() for box in boxes[start : start + at_once]]
            # A box is rarely ambiguous, so SAM's single mask is used.
            segmentations += await client.segment_many(photo, prompts, multimask_output=False)
        return boxes, segmentations


def _write_overlay(
    path: Path, photo: bytes, boxes: Sequence[DetectedBox], segmentations: Sequence[Segmentation]
) -> None:
    from samserve.cli.pictures.overlay import ObjectOverlay, draw_objects, png

    largest_first = sorted(zip(boxes, segmentations, strict=True), key=lambda pair: -pair[1].areas[0])
    objects = (
        ObjectOverlay(
            decode_rle(segmentation.rles[0]["counts"], segmentation.original_size),
            box.box,
            f"{box.detection.category_id}  {box.detection.score:.2f}",
        )
        for box, segmentation in largest_first
    )
    write_atomically(path, png(draw_objects(read_photo(photo), objects)))
