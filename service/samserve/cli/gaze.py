"""`samserve gaze`: stream the gaze of a simulated person over a photo, in real time."""

import argparse
import asyncio
import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samserve.cli import prompt
from samserve.cli.connection import add_server_flag, connect
from samserve.cli.errors import CommandFailed
from samserve.cli.extras import require_server_extra
from samserve.cli.output import add_force_flag, check_outputs, identities, output_file
from samserve.cli.parser import Commands
from samserve.cli.pictures.photo import Picture, read_photo
from samserve.client import AsyncClient, GazeAnswer, Refused
from samserve.domain.gaze.simulation import GazeModel, SimulatedSample, simulate_gaze

_SUFFIXES = (".gif", ".webp", ".png")
_ANIMATION_SIDE = 640
_FRAMES_PER_SECOND = 15.0
_TRAIL_SECONDS = 0.25
_STATES = {
    "no_frame": "no frame encoded yet",
    "new_mask": "new mask",
    "same_object": "same object",
    "saccade": "saccade",
    "held": "blink, object held",
    "released": "looking away",
}


def add_to(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "gaze",
        help="segment the objects that a simulated person looks at",
        description="Stream simulated eye tracker samples over a photo in real time and segment the objects looked at.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file: JPEG, PNG, WebP, GIF, BMP or TIFF")
    parser.add_argument(
        "--target",
        type=prompt.point,
        action="append",
        default=[],
        metavar="X,Y",
        help="a point to look at; repeatable; default: random points",
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of the stream; default: 6")
    parser.add_argument("--rate", type=float, default=120.0, help="samples per second; default: 120")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the simulation; default: 0")
    parser.add_argument("--out", type=output_file, metavar="FILE.gif", help="write an animation: .gif, .webp or .png")
    add_force_flag(parser)
    add_server_flag(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True, eq=False)
class _Received:
    answer: GazeAnswer
    staleness_seconds: float


def run(arguments: argparse.Namespace) -> None:
    """Stream, print the outcome of the samples, and write the animation.

    Raises:
        CommandFailed: a flag is out of range, or a sample was rejected.
        ClientError, OSError, InvalidManifest, ValidationError: as for `samserve segment`.
    """
    if arguments.out is not None:
        require_server_extra("--out")
    if arguments.out is not None and arguments.out.suffix.lower() not in _SUFFIXES:
        raise CommandFailed(f"--out {arguments.out}: expected a name ending in {', '.join(_SUFFIXES)}")
    if not (0 < arguments.seconds <= 600 and 1 <= arguments.rate <= 1000):
        raise CommandFailed("--seconds must be above 0 and at most 600, --rate between 1 and 1000")
    check_outputs([arguments.out], identities([arguments.image]), force=arguments.force)
    data = arguments.image.read_bytes()
    try:
        photo = read_photo(data)
    except OSError as error:
        raise CommandFailed(f"{arguments.image}: {error}") from None
    samples = list(
        simulate_gaze(
            photo.shape[:2],
            arguments.seconds,
            arguments.seed,
            [(x, y) for x, y, _ in arguments.target] or None,
            GazeModel(rate_hertz=arguments.rate),
        )
    )
    received = asyncio.run(_stream(data, samples, arguments.server))
    print(_summary(received))
    if arguments.out is not None:
        from samserve.cli.pictures.animation import write_animation

        write_animation(arguments.out, _pictures(photo, samples, received), _FRAMES_PER_SECOND)
        print(f"wrote {arguments.out}")


async def _stream(data: bytes, samples: Sequence[SimulatedSample], server: str | None) -> list[_Received]:
    async with connect(server) as client:
        # Encoded in advance, so that the first sample does not wait for the encoder.
        await client.embed(data)
        return await _watch(client, data, samples)


async def _watch(client: AsyncClient, data: bytes, samples: Sequence[SimulatedSample]) -> list[_Received]:
    sent: dict[int, float] = {}
    received: list[_Received] = []

    async with client.gaze() as stream:

        async def send() -> None:
            await stream.frame(data)
            started = time.perf_counter()
            first = samples[0].timestamp_nanoseconds
            for sample in samples:
                due = (sample.timestamp_nanoseconds - first) / 1e9
                await asyncio.sleep(due - (time.perf_counter() - started))
                sent[sample.timestamp_nanoseconds] = time.perf_counter()
                await stream.sample(sample.timestamp_nanoseconds, sample.x, sample.y, sample.valid)
            await stream.end()

        sending = asyncio.create_task(send())
        try:
            async for answer in stream:
                if isinstance(answer, Refused):
                    raise CommandFailed(f"the server rejected message {answer.sequence}: {answer.error}")
                received.append(_Received(answer, time.perf_counter() - sent[answer.timestamp_nanoseconds]))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return received


def _summary(received: Sequence[_Received]) -> str:
    if not received:
        raise CommandFailed("the stream ended before the first response; raise --seconds")
    counts, states = received[-1].answer.counts, Counter(item.answer.state for item in received)
    milliseconds = sorted(1000 * item.staleness_seconds for item in received)
    masks = [1000 * item.staleness_seconds for item in received if item.answer.state == "new_mask"]
    lines = [
        f"{counts.samples} samples: {counts.decodes} decoded, {counts.samples_skipped} skipped,"
        f" {counts.samples_dropped} dropped",
        *(f"{states[state]:8d}  {meaning}" for state, meaning in _STATES.items() if states[state]),
        f"staleness of answers in ms: median {statistics.median(milliseconds):.1f}, 95 of 100 below"
        f" {milliseconds[math.ceil(0.95 * len(milliseconds)) - 1]:.1f}",
    ]
    if masks:
        lines.append(f"staleness of new masks in ms: median {statistics.median(masks):.1f}, longest {max(masks):.1f}")
    return "\n".join(lines)


def _pictures(photo: Picture, samples: Sequence[SimulatedSample], received: Sequence[_Received]) -> list[Picture]:
    import cv2

    from samserve.cli.pictures.animation import draw_gaze, draw_objects

    scale = min(1.0, _ANIMATION_SIDE / max(photo.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    small = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    first, last = samples[0].timestamp_nanoseconds / 1e9, samples[-1].timestamp_nanoseconds / 1e9
    waiting = iter(received)
    upcoming = next(waiting, None)
    shown, masks = None, {}
    pictures = []
    for now in np.arange(first, last, 1 / _FRAMES_PER_SECOND):
        while upcoming is not None and upcoming.answer.timestamp_nanoseconds / 1e9 + upcoming.staleness_seconds <= now:
            shown = upcoming.answer
            if shown.mask is not None:
                masks = {shown.object_id: shown.mask.mask}
            if not shown.object_id:
                masks = {}
            upcoming = next(waiting, None)
        caption = f"{now - first:4.1f} s   {_STATES[shown.state] if shown is not None else ''}"
        picture = draw_objects(small, masks, caption)
        trail, seen = _trail(samples, now, scale)
        draw_gaze(picture, trail, seen)
        pictures.append(picture)
    return pictures


def _trail(samples: Sequence[SimulatedSample], now: float, scale: float) -> tuple[list[tuple[float, float]], bool]:
    recent = [s for s in samples if now - _TRAIL_SECONDS <= s.timestamp_nanoseconds / 1e9 <= now]
    return [(s.x * scale, s.y * scale) for s in recent if s.valid], bool(recent) and recent[-1].valid
