"""Results of calls.

Sizes are (height, width). Coordinates are pixels of the image after EXIF orientation, (x, y), origin at the top left
corner of the top left pixel.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from samserve.client.rle import decode_rle
from samserve.domain.identity import ImageId


@dataclass(frozen=True, slots=True)
class Timings:
    """Times of one call in seconds. Steps that did not run are zero.

    Attributes:
        cache_seconds: reading the caches.
        image_decode_seconds: decoding and resizing the image file.
        queue_seconds: waiting for a free ONNX Runtime thread.
        encode_seconds: the image encoder.
        decode_seconds: the mask decoder.
        postprocess_seconds: from logits to masks.
        total_seconds: all of it, as the server sees it.
        round_trip_seconds: as the client sees it: reading and hashing, network, uploads and retries included.
        rank_seconds: comparing crops with texts.
    """

    cache_seconds: float
    image_decode_seconds: float
    queue_seconds: float
    encode_seconds: float
    decode_seconds: float
    postprocess_seconds: float
    total_seconds: float
    round_trip_seconds: float
    rank_seconds: float = 0.0


class CocoRle(TypedDict):
    """A mask in pycocotools' form: `size` [height, width] and `counts`, compressed run lengths in column-major
    order."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class Detection:
    """A detector's output for a box: the class of the object, and its score."""

    category_id: int
    score: float


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The M masks of one prompt. With `multimask_output` there are three, in no order of size or score, otherwise one.
    For a text they are sorted by similarity, and there may be fewer or none.

    Attributes:
        image_id: send it in place of the image while the server remembers it.
        original_size: (H, W) of the image.
        rles: the masks as they travel, COCO RLE.
        iou_predictions: float32 `[M]`, the model's estimate of each mask's IoU with the object meant.
        stability_scores: float32 `[M]`, how little each mask depends on the threshold.
        boxes: float32 `[M, 4]` tight XYXY, right and bottom exclusive; zeros for an empty mask.
        areas: int64 `[M]`, pixels.
        low_res_masks: float32 logits `[M, h, w]`, for `mask_input`; `[M, 0, 0]` where they were not asked for.
        cached: whether the image had been encoded before.
        embedding_source: `encoded`, `coalesced`, `memory` or `redis`.
        timings: of the whole call.
        detection: the prompt's.
        notes: how the file was read, where that may surprise, if this call had the image encoded.
        text_similarities: float32 `[M]`, cosine similarity of each mask's crop and the text; None for other prompts.
    """

    image_id: ImageId
    original_size: tuple[int, int]
    rles: tuple[CocoRle, ...] = field(repr=False)
    iou_predictions: npt.NDArray[np.float32]
    stability_scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    areas: npt.NDArray[np.int64]
    low_res_masks: npt.NDArray[np.float32] = field(repr=False)
    cached: bool
    embedding_source: str
    timings: Timings
    detection: Detection | None = None
    text_similarities: npt.NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def masks(self) -> npt.NDArray[np.bool_]:
        """The masks as bool `[M, H, W]`, decoded on first use, because those of 512 prompts on a large photo would not
        fit in memory."""
        masks = np.empty((len(self.rles), *self.original_size), dtype=np.bool_)
        for mask, rle in zip(masks, self.rles, strict=True):
            mask[:] = decode_rle(rle["counts"], self.original_size)
        return masks

    @property
    def best(self) -> int:
        """Index of the mask with the highest `iou_predictions`; for a text, of the most similar mask.

        Raises:
            ValueError: there is no mask.
        """
        scores = self.iou_predictions if self.text_similarities is None else self.text_similarities
        return int(np.argmax(scores))


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image that the server has encoded.

    Attributes:
        original_size: (H, W) of the image.
        input_size: (H, W) of the image inside the model's square input.
        embedding_source: `encoded`, `coalesced`, `memory` or `redis`.
        cached: whether the image had been encoded before.
        notes: how the file was read, where that may surprise, if this call had the image encoded.
    """

    image_id: ImageId
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    embedding_source: str
    cached: bool
    timings: Timings
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ImageEmbedding:
    """An image and its embedding, for running a decoder elsewhere.

    Attributes:
        image: as `embed` answers.
        values: float16 `[C, H, W]`.
        fingerprint: of the model that made it; the embedding is worth nothing to another one.
    """

    image: EmbeddedImage
    values: npt.NDArray[np.float16]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request."""

    max_image_bytes: int
    max_image_pixels: int
    max_prompts: int
    max_points_per_prompt: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The served model and the server's limits.

    Attributes:
        version: of samserve.
        model: architecture, `vit_h`, `vit_l`, `vit_b`, `vit_t` or `tiny`.
        fingerprint: identity of weights, preprocessing and precision.
        backend: what runs the models, `onnxruntime` or `triton`.
        transport: how embeddings come to it: `in_process`, `shared_memory` or `wire`.
        image_size: side of the model's square input in pixels.
        embedding_shape: (C, H, W).
        low_res_size: side of `low_res_masks` and `mask_input`.
        text_prompts: whether prompts may be texts.
    """

    version: str
    model: str
    fingerprint: str
    precision: str
    backend: str
    transport: str
    image_size: int
    embedding_shape: tuple[int, ...]
    low_res_size: int
    limits: Limits
    text_prompts: bool = False
