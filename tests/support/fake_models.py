"""Ports for tests of the streams: models that run when they are let, and images that are made of a number."""

import asyncio
from contextlib import nullcontext

import numpy as np

from samserve.domain.camera_motion import Thumbnail
from samserve.domain.embedding import Embedding
from samserve.domain.errors import InvalidImage
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.domain.identity import EmbeddingKey
from samserve.domain.manifest import ModelManifest
from samserve.domain.prompts import PromptBatch
from samserve.usecases.embedder import ImageEmbedder, ImageInput
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import (
    CachedEmbedding,
    DecodedImage,
    DecodedMasks,
    EmbeddingSource,
    EncodedImage,
)
from samserve.usecases.timings import Stage, StageTimings

MANIFEST = ModelManifest("tiny", "sha256:" + "a" * 64, "fp32", 64, (4, 8, 8), 32)
SIZE = Size(300, 400)


def image(scene: int, size: Size = SIZE, nonce: int = 0) -> ImageInput:
    """A file whose pixels are those of a scene; another nonce makes another file."""
    return ImageInput(data=f"{scene} {size.height} {size.width} {nonce}".encode())


class SceneDecoder:
    """Implements `ImageDecoder` and `ThumbnailReader` for such files."""

    async def probe(self, data: bytes) -> Size:
        if data == b"broken":
            raise InvalidImage("data", "is not an image")
        _, height, width, _ = data.split()
        return Size(int(height), int(width))

    async def decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        return DecodedImage(
            np.zeros((3, 64, 64), np.uint8), ImageFrame(await self.probe(data), image_size), StageTimings()
        )

    async def thumbnail(self, data: bytes) -> Thumbnail:
        size = await self.probe(data)
        rng = np.random.default_rng(int(data.split()[0]))
        gray = np.kron(rng.integers(0, 255, (6, 8)), np.ones((40, 40))).astype(np.uint8)
        return Thumbnail(gray, size)


class FakeImageEncoder:
    """Encodes when it is let, every place of the image to `values`.

    Attributes:
        encoded: calls, cancelled ones included.
    """

    def __init__(self) -> None:
        self.encoded = self.in_flight = 0
        self.values = np.ones(4, np.float16)
        self.let = asyncio.Event()
        self.let.set()

    async def encode(self, image: DecodedImage) -> EncodedImage:
        self.encoded += 1
        self.in_flight += 1
        try:
            await self.let.wait()
        finally:
            self.in_flight -= 1
        return EncodedImage(np.broadcast_to(self.values[:, None, None], (4, 8, 8)), StageTimings())


class FakeMaskDecoder:
    """Decodes when it is let: each mask a disc around the prompt's first point, or its box's middle.

    Attributes:
        begun: calls, cancelled ones included.
        decoded: calls that ended.
        prompts: what was asked, call by call.
        radii: of the four masks, in low-resolution pixels.
        iou_predictions: of the four masks.
        error: what calls raise, once let.
    """

    def __init__(self) -> None:
        self.begun = self.decoded = self.cancelled = self.in_flight = self.most_in_flight = 0
        self.prompts: list[PromptBatch] = []
        self.let = asyncio.Event()
        self.let.set()
        self.radii = (4.0, 2.0, 4.0, 8.0)
        self.iou_predictions = (0.8, 0.7, 0.9, 0.6)
        self.error: Exception | None = None

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        self.begun += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.prompts.append(prompts)
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if self.error is not None:
            raise self.error
        self.decoded += 1
        rows, columns = np.mgrid[:32, :32] + 0.5
        masks = [
            [radius - np.hypot(columns - x / 2, rows - y / 2) for radius in self.radii]
            for x, y in (coords[0] for coords in prompts.point_coords)
        ]
        ious = np.tile(np.array(self.iou_predictions, np.float32), (len(masks), 1))
        return DecodedMasks(np.array(masks, np.float32), ious, StageTimings({Stage.MASK_DECODE: 0.001}))


class DictCache:
    """Implements `EmbeddingCache`."""

    def __init__(self) -> None:
        self.stored: dict[EmbeddingKey, Embedding] = {}

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        return CachedEmbedding(self.stored[key], EmbeddingSource.MEMORY) if key in self.stored else None

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        self.stored[key] = embedding


class FreeLease:
    """Implements `EncodeLease`."""

    def try_acquire(self, key: EmbeddingKey) -> nullcontext[bool]:
        return nullcontext(True)


def embedder(encoder: FakeImageEncoder, decoder: SceneDecoder) -> ImageEmbedder:
    """The real one, on these ports."""
    return ImageEmbedder(
        manifest=MANIFEST,
        image_decoder=decoder,
        image_encoder=encoder,
        cache=DictCache(),
        lease=FreeLease(),
        encodes=Admission("encodes", 8, 2.0),
        cache_secret=b"secret",
    )
