"""`samserve track`: track objects through a video."""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from samserve.cli import prompt
from samserve.cli.connection import add_server_flag, connect
from samserve.cli.errors import CommandFailed, explain
from samserve.cli.extras import require_server_extra
from samserve.cli.output import add_force_flag, check_outputs, identities, output_file, unfinished
from samserve.cli.parser import Commands
from samserve.cli.photos import photos_of
from samserve.cli.tracked_masks import TrackedMasks
from samserve.client import InvalidRequest, Prompt, TrackedFrame

if TYPE_CHECKING:
    from samserve.cli.pictures.animation import Frame, VideoFile


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
        help="a video file, or a folder of images in natural order (2.jpg before 10.jpg)",
    )
    prompt.add_point_flag(parser)
    prompt.add_box_flag(parser, "a box around an object; repeatable, one object per box")
    parser.add_argument(
        "--out", type=output_file, metavar="OVERLAY.mp4", help="write the video with its masks: .mp4 or .avi"
    )
    parser.add_argument(
        "--coco", type=output_file, metavar="OUT.json", help="write the masks as a COCO data set, an image per frame"
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="write a PNG per frame whose pixels are 0 or the number of the object",
    )
    add_force_flag(parser)
    add_server_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Follow, print a line for each frame, and write what was asked for.

    Raises:
        CommandFailed: there is no prompt, or one that is ambiguous; an output would destroy a file; or frames were left
            out.
        ClientError, OSError, InvalidManifest, ValidationError: as `samserve segment`.
    """
    prompts = _prompts(arguments)
    require_server_extra("samserve track")
    from samserve.cli.pictures.animation import VideoFile, check_video_name, frames_per_second

    _check_outputs(arguments)
    masks = TrackedMasks(arguments.coco, arguments.masks)
    with ExitStack() as finishing:
        video = None
        if arguments.out is not None:
            try:
                check_video_name(arguments.out)
            except ValueError as error:
                raise CommandFailed(f"--out {error}") from None
            temporary = finishing.enter_context(unfinished(arguments.out))
            video = VideoFile(temporary, frames_per_second(arguments.video))
            finishing.callback(video.close)
        left_out = asyncio.run(_follow(arguments.video, prompts, video, masks, arguments.server))
    masks.close()
    for path in (arguments.out, arguments.coco, arguments.masks):
        if path is not None:
            print(f"wrote {path}")
    if left_out:
        raise CommandFailed(f"{left_out} frames were left out; see the errors above")


def _check_outputs(arguments: argparse.Namespace) -> None:
    frames = photos_of(arguments.video) if arguments.video.is_dir() else [arguments.video]
    inputs = identities(frames)
    check_outputs([arguments.out, arguments.coco], inputs, force=arguments.force)
    if arguments.masks is not None:
        arguments.masks.mkdir(parents=True, exist_ok=True)
        # The frames of a video have no names before they are read: no picture may be there that is not samserve's.
        pictures = [file for file in arguments.masks.iterdir() if file.suffix.lower() == ".png"]
        check_outputs(pictures, inputs, force=arguments.force)


def _prompts(arguments: argparse.Namespace) -> dict[int, Prompt]:
    coords, labels = [(x, y) for x, y, _ in arguments.point], [label for _, _, label in arguments.point]
    if coords and len(arguments.box) > 1:
        raise CommandFailed("points can be combined with one --box only: each box is an object of its own")
    if coords:
        return {1: Prompt(coords, labels, arguments.box[0] if arguments.box else None)}
    if arguments.box:
        return {number: Prompt(box=box) for number, box in enumerate(arguments.box, start=1)}
    raise CommandFailed("no prompt given: use --point X,Y or --box X0,Y0,X1,Y1")


async def _follow(
    path: Path, prompts: dict[int, Prompt], video: "VideoFile | None", masks: TrackedMasks, server: str | None
) -> int:
    """Follow through all frames, and tell how many of them were left out."""
    from samserve.cli.pictures.animation import draw_objects, read_frames

    frames: list[Frame] = []
    left_out = 0

    def leave_out(sentence: str) -> None:
        nonlocal left_out
        left_out += 1
        print(f"samserve: left out {sentence}", file=sys.stderr)

    def files() -> Iterator[bytes]:
        for frame in read_frames(path, leave_out):
            frames.append(frame)
            yield frame.data

    states: Counter[str] = Counter()
    async with connect(server) as client:
        try:
            async for tracked in client.track(files(), prompts):
                states.update(item.state for item in tracked.objects)
                print(_line(tracked))
                # Answers come one for each frame, in order: the last frame read is this one.
                frame = frames.pop()
                frames.clear()
                masks.add(frame.name, frame.picture.shape[:2], tracked)
                if video is not None:
                    shown = {item.object_id: item.mask.mask for item in tracked.objects if item.mask is not None}
                    video.write(draw_objects(frame.picture, shown, f"frame {tracked.sequence}"))
        except InvalidRequest as error:
            # The field names a place in a message; people know the frame.
            where = f"frame {frames[-1].name}: " if frames and error.field.startswith("frame") else ""
            raise CommandFailed(f"{where}{explain(error)}") from error
    print(", ".join(f"{state} {count}" for state, count in states.items()))
    return left_out


def _line(frame: TrackedFrame) -> str:
    parts = [
        f"{tracked.object_id} {tracked.state}" + (f" {tracked.mask.area} px" if tracked.mask is not None else "")
        for tracked in frame.objects
    ]
    return f"{frame.sequence:6d}  {1000 * frame.total_seconds:7.1f} ms   {'   '.join(parts)}"
