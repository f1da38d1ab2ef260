"""`samserve segment`: segment one photo with one prompt."""

import argparse
import asyncio
from pathlib import Path

from samserve.cli import boxes, pieces, prompt, report
from samserve.cli.connection import add_server_flag, connect
from samserve.cli.errors import CommandFailed
from samserve.cli.extras import require_server_extra
from samserve.cli.output import add_force_flag, check_outputs, identities, output_file
from samserve.cli.parser import Commands
from samserve.cli.prompt import PromptFlags
from samserve.client import Segmentation


def add_to(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "segment",
        help="segment an object in a photo",
        description="Segment the object given by points, a box or a text. Coordinates are pixels of the photo after "
        "EXIF rotation.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file: JPEG, PNG, WebP, GIF, BMP or TIFF")
    prompt.add_point_flag(parser)
    prompt.add_box_flag(parser, "a box around an object; returns a single mask; repeatable, one object per box")
    parser.add_argument(
        "--text", metavar="TEXT", help="description of the object, such as 'a dog' (docs/text-prompts.md)"
    )
    parser.add_argument(
        "--normalized", action="store_true", help="coordinates are fractions of width and height, 0 to 1"
    )
    parser.add_argument(
        "--single", action="store_true", help="return one mask instead of three (multimask_output=False)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with the masks as COCO RLE")
    parser.add_argument(
        "--out",
        type=output_file,
        metavar="OVERLAY.png",
        help="write the photo with its masks: .png, .jpg, .webp or .tif",
    )
    parser.add_argument(
        "--mask",
        type=output_file,
        metavar="MASK.png",
        help="write the best mask in black and white: .png or .tif; several boxes get MASK_1.png, MASK_2.png, ...",
    )
    parser.add_argument(
        "--cutout",
        type=output_file,
        metavar="CUTOUT.png",
        help="write the object alone on a transparent background: .png or .tif; several as --mask",
    )
    add_force_flag(parser)
    add_server_flag(parser)
    parser.add_argument(
        "--boxes", type=Path, metavar="DETECTIONS.json", help="boxes of a detector in COCO results format (bbox XYWH)"
    )
    parser.add_argument(
        "--image-id", metavar="ID", help="with --boxes: id of the photo there; default: found by the photo's name"
    )
    parser.add_argument(
        "--coco", type=output_file, metavar="OUT.json", help="with --boxes: write COCO results with the masks as RLE"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Segment the photo and print the masks.

    Raises:
        CommandFailed: there is no prompt, or the flags contradict each other.
        ClientError: the server rejected the request, or did not answer.
        OSError: a file cannot be read or written.
        InvalidManifest, ValidationError: no server was given, and a gateway cannot start.
    """
    for flag, path in (("--out", arguments.out), ("--mask", arguments.mask), ("--cutout", arguments.cutout)):
        if path is not None:
            require_server_extra(flag)
            from samserve.cli.pictures.files import check_picture_name

            check_picture_name(flag, path, lossless=flag != "--out")
    inputs = [arguments.image, *([] if arguments.boxes is None else [arguments.boxes])]
    count = max(1, len(arguments.box))
    outputs = [
        arguments.out,
        arguments.coco,
        *pieces.files(arguments.mask, count),
        *pieces.files(arguments.cutout, count),
    ]
    check_outputs(outputs, identities(inputs), force=arguments.force)
    if arguments.boxes is None and (arguments.coco is not None or arguments.image_id is not None):
        raise CommandFailed("--coco and --image-id require --boxes DETECTIONS.json")
    if arguments.boxes is not None:
        boxes.run(arguments)
        return
    has_place = bool(arguments.point or arguments.box)
    if has_place and arguments.text is not None:
        raise CommandFailed("--text cannot be combined with --point or --box")
    if not has_place and arguments.text is None:
        raise CommandFailed("no prompt given: use --point X,Y, --box X0,Y0,X1,Y1, --text TEXT or --boxes FILE")
    if len(arguments.box) > 1:
        boxes.run(arguments)
        return
    box = arguments.box[0] if arguments.box else None
    flags = PromptFlags(tuple(arguments.point), box, arguments.normalized)
    photo = arguments.image.read_bytes()
    multimask_output = box is None and not arguments.single
    result = asyncio.run(_segment(photo, flags, arguments.text, multimask_output, arguments.server))
    if arguments.json:
        print(report.as_json(result))
    else:
        height, width = result.original_size
        print(f"{arguments.image}, {width} x {height}, {result.image_id}")
        print(report.table(result))
        print(report.timing(result.timings, result.embedding_source))
    if not result.rles:
        return
    if arguments.out is not None:
        report.write_overlay(arguments.out, photo, result, flags)
    pieces.write_masks(arguments.mask, [result])
    pieces.write_cutouts(arguments.cutout, photo, [result])


async def _segment(
    photo: bytes, flags: PromptFlags, text: str | None, multimask_output: bool, server: str | None
) -> Segmentation:
    async with connect(server) as client:
        return await client.segment(
            photo,
            flags.point_coords,
            flags.point_labels,
            flags.box,
            multimask_output=multimask_output,
            text=text,
            normalized=flags.normalized,
            low_res_masks=False,
        )
