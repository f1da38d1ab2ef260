"""Compare the image encoders of two model repositories on ONNX Runtime.

    python -m benchmarks.encoders REPOSITORY REPOSITORY [--rounds N]

Each encoder gets an image of its own input size; the two run alternately.
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np

from benchmarks.gateway import Call, Comparison, table, take_turns
from samserve.adapters.onnxruntime import OnnxRuntimeImageEncoder
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.manifest import ModelManifest
from samserve.usecases.ports import DecodedImage
from samserve.usecases.timings import StageTimings


async def compare(repositories: list[Path], rounds: int) -> Comparison:
    """Run both encoders alternately."""
    encoders = [OnnxRuntimeImageEncoder(repository) for repository in repositories]
    names, calls = zip(*(_task(*each) for each in zip(encoders, repositories, strict=True)), strict=True)
    comparison = Comparison(" : ".join(names), *calls)
    await take_turns([comparison], rounds)
    for encoder in encoders:
        encoder.close()
    return comparison


def _task(encoder: OnnxRuntimeImageEncoder, repository: Path) -> tuple[str, Call]:
    manifest = ModelManifest.read(repository)
    side = manifest.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    image = DecodedImage(pixels, ImageFrame(Size(side, side), side), StageTimings())

    async def encode() -> None:
        await encoder.encode(image)

    return f"{manifest.model}, {side}", encode


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", type=Path, nargs=2, metavar="REPOSITORY")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    comparison = asyncio.run(compare(options.repositories, options.rounds))
    print(table([comparison]))


if __name__ == "__main__":
    main()
