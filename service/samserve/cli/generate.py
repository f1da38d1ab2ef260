"""`samserve generate`: generate masks for everything in a photo, or in each photo of a folder."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from samserve.cli import sa1b
from samserve.cli.connection import add_server_flag, connect
from samserve.cli.errors import CommandFailed
from samserve.cli.extras import require_server_extra
from samserve.cli.parser import Commands
from samserve.cli.pictures.photo import read_photo
from samserve.client import AsyncClient, GeneratedMask, InvalidRequest, MaskGenerationParameters
from samserve.client.rle import decode_rle
from samserve.domain.automatic import AutomaticMaskParameters

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

_TIMEOUT_SECONDS = 24 * 3600.0
"""A large model on a CPU takes long; the progress bar shows that it is working."""

_PARAMETERS = {
    "points_per_side": "points on each side of the grid",
    "points_per_batch": "points per run of the mask decoder",
    "pred_iou_thresh": "predicted IoU that a mask must exceed",
    "stability_score_thresh": "minimum stability score of a mask",
    "stability_score_offset": "offset of the mask threshold for the stability score",
    "box_nms_thresh": "box IoU above which masks of a crop are duplicates",
    "crop_n_layers": "layers of crops that are searched besides the image",
    "crop_nms_thresh": "box IoU above which masks of different crops are duplicates",
    "crop_overlap_ratio": "overlap of crops, as a fraction of the image's shorter side",
    "crop_n_points_downscale_factor": "factor that divides the points per side with each layer of crops",
    "min_mask_region_area": "smaller regions and holes of a mask are removed, in pixels",
}
"""Help texts for the parameters of SamAutomaticMaskGenerator."""

_NONE_PASSES = (
    ": no mask passes the thresholds; lower --pred-iou-thresh and --stability-score-thresh and add --overwrite"
)


def add_to(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "generate",
        help="generate the masks of all objects in photos",
        description="Run SAM's automatic mask generator on a photo or on each photo of a folder. Photos that already "
        "have a JSON file in --out are skipped.",
    )
    parser.add_argument("photos", type=Path, metavar="IMAGE|FOLDER", help="a photo, or a folder of photos")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder for NAME.json")
    parser.add_argument("--overlay", action="store_true", help="also write NAME.png, the photo with its masks")
    parser.add_argument("--overwrite", action="store_true", help="also process photos that already have a JSON file")
    add_server_flag(parser)
    for field in fields(AutomaticMaskParameters):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=argparse.SUPPRESS,
            metavar="N" if isinstance(field.default, int) else "X",
            help=f"{_PARAMETERS[field.name]}; default: {field.default:.4g}",
        )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Generate and write.

    Raises:
        CommandFailed: there are no photos, or some could not be read.
        ClientError: the server refused, or did not answer.
        OSError: a file cannot be written.
        InvalidManifest, ValidationError: no server was named, and its own cannot start.
    """
    if arguments.overlay:
        require_server_extra("--overlay")
    photos = _photos(arguments.photos)
    arguments.out.mkdir(parents=True, exist_ok=True)
    waiting = [photo for photo in photos if arguments.overwrite or not _json(photo, arguments.out).exists()]
    if len(waiting) < len(photos):
        print(f"{len(photos) - len(waiting)} of {len(photos)} photos are done already (--overwrite reprocesses them)")
    failed = asyncio.run(_generate_all(waiting, arguments)) if waiting else 0
    if failed:
        raise CommandFailed(f"{failed} of {len(waiting)} photos failed; see the errors above")


def _photos(path: Path) -> list[Path]:
    if not path.is_dir():
        # Report missing files before starting a gateway.
        with path.open("rb"):
            return [path]
    photos = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not photos:
        raise CommandFailed(f"{path} contains no photos ({', '.join(sorted(SUFFIXES))})")
    by_stem: dict[str, Path] = {}
    for photo in photos:
        other = by_stem.setdefault(photo.stem, photo)
        if other is not photo:
            raise CommandFailed(f"{other.name} and {photo.name} would both be written to {photo.stem}.json; rename one")
    return photos


def _json(photo: Path, out: Path) -> Path:
    return out / f"{photo.stem}.json"


async def _generate_all(photos: Sequence[Path], arguments: argparse.Namespace) -> int:
    failed = 0
    names = AutomaticMaskParameters.__dataclass_fields__
    parameters = MaskGenerationParameters(**{k: v for k, v in vars(arguments).items() if k in names})  # type: ignore[typeddict-item]
    async with connect(arguments.server) as client:
        # Only on a terminal; elsewhere the lines below report progress.
        for photo in tqdm(photos, unit="photo", disable=None if len(photos) > 1 else True):
            try:
                count = await _generate(client, photo, arguments.out, parameters, arguments.overlay)
            except (InvalidRequest, OSError) as error:
                if isinstance(error, InvalidRequest) and not error.field.startswith("image"):
                    raise
                failed += 1
                tqdm.write(f"{photo}: {error}", file=sys.stderr)
            else:
                hint = "" if count else _NONE_PASSES
                tqdm.write(f"{photo}: {count} masks{hint}")
    return failed


async def _generate(
    client: AsyncClient, photo: Path, out: Path, parameters: MaskGenerationParameters, overlay: bool
) -> int:
    data = await asyncio.to_thread(photo.read_bytes)
    image = await client.embed(data, timeout_seconds=_TIMEOUT_SECONDS)
    with tqdm(unit="point", desc=photo.name, leave=False, disable=None) as bar:

        def on_progress(points_done: int, points_total: int) -> None:
            bar.total = points_total
            bar.update(points_done - bar.n)

        found = client.generate_masks(data, on_progress=on_progress, timeout_seconds=_TIMEOUT_SECONDS, **parameters)
        async with aclosing(found):
            masks = [mask async for mask in found]
    if overlay:
        picture = await asyncio.to_thread(_draw, data, masks)
        sa1b.write_atomically(out / f"{photo.stem}.png", picture)
    # Written last, because it marks the photo as done.
    sa1b.write_atomically(_json(photo, out), sa1b.encode(sa1b.record(photo, image, masks)))
    return len(masks)


def _draw(photo: bytes, masks: Sequence[GeneratedMask]) -> bytes:
    from samserve.cli.pictures.overlay import ObjectOverlay, draw_objects, png

    # `GeneratedMask.mask` would keep every decoded mask in memory.
    largest_first = sorted(masks, key=lambda mask: -mask.area)
    pixels = read_photo(photo)
    size = (pixels.shape[0], pixels.shape[1])
    return png(draw_objects(pixels, (ObjectOverlay(decode_rle(mask.rle["counts"], size)) for mask in largest_first)))
