"""Segment many photos concurrently with `AsyncClient`, with a limit on the calls in flight.

python examples/batch.py photos/*.jpg --in-flight 4
"""

import argparse
import asyncio
from pathlib import Path

from samserve.client import AsyncClient, ClientError, Prompt

# One call can have many prompts: here one click on each quarter of the photo.
QUARTERS = [Prompt(point_coords=[(x, y)]) for x in (0.25, 0.75) for y in (0.25, 0.75)]


async def segment(client: AsyncClient, photo: Path, in_flight: asyncio.Semaphore) -> str:
    async with in_flight:
        try:
            results = await client.segment_many(photo, QUARTERS, multimask_output=False, normalized=True)
        except (ClientError, OSError) as error:
            return f"{photo}: {error}"
    return f"{photo}: areas {[int(result.areas[0]) for result in results]}"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Segment many photos concurrently.")
    parser.add_argument("image", type=Path, nargs="+")
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()

    in_flight = asyncio.Semaphore(arguments.in_flight)
    async with AsyncClient(arguments.server) as client:
        tasks = [segment(client, photo, in_flight) for photo in arguments.image]
        for done in asyncio.as_completed(tasks):
            print(await done)


if __name__ == "__main__":
    asyncio.run(main())
