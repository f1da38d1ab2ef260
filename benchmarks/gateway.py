"""Measure the gateway's overhead over the bare models, as ratios measured alternately in one run.

    python benchmarks/gateway.py [--image PHOTO] [--rounds N]

The gateway runs in its own process, as in production. The bare models run in this process, on the same runtime with the
same settings. The two alternate, so that changes of the machine's speed affect both.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np

from samserve.adapters.images.decoder import PillowImageDecoder
from samserve.adapters.onnxruntime import OnnxRuntimeImageEncoder, OnnxRuntimeMaskDecoder
from samserve.cli.gateway_process import gateway_process
from samserve.client import AsyncClient
from samserve.domain.embedding import Embedding
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import click_prompts
from samserve.gateway.settings import Settings

PHOTO = Path(__file__).resolve().parents[1] / "docs" / "photos" / "coffee.jpg"
CONCURRENT = 16
Call = Callable[[], Awaitable[object]]


class Comparison:
    """Two functions that are timed alternately."""

    def __init__(self, name: str, first: Call, second: Call) -> None:
        self.name = name
        self._calls = (first, second)
        self._seconds: tuple[list[float], list[float]] = ([], [])

    async def turn(self) -> None:
        """Time each function once."""
        for call, seconds in zip(self._calls, self._seconds, strict=True):
            started = time.perf_counter()
            await call()
            seconds.append(time.perf_counter() - started)

    def forget(self) -> None:
        """Discard the times measured so far, as warm-up."""
        for seconds in self._seconds:
            seconds.clear()

    def __str__(self) -> str:
        first, second = self._seconds
        low, middle, high = quartiles([a / b for a, b in zip(first, second, strict=True)])
        medians = [1000 * statistics.median(seconds) for seconds in self._seconds]
        return f"| {self.name} | {medians[0]:.1f} ms | {medians[1]:.1f} ms | {middle:.2f} | {low:.2f} to {high:.2f} |"


def table(comparisons: Sequence[Comparison]) -> str:
    """Render one row per comparison, in Markdown."""
    head = "| first : second | first | second | ratio, median | ratio, quartiles |\n|---|---|---|---|---|"
    return "\n".join([head, *map(str, comparisons)])


def quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of the times; for a single time, that time."""
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return low, middle, high


async def take_turns(comparisons: Sequence[Comparison], rounds: int) -> None:
    """Measure all comparisons alternately, for the given number of rounds after two warm-up rounds."""
    for number in range(-2, rounds):
        for comparison in comparisons:
            if number == 0:
                comparison.forget()
            await comparison.turn()
        print(f"\rround {max(0, number + 1)} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


async def compare(address: str, data: bytes, rounds: int) -> list[Comparison]:
    """Run all comparisons against a gateway."""
    settings = Settings()
    manifest = ModelManifest.read(settings.model_repository)
    encoder, decoder = (
        OnnxRuntimeImageEncoder(settings.model_repository),
        OnnxRuntimeMaskDecoder(settings.model_repository),
    )
    image_decoder = PillowImageDecoder(settings.max_image_pixels, 1)
    decoded = await image_decoder.decode(data, manifest.image_size)
    embedding = Embedding((await encoder.encode(decoded)).values, decoded.frame)
    height, width = decoded.frame.original_size
    point = np.array([width / 2, height / 2])
    batch = click_prompts([point], decoded.frame, manifest.low_res_size)
    fresh = iter(range(1_000_000))

    def new_image() -> bytes:
        # JPEG decoders ignore trailing bytes, so this is the same work under another image id.
        return data + next(fresh).to_bytes(4, "big")

    async with AsyncClient(address, timeout_seconds=120) as client:

        async def cold_alone() -> None:
            await client.embed(new_image())

        async def cold_together() -> None:
            image = new_image()
            await asyncio.gather(*(client.embed(image) for _ in range(CONCURRENT)))

        def warm(multimask_output: bool) -> Call:
            return lambda: client.segment(
                data, [point], [1], multimask_output=multimask_output, low_res_masks=False, timeout_seconds=60
            )

        async def bare_decoder() -> None:
            await decoder.decode(embedding, batch)

        async def bare_encoder() -> None:
            await encoder.encode(decoded)

        comparisons = [
            Comparison("warm `Segment`, one mask : bare decoder", warm(False), bare_decoder),
            Comparison("warm `Segment`, three masks : bare decoder", warm(True), bare_decoder),
            Comparison("cold `EmbedImage` : bare encoder", cold_alone, bare_encoder),
            Comparison(f"{CONCURRENT} at once for a new image : one", cold_together, cold_alone),
        ]
        await take_turns(comparisons, rounds)
    for closing in (encoder, decoder, image_decoder):
        closing.close()
    return comparisons


def main() -> None:
    """Start a gateway, run the comparisons and print a table."""
    parser = argparse.ArgumentParser(description="The gateway against the bare models, in one run.")
    parser.add_argument("--image", type=Path, default=PHOTO)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with gateway_process() as address:
        comparisons = asyncio.run(compare(address, arguments.image.read_bytes(), arguments.rounds))
    print(table(comparisons))


if __name__ == "__main__":
    main()
