"""Segment what somebody looks at: frames and gaze samples in, masks out.

python examples/gaze.py photo.jpg
"""

import argparse
import asyncio
from pathlib import Path

from samserve.client import AsyncClient, AsyncGazeStream, Refused

RATE_HERTZ = 60
# Half a second on each of two places, (x, y) from 0 to 1.
PLACES = [(0.5, 0.5)] * 30 + [(0.2, 0.3)] * 30


async def look(stream: AsyncGazeStream, frame: Path) -> None:
    """Send one frame of the camera, and what an eye tracker measures on it."""
    await stream.frame(frame)
    for number, (x, y) in enumerate(PLACES):
        await stream.sample(timestamp_nanoseconds=number * 1_000_000_000 // RATE_HERTZ, x=x, y=y)
        await asyncio.sleep(1 / RATE_HERTZ)
    await stream.end()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Segment what somebody looks at.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()

    async with AsyncClient(arguments.server) as client:
        # Encode the first frame ahead, so that the first look at it finds its embedding.
        await client.embed(arguments.image)
        async with client.gaze(normalized=True, max_mask_side=256) as stream, asyncio.TaskGroup() as tasks:
            tasks.create_task(look(stream, arguments.image))
            async for answer in stream:
                if isinstance(answer, Refused):
                    print(f"message {answer.sequence} was refused: {answer.error}")
                    continue
                if answer.mask is not None:
                    print(f"sample {answer.sequence}: {answer.state}, object {answer.object_id}, {answer.mask.area} px")
                counts = answer.counts
    print(f"{counts.samples} samples, {counts.decodes} decoded")


if __name__ == "__main__":
    asyncio.run(main())
