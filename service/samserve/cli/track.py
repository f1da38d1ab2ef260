"""`samserve track`: track objects through a video."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from samserve.cli import prompt
from samserve.cli.connection import add_server_flag, connect
from samserve.cli.errors import CommandFailed
from samserve.cli.extras import require_server_extra
from samserve.cli.output import output_file
from samserve.cli.parser import Commands
from samserve.client import Prompt, TrackedFrame

if TYPE_CHECKING:
    from samserve.cli.pictures.animation import Picture, VideoFile


def add_to(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "track",
        help="track objects through a video",
        description="Track objects through a video or a folder of frames. Coordinates are pixels of the first frame.",
    )
    parser.add_argument(
        "video",
        type=Path,
        metavar="VIDEO|FOLDER",
        help="a video file, or a folder of images in the order of their names",
    )
    prompt.add_point_flag(parser)
    prompt.add_box_flag(parser, "a box around an object; repeatable, one object per box")
    parser.add_argument(
        "--out", type=output_file, metavar="OVERLAY.mp4", help="write the video with its masks: .mp4 or .avi"
    )
    add_server_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Track the objects, print a line per frame, and write the video.

    Raises:
        CommandFailed: there is no prompt, or it is ambiguous.
        ClientError, OSError, InvalidManifest, ValidationError: as for `samserve segment`.
    """
    prompts = _prompts(arguments)
    require_server_extra("samserve track")
    from samserve.cli.pictures.animation import VideoFile, frames_per_second

    try:
        video = VideoFile(arguments.out, frames_per_second(arguments.video)) if arguments.out is not None else None
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    try:
        asyncio.run(_follow(arguments.video, prompts, video, arguments.server))
    finally:
        if video is not None:
            video.close()
    if video is not None:
        print(f"wrote {arguments.out}")


def _prompts(arguments: argparse.Namespace) -> dict[int, Prompt]:
    coords, labels = [(x, y) for x, y, _ in arguments.point], [label for _, _, label in arguments.point]
    if coords and len(arguments.box) > 1:
        raise CommandFailed("points can be combined with one --box only: each box is an object of its own")
    if coords:
        return {1: Prompt(coords, labels, arguments.box[0] if arguments.box else None)}
    if arguments.box:
        return {number: Prompt(box=box) for number, box in enumerate(arguments.box, start=1)}
    raise CommandFailed("no prompt given: use --point X,Y or --box X0,Y0,X1,Y1")


async def _follow(path: Path, prompts: dict[int, Prompt], video: "VideoFile | None", server: str | None) -> None:
    from samserve.cli.pictures.animation import draw_objects, read_frames

    pictures: list[Picture] = []

    def files() -> Iterator[bytes]:
        for data, picture in read_frames(path):
            pictures.append(picture)
            yield data

    states: Counter[str] = Counter()
    async with connect(server) as client:
        async for frame in client.track(files(), prompts):
            states.update(tracked.state for tracked in frame.objects)
            print(_line(frame))
            # There is one result per frame, in order, so the last picture read belongs to this frame.
            picture = pictures.pop()
            pictures.clear()
            if video is not None:
                masks = {tracked.object_id: tracked.mask.mask for tracked in frame.objects if tracked.mask is not None}
                video.write(draw_objects(picture, masks, f"frame {frame.sequence}"))
    print(", ".join(f"{state} {count}" for state, count in states.items()))


def _line(frame: TrackedFrame) -> str:
    parts = [
        f"{tracked.object_id} {tracked.state}" + (f" {tracked.mask.area} px" if tracked.mask is not None else "")
        for tracked in frame.objects
    ]
    return f"{frame.sequence:6d}  {1000 * frame.total_seconds:7.1f} ms   {'   '.join(parts)}"
