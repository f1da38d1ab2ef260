"""Measure the transport to Triton: shared memory against gRPC, and the gateway against bare Triton, in one run.

    python -m benchmarks.triton_transport [--hollow] [--rounds N]

One Triton serves two gateways, each in its own process, and direct requests with the same tensors as the gateway's; all
alternate. `--hollow` uses models of SAM's tensor sizes that compute nothing, so that only the transport is measured.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.gateway import PHOTO, Call, Comparison, table, take_turns
from modeling.triton_config import MODELS, write_configs
from samserve.adapters.triton import TritonSession
from samserve.adapters.triton.connection import TritonConnection
from samserve.cli.gateway_process import gateway_process
from samserve.client import AsyncClient
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import EmbeddingKey
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import PromptBatch, click_prompts
from samserve.gateway.settings import default_model_repository
from samserve.observability.metrics import Metrics
from stack.triton_server import provide

MIB = 1 << 20
CONCURRENT = 16
BYTES_OF = 20
START_SECONDS = 120.0
HOLLOW = ModelManifest("hollow", "sha256:" + "00" * 32, "fp16", 1024, (256, 64, 64), 256)
HOLLOW_BACKEND = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils

KINDS = {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32}


class TritonPythonModel:
    def initialize(self, arguments):
        self.outputs = json.loads(arguments["model_config"])["output"]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        prompts = pb_utils.get_input_tensor_by_name(request, "point_labels")
        sizes = np.from_dlpack(prompts).shape if prompts else (1,)
        tensors = []
        for output in self.outputs:
            shape = [sizes[0], *(sizes[1] if size < 0 else int(size) for size in map(int, output["dims"]))]
            zeros = np.zeros(shape, KINDS[output["data_type"]])
            tensors.append(pb_utils.Tensor.from_dlpack(output["name"], zeros))
        return pb_utils.InferenceResponse(tensors)
"""


@contextmanager
def triton(repository: Path, log: Path) -> Iterator[str]:
    """Run Triton on this repository; yields its address."""
    installation = provide()
    port = _free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            installation.command(repository, port, _free_port()),
            env=installation.environment(),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"Triton does not start:\n{log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def on_triton(address: str, scratch_bytes: int) -> Iterator[str]:
    """Run a gateway on this Triton; yields its address."""
    name = "SAMSERVE_TRITON_SCRATCH_BYTES"
    os.environ[name] = str(scratch_bytes)
    try:
        with gateway_process("--backend", "triton", "--triton", address) as gateway:
            yield gateway
    finally:
        os.environ.pop(name, None)


class Meter:
    """Counts the bytes between a gateway and Triton."""

    def __init__(self) -> None:
        self.nbytes = 0

    @asynccontextmanager
    async def before(self, address: str) -> AsyncIterator[str]:
        """Start a counting proxy in front of this address; yields the proxy's address."""
        host, port = address.split(":")
        writers: list[asyncio.StreamWriter] = []

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(MIB):
                self.nbytes += len(data)
                writer.write(data)
                await writer.drain()
            writer.close()

        async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there_reader, there_writer = await asyncio.open_connection(host, port)
            writers.extend((writer, there_writer))
            await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer), return_exceptions=True)

        server = await asyncio.start_server(join, "127.0.0.1", 0)
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def bytes_of_a_warm_prompt(address: str, scratch_bytes: int, data: bytes) -> float:
    """Bytes between gateway and Triton, including headers and the gateway's two status polls a second."""
    meter = Meter()
    async with meter.before(address) as metered:
        with ExitStack() as stack:
            gateway = await asyncio.to_thread(stack.enter_context, on_triton(metered, scratch_bytes))
            async with AsyncClient(gateway, timeout_seconds=60) as client:
                await click(client, data)()
                before = meter.nbytes
                started = time.perf_counter()
                for _ in range(BYTES_OF):
                    await click(client, data)()
                elapsed, moved = time.perf_counter() - started, meter.nbytes - before
                await asyncio.sleep(elapsed)
                idle = meter.nbytes - before - moved
            await asyncio.to_thread(stack.close)
    return (moved - idle) / BYTES_OF


def click(client: AsyncClient, data: bytes) -> Call:
    """Send a warm `Segment`."""
    return lambda: client.segment(data, np.array([[300.0, 200.0]]), [1], multimask_output=False, low_res_masks=False)


def together(call: Call) -> Call:
    """Send many calls concurrently."""

    async def calls() -> None:
        await asyncio.gather(*(call() for _ in range(CONCURRENT)))

    return calls


async def compare(address: str, data: bytes, rounds: int) -> list[Comparison]:
    """Run all comparisons on one Triton."""
    with ExitStack() as stack:
        shared = stack.enter_context(on_triton(address, 128 * MIB))
        wire = stack.enter_context(on_triton(address, 0))
        connection = TritonConnection(address, 10, 60)
        session = await TritonSession.open(connection, await connection.manifest(), 16 * MIB, 128 * MIB)
        embedding, prompts = sample(session.manifest)
        slab, name = session.embedding_cache(Metrics().caches), EmbeddingKey("sample")
        assert slab is not None
        await slab.put(name, embedding)
        warm = await slab.get(name)
        assert warm is not None

        async def bare() -> None:
            await session.decoder.decode(warm.embedding, prompts)

        async with AsyncClient(shared, timeout_seconds=60) as near, AsyncClient(wire, timeout_seconds=60) as far:
            by_shared, by_wire = click(near, data), click(far, data)
            many = f"{CONCURRENT} at once: "
            comparisons = [
                Comparison("warm `Segment` by wire : by shared memory", by_wire, by_shared),
                Comparison(f"{many}by wire : by shared memory", together(by_wire), together(by_shared)),
                Comparison("warm `Segment` : bare Triton, both by shared memory", by_shared, bare),
                Comparison(f"{many}`Segment` : bare Triton", together(by_shared), together(bare)),
            ]
            await take_turns(comparisons, rounds)
        await session.close()
        await connection.aclose()
    return comparisons


def sample(manifest: ModelManifest) -> tuple[Embedding, PromptBatch]:
    """Send a click on a noise image."""
    frame = ImageFrame(Size(400, 600), manifest.image_size)
    values = np.random.default_rng(0).standard_normal(manifest.embedding_shape).astype(np.float16)
    return Embedding(values, frame), click_prompts([np.array([300.0, 200.0])], frame, manifest.low_res_size)


def write_hollow(repository: Path) -> None:
    """Write models of SAM's sizes that answer zeros."""
    HOLLOW.write(repository)
    write_configs(repository, HOLLOW, "cpu")
    for model in MODELS:
        (repository / model / "1" / "model.py").write_text(HOLLOW_BACKEND)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Start everything, run the comparisons and print the tables."""
    parser = argparse.ArgumentParser(description="The way to Triton, in one run.")
    parser.add_argument("--hollow", action="store_true", help="models of SAM's sizes that compute nothing")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    data = PHOTO.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        repository = default_model_repository()
        if options.hollow:
            repository = Path(folder) / "models"
            repository.mkdir()
            write_hollow(repository)
        with triton(repository, Path(folder) / "triton.log") as address:
            moved = [asyncio.run(bytes_of_a_warm_prompt(address, scratch, data)) for scratch in (128 * MIB, 0)]
            comparisons = asyncio.run(compare(address, data, options.rounds))
    print(table(comparisons))
    print(
        f"bytes between gateway and Triton for a warm prompt: {moved[0]:.0f} by shared memory, {moved[1]:.0f} by wire"
    )


if __name__ == "__main__":
    main()
