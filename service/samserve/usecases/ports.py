"""Ports: interfaces of the use cases to the outside world, which adapters implement.

Implementations raise only errors of `samserve.domain.errors`, return their timings as values, and keep no state between
calls that a caller could observe. Cancelling a call cancels its work: work that has not started never starts.
"""

import enum
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from samserve.domain.camera_motion import Thumbnail
from samserve.domain.embedding import Embedding
from samserve.domain.geometry import CropBox, ImageFrame, Size
from samserve.domain.identity import EmbeddingKey
from samserve.domain.masks import Mask
from samserve.domain.prompts import PromptBatch
from samserve.domain.rendered_mask import MaskFormat, RenderedMask
from samserve.usecases.timings import StageTimings


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A decoded image in the encoder's form.

    Attributes:
        pixels: uint8 `[3, S, S]` RGB, longest side resized to S, top left; what lies outside is ignored.
        frame: how the original lies in the square.
        notes: what a caller may want to know of how the file was read, in sentences.
        timings: of decoding and resizing.
    """

    pixels: npt.NDArray[np.uint8]
    frame: ImageFrame
    timings: StageTimings
    notes: tuple[str, ...] = ()


class ImageDecoder(Protocol):
    """Decodes image files. Errors name the field `data`."""

    async def probe(self, data: bytes) -> Size:
        """Read the size after EXIF orientation from the header. May wait for a worker, as `decode` does.

        Raises:
            InvalidImage: not an image that is served, or one that declares more pixels than the limit.
        """
        ...

    async def decode(self, data: bytes, image_size: int, crop_box: CropBox | None = None) -> DecodedImage:
        """Decode, orient, convert to RGB, cut out `crop_box`, and resize the longest side to `image_size`.

        Args:
            crop_box: the part that becomes an image of its own, inside the oriented image; None for all of it.

        Raises:
            InvalidImage: as `probe`, or the file is truncated or corrupt.
        """
        ...


class ThumbnailReader(Protocol):
    """Decodes image files at a reduced size."""

    async def thumbnail(self, data: bytes) -> Thumbnail:
        """Decode a file at a fraction of its size.

        Raises:
            InvalidImage: as `ImageDecoder.decode`; of the field `data`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """Output of `ImageEncoder`: float16 `[C, H, W]`, and the times of waiting for a thread and of computing."""

    values: npt.NDArray[np.float16]
    timings: StageTimings


class ImageEncoder(Protocol):
    """The expensive model: computes the embedding of an image."""

    async def encode(self, image: DecodedImage) -> EncodedImage:
        """Encode one image.

        Raises:
            ModelUnavailable: the model cannot be reached or failed.
            CapacityExceeded: its queue is full.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DecodedMasks:
    """Output of `MaskDecoder` for P prompts.

    Attributes:
        low_res_masks: float32 logits `[P, 4, M, M]`; mask 0 is SAM's single-mask output, 1 to 3 its multimask output.
        iou_predictions: float32 `[P, 4]`.
        timings: of the wait for a free thread, and of the computation.
    """

    low_res_masks: npt.NDArray[np.float32]
    iou_predictions: npt.NDArray[np.float32]
    timings: StageTimings


class MaskDecoder(Protocol):
    """The cheap model: decodes an embedding and prompts to masks. The result of a prompt does not depend on other
    prompts."""

    async def decode(self, embedding: Embedding, prompts: PromptBatch) -> DecodedMasks:
        """Decode the prompts of one image.

        Raises:
            ModelUnavailable: the model cannot be reached or failed.
            CapacityExceeded: its queue is full.
        """
        ...


class MaskRenderer(Protocol):
    """Renders masks in the forms that are returned to callers."""

    def render(self, mask: Mask, mask_format: MaskFormat, include_logits: bool = False) -> RenderedMask:
        """Render one mask. Blocks; call it from a worker thread.

        Args:
            mask: with its `low_res_mask` where the format or `include_logits` asks for logits.
            include_logits: whether the logits come beside the format.
        """
        ...


class TextTokenizer(Protocol):
    """Converts texts to tokens of the model behind `TextRanker`."""

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Tokenise to ids `[T, L]`; each row is padded with its end-of-text token.

        Raises:
            InvalidPrompt: a text, `prompts[i].text`, has more tokens than the model takes.
        """
        ...


class TextRanker(Protocol):
    """Embeds texts and objects with CLIP. The inner product of two embeddings is their similarity.

    Attributes:
        image_size: side of the crops that it takes, in pixels.
    """

    @property
    def image_size(self) -> int: ...

    async def embed_texts(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Embed texts `[T, L]`, at most `MAX_TEXTS`, as `[T, D]` of length 1.

        Raises:
            ModelUnavailable: the model cannot be reached or failed.
            CapacityExceeded: its queue is full.
        """
        ...

    async def embed_crops(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed objects `[C, 3, S, S]`, at most `CROPS_PER_RUN`, as `[C, D]`. Raises the errors of `embed_texts`."""
        ...


class EmbeddingSource(enum.Enum):
    """Source of a request's embedding."""

    ENCODED = "encoded"
    COALESCED = "coalesced"
    MEMORY = "memory"
    REDIS = "redis"


@dataclass(frozen=True, slots=True, eq=False)
class CachedEmbedding:
    """A cache hit, and the tier in which it was found."""

    embedding: Embedding
    source: EmbeddingSource


class EmbeddingCache(Protocol):
    """Caches embeddings. Its own failures (down, slow, full, corrupt) count as misses or lost writes and are not
    raised."""

    async def get(self, key: EmbeddingKey) -> CachedEmbedding | None:
        """Return the embedding of this key, or None."""
        ...

    async def put(self, key: EmbeddingKey, embedding: Embedding) -> None:
        """Store an embedding."""
        ...


class EncodeLease(Protocol):
    """Lets one of many gateways encode an image. If this cannot be coordinated, every gateway gets the lease."""

    def try_acquire(self, key: EmbeddingKey) -> AbstractAsyncContextManager[bool]:
        """Try to acquire the lease. The value of the context is False while another gateway holds it.

        A granted lease is kept alive until the context is left, and is given back there; a holder that dies loses it.
        """
        ...
