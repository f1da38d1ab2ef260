"""Measure the CPU time of the gateway's own steps and of Redis: the inputs of `benchmarks.capacity`.

    python -m benchmarks.costs [--rounds N]

CPU time depends less on other load on the machine than wall time does. The models' share, measured on the bare models,
is subtracted, because in production they run on a GPU.
"""

import argparse
import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import grpc
import numpy as np
import psutil
import redis

from benchmarks.capacity import MIB
from benchmarks.gaze import Measured, watch
from samserve.adapters.images.decoder import PillowImageDecoder
from samserve.adapters.onnxruntime import OnnxRuntimeImageEncoder, OnnxRuntimeMaskDecoder
from samserve.cli.gateway_process import gateway_process
from samserve.domain.embedding import Embedding, pack, unpack
from samserve.domain.geometry import ImageFrame, Size
from samserve.domain.identity import EmbeddingKey, ImageId
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import CoordinateSpace, ObjectPrompt, batch_prompts
from samserve.gateway.settings import Settings
from samserve.v1 import segmentation_pb2 as pb
from samserve.v1.segmentation_pb2_grpc import SegmentationServiceStub
from tools.load.traffic import Photo, Picture, procedural_photo

PHOTO_SIZE = Size(1080, 1920)
PROMPTS = 9


def processor_seconds(work: Callable[[], object], rounds: int, process: psutil.Process | None = None) -> float:
    """CPU time of one call in this process or another. The first call is not counted."""
    process = process or psutil.Process()
    work()
    before = sum(process.cpu_times()[:2])
    for _ in range(rounds):
        work()
    return float(sum(process.cpu_times()[:2]) - before) / rounds


def prompts(count: int) -> list[ObjectPrompt]:
    """Clicks spread over the photo."""
    height, width = PHOTO_SIZE
    labels = np.ones(1, dtype=np.int32)
    return [ObjectPrompt(np.array([[width * (i + 1) / (count + 1), height / 2]]), labels) for i in range(count)]


async def models(photo: bytes, rounds: int) -> tuple[float, float, float, float]:
    """CPU time of the image decoder, of the encoder, and of the mask decoder for one prompt and for `PROMPTS`."""
    settings = Settings()
    manifest = ModelManifest.read(settings.model_repository)
    image_decoder = PillowImageDecoder(settings.max_image_pixels, 1)
    encoder, decoder = (
        OnnxRuntimeImageEncoder(settings.model_repository),
        OnnxRuntimeMaskDecoder(settings.model_repository),
    )
    decoded = await image_decoder.decode(photo, 1024)
    small = await image_decoder.decode(photo, manifest.image_size)
    embedding = Embedding((await encoder.encode(small)).values, small.frame)

    def batch(count: int) -> Callable[[], object]:
        made = batch_prompts(prompts(count), CoordinateSpace.PIXELS, small.frame, manifest.low_res_size)
        return lambda: decoder.decode(embedding, made)

    async def measured(call: Callable[[], object]) -> float:
        started = time.process_time()
        for _ in range(rounds):
            await call()  # type: ignore[misc]
        return (time.process_time() - started) / rounds

    assert decoded.frame.image_size == 1024
    found = (
        await measured(lambda: image_decoder.decode(photo, 1024)),
        await measured(lambda: encoder.encode(small)),
        await measured(batch(1)),
        await measured(batch(PROMPTS)),
    )
    for closing in (encoder, decoder, image_decoder):
        closing.close()
    return found


def stored_embedding(rounds: int) -> tuple[float, float, float]:
    """CPU time of packing and unpacking an embedding of SAM's size, and the gateway's and Redis' share of writing and
    reading it; and its size in bytes."""
    manifest = replace(ModelManifest.read(Settings().model_repository), image_size=1024, embedding_shape=(256, 64, 64))
    values = np.random.default_rng(0).normal(size=manifest.embedding_shape).astype(np.float16)
    key = EmbeddingKey.derive(b"", "", ImageId.of(b""), manifest.fingerprint, None)
    packed = pack(Embedding(values, ImageFrame(PHOTO_SIZE, 1024)), key, manifest)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is missing; install it: apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "--port", str(port), "--save", "", "--bind", "127.0.0.1", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100))
            client.set("key", packed)
            here = processor_seconds(lambda: unpack(client.get("key"), key, manifest), rounds)  # type: ignore[arg-type]
            there = processor_seconds(lambda: client.get("key"), rounds, psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait()
    return here, there, len(packed)


async def gaze(address: str, photo: bytes, process: psutil.Process) -> tuple[float, float]:
    """CPU time per gaze sample, including decoding, and decodes per second."""
    seconds = 5.0
    measured = Measured()
    async with grpc.aio.insecure_channel(address) as channel:
        await SegmentationServiceStub(channel).EmbedImage(pb.EmbedImageRequest(image=pb.Image(data=photo)))
        before = sum(process.cpu_times()[:2])
        await watch(channel, photo, PHOTO_SIZE, 0, seconds, 120.0, measured)
        return (sum(process.cpu_times()[:2]) - before) / measured.samples, measured.decodes / seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    picture = Picture(Photo(procedural_photo(PHOTO_SIZE, 0)), 0)
    image_decode, encode, decode_one, decode_many = asyncio.run(models(picture.data, rounds))
    unpacked, served, nbytes = stored_embedding(rounds)
    with gateway_process() as address, grpc.insecure_channel(address) as channel:
        [process] = psutil.Process().children()
        stub = SegmentationServiceStub(channel)
        stub.EmbedImage(pb.EmbedImageRequest(image=pb.Image(data=picture.data)))

        def segment(count: int) -> Callable[[], object]:
            clicks = [
                pb.Prompt(points=[pb.Point(x=x, y=y, label=pb.POINT_LABEL_FOREGROUND)])
                for x, y in (prompt.point_coords[0] for prompt in prompts(count))
            ]
            request = pb.SegmentRequest(image=pb.Image(image_id=picture.image_id), prompts=clicks)
            return lambda: stub.Segment(request)

        def refused() -> None:
            click = pb.Prompt(points=[pb.Point(x=1, y=1, label=pb.POINT_LABEL_FOREGROUND)])
            try:
                stub.Segment(pb.SegmentRequest(image=pb.Image(image_id=f"sha256:{'0' * 64}"), prompts=[click]))
            except grpc.RpcError:
                return

        refusal = processor_seconds(refused, 10 * rounds, process)
        one = processor_seconds(segment(1), rounds, process) - decode_one
        many = processor_seconds(segment(PROMPTS), rounds, process) - decode_many
        sample, decodes = asyncio.run(gaze(address, picture.data, process))
    each = (many - one) / (PROMPTS - 1)
    rows = [
        ("warm request of one prompt, without the decoder", one),
        ("each further prompt: mask of 1080 x 1920 as RLE", each),
        ("image file of 1080 x 1920 decoded and resized to 1024", image_decode),
        ("embedding of SAM's size read from Redis and checked, gateway", unpacked),
        ("the same, Redis", served),
        ("gaze sample, without the decoder", sample - decodes / 120 * decode_one),
        ("request refused, for an unknown image", refusal),
        ("bundled encoder on the CPU", encode),
        ("bundled decoder on the CPU, one prompt", decode_one),
    ]
    print("| step | CPU time |\n|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {1000 * seconds:.2f} ms |")
    print(f"\nAn embedding of SAM's size as stored: {nbytes / MIB:.4f} MiB. Gaze: {decodes:.1f} decodes a second.")


if __name__ == "__main__":
    main()
