"""`samserve segment` with several boxes: the user's, or a detector's (`--boxes`)."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samserve.cli import pieces, report
from samserve.cli.connection import connect
from samserve.cli.detections import DetectedBox, coco_results, read_detections
from samserve.cli.errors import CommandFailed
from samserve.cli.output import check_outputs, identities, write_file
from samserve.cli.pictures.photo import read_photo
from samserve.cli.prompt import PromptFlags
from samserve.cli.sa1b import encode
from samserve.client import AsyncClient, EmbeddedImage, Prompt, Segmentation
from samserve.client.rle import decode_rle


@dataclass(frozen=True, slots=True)
class _Box:
    """A box in pixels, and what the picture says of it."""

    box: tuple[float, float, float, float]
    caption: str


def run(arguments: argparse.Namespace) -> None:
    """Segment all boxes of one photo, print a summary, and write the requested files.

    Raises:
        CommandFailed: another prompt is given too, the boxes cannot be used, or an output would destroy a file.
        ClientError: the server refused, or did not answer.
        OSError: a file cannot be read or written.
    """
    if arguments.point:
        raise CommandFailed("--point can be combined with one --box only: each box is an object of its own")
    photo = arguments.image.read_bytes()
    if arguments.boxes is None:
        asyncio.run(_segment_flags(photo, arguments))
        return
    if arguments.box or arguments.text is not None or arguments.normalized:
        raise CommandFailed("--boxes cannot be combined with --box, --text or --normalized")
    wanted = (arguments.coco, arguments.out, arguments.mask, arguments.cutout)
    if not any(wanted) and not arguments.json:
        raise CommandFailed(
            "--boxes needs an output: give --coco OUT.json, --out OVERLAY.png, --mask, --cutout or --json"
        )
    asyncio.run(_segment_detections(photo, arguments))


async def _segment_flags(photo: bytes, arguments: argparse.Namespace) -> None:
    """The boxes of `--box`, in pixels or normalised."""
    async with connect(arguments.server) as client:
        image = await client.embed(photo)
        prompts = [Prompt(box=box) for box in arguments.box]
        segmentations = await _segment(client, photo, prompts, normalized=arguments.normalized)
    marked = [PromptFlags(box=box, normalized=arguments.normalized) for box in arguments.box]
    boxes = [flags.marks(image.original_size).box for flags in marked]
    shown = [_Box(box, f"{number}") for number, box in enumerate(boxes, start=1) if box is not None]
    if arguments.json:
        print(report.several_as_json(segmentations, arguments.box))
    else:
        print(f"{arguments.image}, {_size(image)}, {image.image_id}")
        print(report.tables(segmentations))
        print(report.timing(segmentations[0].timings, segmentations[0].embedding_source))
    _write_pictures(arguments, photo, shown, segmentations)


async def _segment_detections(photo: bytes, arguments: argparse.Namespace) -> None:
    """The boxes of `--boxes`."""
    async with connect(arguments.server) as client:
        image = await client.embed(photo)
        found = read_detections(arguments.boxes, arguments.image, image.original_size, arguments.image_id)
        for sentence in found.skipped:
            print(f"samserve: skipped {sentence}", file=sys.stderr)
        names = [*pieces.files(arguments.mask, len(found.boxes)), *pieces.files(arguments.cutout, len(found.boxes))]
        check_outputs(names, identities([arguments.image, arguments.boxes]), force=arguments.force)
        segmentations = await _segment(client, photo, [box.prompt() for box in found.boxes])
    results = encode(coco_results(found.boxes, segmentations))
    if arguments.json:
        print(results.decode())
    else:
        print(f"{arguments.image}, {_size(image)}, {len(found.boxes)} boxes")
        if segmentations:
            print(report.timing(segmentations[0].timings, segmentations[0].embedding_source))
    if arguments.coco is not None:
        write_file(arguments.coco, results)
    _write_pictures(arguments, photo, [_shown(box) for box in found.boxes], segmentations)


def _shown(box: DetectedBox) -> _Box:
    return _Box(box.box, f"{box.detection.category_id}  {box.detection.score:.2f}")


def _size(image: EmbeddedImage) -> str:
    height, width = image.original_size
    return f"{width} x {height}"


async def _segment(
    client: AsyncClient, photo: bytes, prompts: Sequence[Prompt], *, normalized: bool = False
) -> list[Segmentation]:
    at_once = (await client.server_info()).limits.max_prompts
    segmentations: list[Segmentation] = []
    for start in range(0, len(prompts), at_once):
        some = prompts[start : start + at_once]
        # A box says what is meant: SAM's single mask is made for it.
        segmentations += await client.segment_many(photo, some, multimask_output=False, normalized=normalized)
    return segmentations


def _write_pictures(
    arguments: argparse.Namespace, photo: bytes, boxes: Sequence[_Box], segmentations: Sequence[Segmentation]
) -> None:
    if arguments.out is not None:
        _write_overlay(arguments.out, photo, boxes, segmentations)
    pieces.write_masks(arguments.mask, segmentations)
    pieces.write_cutouts(arguments.cutout, photo, segmentations)


def _write_overlay(path: Path, photo: bytes, boxes: Sequence[_Box], segmentations: Sequence[Segmentation]) -> None:
    from PIL import Image

    from samserve.cli.pictures.files import write_picture
    from samserve.cli.pictures.overlay import ObjectOverlay, draw_objects

    largest_first = sorted(zip(boxes, segmentations, strict=True), key=lambda pair: -pair[1].areas[0])
    objects = (
        ObjectOverlay(decode_rle(segmentation.rles[0]["counts"], segmentation.original_size), box.box, box.caption)
        for box, segmentation in largest_first
    )
    write_picture(path, Image.fromarray(draw_objects(read_photo(photo), objects)))
