"""Stream frames and gaze samples, and get the mask of the object that the user looks at.

python examples/gaze.py photo.jpg
"""

import argparse
import asyncio
from pathlib import Path

from samserve.client import AsyncClient, AsyncGazeStream, Refused

RATE_HERTZ = 60
# Look at each of two places for half a second; (x, y) from 0 to 1.
PLACES = [(0.5, 0.5)] * 30 + [(0.2, 0.3)] * 30


async def look(stream: AsyncGazeStream, frame: Path) -> None:
    """Send one camera frame, and gaze samples as an eye tracker would measure them."""
    await stream.frame(frame)
    for number, (x, y) in enumerate(PLACES):
        await stream.sample(timestamp_nanoseconds=number * 1_000_000_000 // RATE_HERTZ, x=x, y=y)
        await asyncio.sleep(1 / RATE_HERTZ)
    await stream.end()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Segment the object that a user looks at.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()

    async with AsyncClient(arguments.server) as client:
        # Encode the first frame in advance, so that its embedding is cached when the stream starts.
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
