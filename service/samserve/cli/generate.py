"""`samserve generate`: generate masks for everything in a photo, or in each photo of a folder."""

import argparse
import asyncio
import sys
from collections.abc import Container, Sequence
from contextlib import aclosing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from samserve.cli import sa1b
from samserve.cli.connection import add_server_flag, connect
from samserve.cli.errors import CommandFailed, explain
from samserve.cli.extras import require_server_extra
from samserve.cli.output import FileIdentity, add_force_flag, check_outputs, identities, printable, write_file
from samserve.cli.parser import Commands
from samserve.cli.photos import photos_of
from samserve.cli.pictures.photo import read_photo
from samserve.client import (
    AsyncClient,
    ClientError,
    GeneratedMask,
    ImageId,
    InvalidRequest,
    MaskGenerationParameters,
    Overloaded,
    Unavailable,
)
from samserve.client.rle import decode_rle
from samserve.domain.automatic import AutomaticMaskParameters

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

_OF_THE_MODEL = ("pred_iou_thresh", "stability_score_thresh")
"""Parameters whose defaults come with the model, in its manifest."""

_FEW_MASKS = 3
_FEW_PASS = ": few masks pass the thresholds; for more, lower --pred-iou-thresh and --stability-score-thresh"


def add_to(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "generate",
        help="generate the masks of all objects in photos",
        description="Run SAM's automatic mask generator on a photo or on each photo of a folder. Photos whose JSON "
        "file in --out was made by the same model with the same parameters are skipped.",
    )
    parser.add_argument("photos", type=Path, metavar="IMAGE|FOLDER", help="a photo, or a folder of photos")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder for NAME.json")
    parser.add_argument("--overlay", action="store_true", help="also write NAME.png, the photo with its masks")
    parser.add_argument("--overwrite", action="store_true", help="also process photos that are done")
    add_force_flag(parser)
    add_server_flag(parser)
    for field in fields(AutomaticMaskParameters):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=argparse.SUPPRESS,
            metavar="N" if isinstance(field.default, int) else "X",
            help=f"{_PARAMETERS[field.name]}; default: "
            + ("the model's" if field.name in _OF_THE_MODEL else f"{field.default:.4g}"),
        )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Generate and write.

    Raises:
        CommandFailed: there are no photos, or some failed.
        ClientError: a parameter is out of range, or the server does not answer.
        OSError: the output folder cannot be written.
        InvalidManifest, ValidationError: no server was named, and its own cannot start.
    """
    if arguments.overlay:
        require_server_extra("--overlay")
    photos = _photos(arguments.photos)
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = asyncio.run(_generate_all(photos, arguments))
    if failed:
        raise CommandFailed(f"{failed} of {len(photos)} photos failed; see the errors above")


def _photos(path: Path) -> list[Path]:
    if not path.is_dir():
        # Report missing files before starting a gateway.
        with path.open("rb"):
            return [path]
    photos = photos_of(path)
    by_stem: dict[str, Path] = {}
    for photo in photos:
        other = by_stem.setdefault(photo.stem, photo)
        if other is not photo:
            raise CommandFailed(f"{other.name} and {photo.name} would both be written to {photo.stem}.json; rename one")
    return photos


async def _generate_all(photos: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Work on all photos, and tell how many of them failed."""
    failed = done = 0
    names = AutomaticMaskParameters.__dataclass_fields__
    parameters = MaskGenerationParameters(**{k: v for k, v in vars(arguments).items() if k in names})  # type: ignore[typeddict-item]
    inputs = identities(photos)
    async with connect(arguments.server) as client:
        info = await client.server_info()
        recipe = sa1b.Recipe(info.model, info.fingerprint, _recorded(parameters))
        # On a terminal only; elsewhere the lines below tell what happens.
        for photo in tqdm(photos, unit="photo", disable=None if len(photos) > 1 else True):
            files = _Files(photo, arguments)
            try:
                masks = await _generate(client, files, inputs, parameters, recipe, arguments)
            except (ClientError, CommandFailed, OSError) as error:
                if _concerns_all(error):
                    raise
                failed += 1
                tqdm.write(f"{photo}: {explain(error)}", file=sys.stderr)
            else:
                if masks is None:
                    done += 1
                else:
                    tqdm.write(f"{photo}: {masks} masks{_FEW_PASS if masks < _FEW_MASKS else ''}")
    if done:
        print(f"{done} of {len(photos)} photos are done already (--overwrite reprocesses them)")
    return failed


def _recorded(parameters: MaskGenerationParameters) -> dict[str, float]:
    """The parameters that make other masks than the defaults."""
    defaults = asdict(AutomaticMaskParameters())
    # A model's thresholds may differ from SAM's.
    given: dict[str, Any] = dict(parameters)
    given.pop("points_per_batch", None)
    return {name: value for name, value in given.items() if name in _OF_THE_MODEL or value != defaults[name]}


def _concerns_all(error: Exception) -> bool:
    """Whether the other photos would fail in the same way."""
    if isinstance(error, InvalidRequest):
        return error.field in _PARAMETERS
    return isinstance(error, Unavailable | Overloaded)


class _Files:
    """One photo and what is written of it."""

    def __init__(self, photo: Path, arguments: argparse.Namespace) -> None:
        self.photo = photo
        self.record: Path = arguments.out / f"{photo.stem}.json"
        self.overlay: Path | None = arguments.out / f"{photo.stem}.png" if arguments.overlay else None

    def overlay_is_missing(self) -> bool:
        """Whether an overlay is asked for and not there, or older than the record."""
        if self.overlay is None:
            return False
        return not self.overlay.exists() or self.overlay.stat().st_mtime_ns < self.record.stat().st_mtime_ns


async def _generate(
    client: AsyncClient,
    files: _Files,
    inputs: Container[FileIdentity],
    parameters: MaskGenerationParameters,
    recipe: sa1b.Recipe,
    arguments: argparse.Namespace,
) -> int | None:
    """Write what is missing of one photo; the number of its masks, or None where nothing was missing."""
    data = await asyncio.to_thread(files.photo.read_bytes)
    record = None if arguments.overwrite else sa1b.read_record(files.record, ImageId.of(data), recipe)
    if record is not None and not files.overlay_is_missing():
        return None
    check_outputs([files.record, files.overlay], inputs, force=arguments.force)
    if record is None:
        image = await client.embed(data, timeout_seconds=_TIMEOUT_SECONDS)
        masks = await _masks(client, files.photo.name, data, parameters)
        record = sa1b.record(files.photo, image, masks, recipe)
        write_file(files.record, sa1b.encode(record))
    annotations = record["annotations"]
    if files.overlay is not None:
        # After the record, so that an overlay which is older than it is known to show another one.
        await asyncio.to_thread(_draw, files.overlay, data, annotations)
    return len(annotations)


async def _masks(
    client: AsyncClient, name: str, data: bytes, parameters: MaskGenerationParameters
) -> list[GeneratedMask]:
    with tqdm(unit="point", desc=printable(name), leave=False, disable=None) as bar:

        def on_progress(points_done: int, points_total: int) -> None:
            bar.total = points_total
            bar.update(points_done - bar.n)

        found = client.generate_masks(data, on_progress=on_progress, timeout_seconds=_TIMEOUT_SECONDS, **parameters)
        async with aclosing(found):
            return [mask async for mask in found]


def _draw(path: Path, photo: bytes, annotations: Sequence[dict[str, Any]]) -> None:
    from PIL import Image

    from samserve.cli.pictures.files import write_picture
    from samserve.cli.pictures.overlay import ObjectOverlay, draw_objects

    largest_first = sorted(annotations, key=lambda annotation: -annotation["area"])
    pixels = read_photo(photo)
    size = (pixels.shape[0], pixels.shape[1])
    # One after the other, since all masks of a large photo would not fit into memory.
    objects = (
        ObjectOverlay(decode_rle(annotation["segmentation"]["counts"].encode("ascii"), size))
        for annotation in largest_first
    )
    write_picture(path, Image.fromarray(draw_objects(pixels, objects)))
