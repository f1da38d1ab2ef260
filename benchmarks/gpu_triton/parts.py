"""The parts of the measurement on one Triton. A part that fails or has no time left does not end the others."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gateway import PHOTO
from benchmarks.gpu_triton.direct import CudaRegion, DirectDecoder
from benchmarks.gpu_triton.records import Records
from benchmarks.gpu_triton.server import log_tail
from benchmarks.gpu_triton.statistics import Counters, counters, difference
from benchmarks.gpu_triton.timing import Call, at_once, by_turns
from benchmarks.triton_transport import MIB, click, on_triton, sample
from samserve.adapters.images.decoder import PillowImageDecoder
from samserve.adapters.triton import TritonSession
from samserve.adapters.triton.connection import TritonConnection
from samserve.adapters.triton.padding import pad_prompts
from samserve.client import AsyncClient
from samserve.domain.identity import EmbeddingKey
from samserve.domain.manifest import ModelManifest
from samserve.observability.metrics import Metrics

CALLERS = 16
SHARED, WIRE = "shared_memory", "wire"
SCRATCH_BYTES = {SHARED: 128 * MIB, WIRE: 0}
GATEWAY_SECONDS = 15.0
MAX_IMAGE_PIXELS = 100_000_000
LOG_LINES = 8
SETTLE_SECONDS = 0.1


class Parts:
    """The parts of the measurement, all on one Triton.

    Args:
        log: of Triton; its end is shown where a part fails.
        deadline: by `time.monotonic`; no part begins that would not end before it.
        seconds: that a part times its calls for.
    """

    def __init__(
        self, address: str, manifest: ModelManifest, log: Path, records: Records, deadline: float, seconds: float
    ) -> None:
        self._address = address
        self._manifest = manifest
        self._log = log
        self._records = records
        self._deadline = deadline
        self._seconds = seconds
        self._photo = PHOTO.read_bytes()
        self._fresh = iter(range(1 << 32))
        self._clients: dict[str, AsyncClient] = {}

    async def run(self, with_cuda: bool) -> None:
        """Measure as many parts as time allows, the most important first."""
        with ExitStack() as gateways:
            async with AsyncExitStack() as stack:
                connection = TritonConnection(self._address, 10, 60)
                stack.push_async_callback(connection.aclose)
                self._connection = connection
                self._session = await TritonSession.open(connection, self._manifest, 16 * MIB, 128 * MIB)
                stack.push_async_callback(self._session.close)
                await self._part("bare Triton", self._seconds + 2, lambda: self._bare(with_cuda))
                for transport in (SHARED, WIRE):
                    await self._part(
                        f"gateway by {transport}", GATEWAY_SECONDS, partial(self._start, transport, gateways, stack)
                    )
                await self._part("warm Segment", self._seconds + 2, self._warm)
                await self._part(f"{CALLERS} callers", 3 * self._seconds / 2 + 2, self._many)
                await self._part("cold", self._seconds + 2, self._cold)
            await asyncio.to_thread(gateways.close)

    async def _part(self, name: str, seconds: float, run: Callable[[], Awaitable[None]]) -> None:
        left = self._deadline - time.monotonic()
        if left < seconds:
            self._records.skipped(name, f"it takes {seconds:.0f} s, and {max(0.0, left):.0f} s are left")
            return
        try:
            async with asyncio.timeout(left):
                before = await self._counters()
                await run()
                after = await self._counters()
        except Exception as error:
            tail = log_tail(self._log)
            print(f"{name} failed: {error!r}\nTriton's log ends:\n{tail}", file=sys.stderr)
            self._records.failed(name, f"{error!r}; Triton's log ends: {' | '.join(tail.splitlines()[-LOG_LINES:])}")
            return
        for model, last in after.items():
            if fields := difference(before[model], last):
                self._records.write(f"{name}: {model} in Triton", **fields)

    async def _counters(self) -> dict[str, Counters]:
        # Triton updates its counters some time after it has answered.
        await asyncio.sleep(SETTLE_SECONDS)
        return await counters(self._address)

    async def _bare(self, with_cuda: bool) -> None:
        """Measure one warm click on Triton itself: with the gateway's session, then with the embedding in system and
        CUDA memory."""
        embedding, prompts = sample(self._manifest)
        padded = pad_prompts(prompts)
        inputs = {
            "image_embeddings": embedding.values[None],
            **{
                name: getattr(padded, name)[None]
                for name in ("point_coords", "point_labels", "mask_input", "has_mask_input")
            },
        }
        calls: dict[str, Call] = {f"bare Triton by {self._session.transport}": await self._bare_click()}
        direct = DirectDecoder(self._connection, self._manifest, inputs)
        region: CudaRegion | None = None
        try:
            if await direct.attach():
                calls["bare Triton, one request made directly"] = direct.decode
                region = await self._cuda_region(direct, inputs["image_embeddings"]) if with_cuda else None
                if region is not None:
                    calls["bare Triton, embedding in CUDA shared memory"] = lambda: direct.decode(region)
            self._write(await by_turns(calls, self._seconds), inputs=self._shapes(inputs))
        finally:
            if region is not None:
                await region.close(self._address)
            await direct.close()

    async def _cuda_region(self, direct: DirectDecoder, embedding: Any) -> CudaRegion | None:
        """Put the embedding in CUDA shared memory, after checking that the masks equal those from system memory."""
        name = "bare Triton, embedding in CUDA shared memory"
        try:
            expected = (await direct.decode()).copy()
            region = CudaRegion(embedding)
            try:
                await region.register(self._address)
                if not np.allclose(await direct.decode(region), expected, rtol=1e-2, atol=1e-2):
                    raise ValueError("the masks differ from those with system shared memory")
            except BaseException:
                await region.close(self._address)
                raise
        except Exception as error:
            self._records.failed(name, f"{type(error).__name__}: {error}")
            return None
        return region

    async def _start(self, transport: str, gateways: ExitStack, stack: AsyncExitStack) -> None:
        address = await asyncio.to_thread(gateways.enter_context, on_triton(self._address, SCRATCH_BYTES[transport]))
        client = await stack.enter_async_context(AsyncClient(address, timeout_seconds=60))
        found = (await client.server_info()).transport
        if found != transport:
            raise ValueError(f"unexpected transport of the gateway: {found}")
        self._clients[transport] = client

    async def _warm(self) -> None:
        """Measure one click on a photo with a cached embedding, through both gateways and on Triton itself."""
        calls = {f"warm Segment by {name}": click(client, self._photo) for name, client in self._clients.items()}
        calls[f"bare Triton by {self._session.transport}, in turns with Segment"] = await self._bare_click()
        self._write(await by_turns(calls, self._seconds), prompts=1, points=1)

    async def _many(self) -> None:
        """Measure concurrent warm clicks of callers in this process, each of which waits for its answer."""
        calls = {f"warm Segment by {name}": click(client, self._photo) for name, client in self._clients.items()}
        calls[f"bare Triton by {self._session.transport}"] = await self._bare_click()
        for name, call in calls.items():
            times, rate = await at_once(call, CALLERS, self._seconds / 2)
            shapes = {"prompts": 1, "points": 1, "callers": CALLERS}
            self._timed(f"{name}, {CALLERS} callers", times, shapes, requests_per_second=round(rate, 2))

    async def _cold(self) -> None:
        """Measure a new photo through both gateways, and the encoder alone on Triton."""
        decoder = PillowImageDecoder(MAX_IMAGE_PIXELS, 1)
        try:
            decoded = await decoder.decode(self._photo, self._manifest.image_size)
        finally:
            decoder.close()
        calls: dict[str, Call] = {}
        for name, client in self._clients.items():
            calls[f"cold EmbedImage by {name}"] = partial(self._embed_new, client)
            calls[f"cold Segment by {name}"] = partial(self._segment_new, client)
        calls[f"bare encoder by {self._session.transport}"] = lambda: self._session.encoder.encode(decoded)
        self._write(await by_turns(calls, self._seconds), image=list(decoded.pixels.shape))

    async def _bare_click(self) -> Call:
        """Send a warm click with the gateway's own session, with the embedding in its slab if memory is shared."""
        embedding, prompts = sample(self._manifest)
        slab = self._session.embedding_cache(Metrics().caches)
        if slab is not None:
            await slab.put(EmbeddingKey("sample"), embedding)
            cached = await slab.get(EmbeddingKey("sample"))
            embedding = embedding if cached is None else cached.embedding
        return lambda: self._session.decoder.decode(embedding, prompts)

    async def _embed_new(self, client: AsyncClient) -> None:
        await client.embed(self._new_photo())

    async def _segment_new(self, client: AsyncClient) -> None:
        await click(client, self._new_photo())()

    def _new_photo(self) -> bytes:
        # JPEG decoders ignore trailing bytes, so this is the same work under another image id.
        return self._photo + next(self._fresh).to_bytes(4, "big")

    def _write(self, times: dict[str, list[float]], **shapes: Any) -> None:
        for name, seconds in times.items():
            self._timed(name, seconds, shapes)

    def _timed(self, name: str, seconds: list[float], shapes: dict[str, Any], **fields: Any) -> None:
        self._records.timed(
            name, seconds, shapes=shapes, model=self._manifest.model, precision=self._manifest.precision, **fields
        )

    def _shapes(self, inputs: dict[str, Any]) -> dict[str, list[int]]:
        return {name: list(array.shape) for name, array in inputs.items()}
