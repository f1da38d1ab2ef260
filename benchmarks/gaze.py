"""Gaze streams at a fixed arrival rate.

    python benchmarks/gaze.py [--image PHOTO] [--seconds S] [--rate HZ] [--limit-ms MS] [--max-streams N]

N streams of simulated gaze on a cached frame go through a gateway in its own process. Samples are sent on schedule,
whether or not earlier ones were answered, and their age is counted from their scheduled time. N doubles until the 99th
percentile exceeds the limit. The clients of the streams share the machine with the gateway.
"""

import argparse
import asyncio
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from samserve.cli.gateway_process import gateway_process
from samserve.cli.pictures.photo import read_photo
from samserve.domain.gaze.simulation import GazeModel, simulate_gaze
from samserve.domain.geometry import Size
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub

PHOTO = Path(__file__).resolve().parents[1] / "docs" / "photos" / "coffee.jpg"


@dataclass
class Measured:
    """Figures that the clients of some streams measured."""

    ages: list[float] = field(default_factory=list)
    mask_ages: list[float] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)
    samples: int = 0
    dropped: int = 0
    skipped: int = 0
    decodes: int = 0

    def row(self, streams: int, seconds: float) -> str:
        """A row of the table; times in milliseconds."""
        cells = [f"{streams}"]
        cells += [f"{1000 * percentile(self.ages, share):.1f}" for share in (0.5, 0.95, 0.99)]
        cells += [f"{1000 * percentile(self.mask_ages, share):.1f}" for share in (0.5, 0.95)]
        cells += [f"{1000 * percentile(self.server_seconds, 0.99):.1f}", f"{self.decodes / seconds:.1f}"]
        cells += [f"{100 * count / self.samples:.1f} %" for count in (self.skipped, self.dropped)]
        return f"| {' | '.join(cells)} |"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that the given share of all values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else math.nan


async def watch(
    channel: grpc.aio.Channel, photo: bytes, size: Size, seed: int, seconds: float, rate: float, measured: Measured
) -> None:
    """Run one stream on a cached frame."""
    call = SegmentationServiceStub(channel).SegmentGaze()
    await call.write(pb.SegmentGazeRequest(config=pb.GazeConfig(max_mask_side=256)))
    await call.write(pb.SegmentGazeRequest(frame=pb.GazeFrame(sequence=1, image=pb.Image(data=photo))))
    samples = list(simulate_gaze(size, seconds, seed, model=GazeModel(rate_hertz=rate)))
    first = samples[0].timestamp_nanoseconds
    # Gives the gateway time to find the frame in the cache, and staggers the streams, which would otherwise send in
    # lockstep.
    begin = time.perf_counter() + 1.0 + seed * 0.618 % 1 / rate
    due = {sample.sequence: begin + (sample.timestamp_nanoseconds - first) / 1e9 for sample in samples}

    async def send() -> None:
        for sample in samples:
            await asyncio.sleep(due[sample.sequence] - time.perf_counter())
            message = pb.GazeSample(
                sequence=sample.sequence,
                timestamp_nanoseconds=sample.timestamp_nanoseconds,
                x=sample.x,
                y=sample.y,
                valid=sample.valid,
            )
            await call.write(pb.SegmentGazeRequest(sample=message))
        await call.done_writing()

    sending = asyncio.create_task(send())
    counts = pb.GazeCounts()
    async for response in call:
        if response.WhichOneof("message") == "error":
            raise RuntimeError(f"refused: {response.error}")
        answer, age = response.answer, time.perf_counter() - due[response.answer.sequence]
        counts = answer.counts
        measured.ages.append(age)
        measured.server_seconds.append(answer.total.ToNanoseconds() / 1e9)
        if answer.state == pb.GAZE_STATE_NEW_MASK:
            measured.mask_ages.append(age)
    await sending
    measured.samples += counts.samples
    measured.dropped += counts.samples_dropped
    measured.skipped += counts.samples_skipped
    measured.decodes += counts.decodes


async def load(address: str, photo: bytes, seconds: float, rate: float, limit_seconds: float, max_streams: int) -> None:
    """Double the number of streams until answers are too old, and print a row for each number."""
    height, width = read_photo(photo).shape[:2]
    print("| streams | p50 | p95 | p99 | masks p50 | masks p95 | server p99 | decodes/s | skipped | dropped |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    async with grpc.aio.insecure_channel(address) as channel:
        embed = pb.EmbedImageRequest(image=pb.Image(data=photo))
        await SegmentationServiceStub(channel).EmbedImage(embed)
        streams = 1
        while streams <= max_streams:
            measured = Measured()
            size = Size(height, width)
            await asyncio.gather(
                *(watch(channel, photo, size, seed, seconds, rate, measured) for seed in range(streams))
            )
            print(measured.row(streams, seconds), flush=True)
            if percentile(measured.ages, 0.99) > limit_seconds:
                return
            streams *= 2


def main() -> None:
    """Start a gateway, load it and print the table."""
    parser = argparse.ArgumentParser(description="Staleness of gaze answers under a fixed rate of samples.")
    parser.add_argument("--image", type=Path, default=PHOTO)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--rate", type=float, default=120.0, help="samples a second of one stream")
    parser.add_argument("--limit-ms", type=float, default=50.0, help="99th percentile at which to stop")
    parser.add_argument("--max-streams", type=int, default=64)
    arguments = parser.parse_args()
    os.environ["SAMSERVE_MAX_STREAMS"] = str(arguments.max_streams)
    photo, limit = arguments.image.read_bytes(), arguments.limit_ms / 1000
    with gateway_process() as address:
        asyncio.run(load(address, photo, arguments.seconds, arguments.rate, limit, arguments.max_streams))


if __name__ == "__main__":
    main()
