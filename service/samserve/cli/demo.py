"""`samserve demo`: start a gateway in its own process and call it twice over gRPC, with a new image and a cached
one."""

import argparse
from importlib import resources
from pathlib import Path

from samserve.cli import prompt, report
from samserve.cli.extras import require_server_extra
from samserve.cli.gateway_process import gateway_process
from samserve.cli.output import add_force_flag, check_outputs, identities, output_file
from samserve.cli.parser import Commands
from samserve.cli.prompt import PromptFlags
from samserve.client import Client, Segmentation

_PHOTO_PROMPT = PromptFlags(points=((280.0, 150.0, 1),))
_CENTRE = PromptFlags(points=((0.5, 0.5, 1),), normalized=True)


def add_to(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "demo",
        help="start a gateway, segment a photo and stop the gateway",
        description="Start a gateway, segment a photo over gRPC twice (cold, then from the cache), write an overlay "
        "and stop the gateway.",
    )
    parser.add_argument("--image", type=Path, metavar="PHOTO", help="photo to segment; default: the bundled one")
    parser.add_argument(
        "--point",
        type=prompt.point,
        metavar="X,Y",
        help="a point on the object in pixels; default: the centre of --image",
    )
    parser.add_argument(
        "--out", type=output_file, default=Path("demo.png"), metavar="OVERLAY.png", help="default: demo.png"
    )
    add_force_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the demo and print a report.

    Raises:
        CommandFailed: the extra `server` is not installed, or the gateway did not start or did not stop cleanly.
        ClientError, OSError: the gateway cannot be called, or a file cannot be read or written.
    """
    require_server_extra("samserve demo")
    photo, flags = _photo_and_prompt(arguments)
    from samserve.cli.pictures.files import check_picture_name

    check_picture_name("--out", arguments.out)
    check_outputs([arguments.out], identities([photo]), force=arguments.force)
    data = photo.read_bytes()
    with gateway_process() as address, Client(address) as client:
        info = client.server_info()
        print(f"model {info.model}, {info.precision}, {info.backend}")
        cold, warm = _segment(client, data, flags), _segment(client, data, flags)
        height, width = warm.original_size
        x, y, _ = flags.marks(warm.original_size).points[0]
        print(f"{photo}, {width} x {height}, at point {x:g},{y:g}")
        print(report.table(warm))
        for name, result in (("cold", cold), ("warm", warm)):
            print(f"{name} {report.timing(result.timings, result.embedding_source)}")
        report.write_overlay(arguments.out, data, warm, flags)
        print(f"wrote {arguments.out}")


def _photo_and_prompt(arguments: argparse.Namespace) -> tuple[Path, PromptFlags]:
    default = _PHOTO_PROMPT if arguments.image is None else _CENTRE
    flags = default if arguments.point is None else PromptFlags(points=(arguments.point,))
    return arguments.image or _bundled_photo(), flags


def _bundled_photo() -> Path:
    """The photo in the package or, in a checkout, the one in the documentation."""
    installed = Path(str(resources.files("samserve.cli") / "coffee.jpg"))
    return installed if installed.is_file() else Path(__file__).resolve().parents[3] / "docs" / "photos" / "coffee.jpg"


def _segment(client: Client, photo: bytes, flags: PromptFlags) -> Segmentation:
    return client.segment(photo, flags.point_coords, flags.point_labels, normalized=flags.normalized)
