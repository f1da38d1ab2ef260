"""An embedder whose ports count and wait."""

import asyncio

import numpy as np

from samserve.domain.errors import InvalidImage, ModelUnavailable
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.domain.manifest import ModelManifest
from samserve.usecases.embedder import ImageEmbedder, ImageInput
from samserve.usecases.load.admission import Admission
from samserve.usecases.ports import DecodedImage, EncodedImage, EncodeLease
from samserve.usecases.timings import Stage, StageTimings
from tests.support.fake_models import DictCache, FreeLease

MANIFEST = ModelManifest("tiny", "sha256:" + "a" * 64, "fp32", 64, (4, 8, 8), 32)
SIZE = Size(30, 40)
DOG = ImageInput(data=b"dog")


class CountingDecoder:
    def __init__(self) -> None:
        self.decoded = 0
        self.crops: list[CropBox | None] = []

    async def probe(self, data: bytes) -> Size:
        if data == b"not an image":
            raise InvalidImage("data", "is not an image")
        return SIZE

    async def decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        self.decoded += 1
        self.crops.append(crop_box)
        size = SIZE if crop_box is None else crop_box.size
        return DecodedImage(
            np.zeros((3, 64, 64), np.uint8), ImageFrame(size, image_size), StageTimings({Stage.IMAGE_DECODE: 0.001})
        )


class FakeImageEncoder:
    """Encodes when it is let; `failing` makes it unavailable."""

    def __init__(self) -> None:
        self.encoded = 0
        self.begun = asyncio.Event()
        self.let = asyncio.Event()
        self.failing = False

    async def encode(self, image: DecodedImage) -> EncodedImage:
        self.encoded += 1
        self.begun.set()
        await self.let.wait()
        if self.failing:
            raise ModelUnavailable("down", 1.0)
        return EncodedImage(np.ones((4, 8, 8), np.float16), StageTimings({Stage.ENCODE: 0.01}))


class Bench:
    def __init__(self, lease: EncodeLease | None = None, cache: DictCache | None = None, max_encodes: int = 8) -> None:
        self.decoder, self.encoder, self.cache = CountingDecoder(), FakeImageEncoder(), cache or DictCache()
        self.admission = Admission("encodes", max_encodes, 2.0)
        self.embedder = ImageEmbedder(
            manifest=MANIFEST,
            image_decoder=self.decoder,
            image_encoder=self.encoder,
            cache=self.cache,
            lease=lease or FreeLease(),
            encodes=self.admission,
            cache_secret=b"secret",
        )
