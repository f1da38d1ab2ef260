"""Conversion of the server's messages to the client's results."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from samserve.client.result import (
    CocoRle,
    Detection,
    EmbeddedImage,
    ImageEmbedding,
    Limits,
    Segmentation,
    ServerInfo,
    Timings,
)
from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2 as pb


def read_segmentations(
    response: pb.SegmentResponse, round_trip_seconds: float, *, texts: Sequence[bool]
) -> list[Segmentation]:
    """Read one result per prompt, in the request's order.

    Args:
        texts: for each prompt whether it was a text.
    """
    timings = _timings(response.timings, round_trip_seconds)
    source = _source(response.embedding_source)
    return [
        Segmentation(
            image_id=ImageId(response.image_id),
            original_size=_size(response.original_size),
            rles=tuple(read_rle(mask.coco_rle) for mask in result.masks),
            iou_predictions=np.array([mask.iou_prediction for mask in result.masks], dtype=np.float32),
            stability_scores=np.array([mask.stability_score for mask in result.masks], dtype=np.float32),
            boxes=np.array([read_xyxy(mask.bbox) for mask in result.masks], dtype=np.float32).reshape(-1, 4),
            areas=np.array([mask.area for mask in result.masks], dtype=np.int64),
            low_res_masks=_all_logits(result),
            cached=response.cached,
            embedding_source=source,
            timings=timings,
            detection=_detection(result),
            text_similarities=_similarities(result) if is_text else None,
            notes=tuple(response.notes),
        )
        for result, is_text in zip(response.results, texts, strict=True)
    ]


def read_embedded(
    response: pb.EmbedImageResponse | pb.GetEmbeddingResponse, round_trip_seconds: float
) -> EmbeddedImage:
    """Read the fields about the image that both responses have."""
    return EmbeddedImage(
        image_id=ImageId(response.image_id),
        original_size=_size(response.original_size),
        input_size=_size(response.input_size),
        embedding_source=_source(response.embedding_source),
        cached=response.cached,
        timings=_timings(response.timings, round_trip_seconds),
        notes=tuple(response.notes),
    )


def read_embedding(response: pb.GetEmbeddingResponse, round_trip_seconds: float) -> ImageEmbedding:
    """Read the embedding, in native byte order."""
    values = np.frombuffer(response.embedding, dtype="<f2").reshape(response.shape).astype(np.float16)
    return ImageEmbedding(read_embedded(response, round_trip_seconds), values, response.fingerprint)


def read_server_info(response: pb.GetServerInfoResponse) -> ServerInfo:
    """Convert the message to `ServerInfo`."""
    limits = response.limits
    return ServerInfo(
        version=response.version,
        model=response.model,
        fingerprint=response.fingerprint,
        precision=response.precision,
        backend=response.backend,
        transport=response.transport,
        image_size=response.image_size,
        embedding_shape=tuple(response.embedding_shape),
        low_res_size=response.low_res_size,
        limits=Limits(
            limits.max_image_bytes, limits.max_image_pixels, limits.max_prompts, limits.max_points_per_prompt
        ),
        text_prompts=response.text_prompts,
    )


def read_edges(response: pb.DetectEdgesResponse, round_trip_seconds: float) -> npt.NDArray[np.uint8]:
    """Decode the edge map."""
    from PIL import Image

    with Image.open(io.BytesIO(response.png)) as picture:
        return np.asarray(picture.convert("L"))


def _similarities(result: pb.PromptResult) -> npt.NDArray[np.float32]:
    return np.array([mask.text_similarity for mask in result.masks], dtype=np.float32)


def _detection(result: pb.PromptResult) -> Detection | None:
    if not result.HasField("detection"):
        return None
    return Detection(result.detection.category_id, result.detection.score)


def _timings(timings: pb.Timings, round_trip_seconds: float) -> Timings:
    return Timings(
        cache_seconds=timings.cache.ToNanoseconds() / 1e9,
        image_decode_seconds=timings.image_decode.ToNanoseconds() / 1e9,
        queue_seconds=timings.queue.ToNanoseconds() / 1e9,
        encode_seconds=timings.encode.ToNanoseconds() / 1e9,
        decode_seconds=timings.decode.ToNanoseconds() / 1e9,
        postprocess_seconds=timings.postprocess.ToNanoseconds() / 1e9,
        total_seconds=timings.total.ToNanoseconds() / 1e9,
        round_trip_seconds=round_trip_seconds,
        rank_seconds=timings.rank.ToNanoseconds() / 1e9,
    )


def _source(source: "pb.EmbeddingSource.ValueType") -> str:
    return pb.EmbeddingSource.Name(source).removeprefix("EMBEDDING_SOURCE_").lower()


def _size(size: pb.Size) -> tuple[int, int]:
    return size.height, size.width


def read_xyxy(box: pb.Box) -> tuple[float, float, float, float]:
    """Read the corners XYXY."""
    return box.x0, box.y0, box.x1, box.y1


def read_rle(rle: pb.CocoRle) -> CocoRle:
    """Read an RLE in pycocotools' form."""
    return {"size": list(_size(rle.size)), "counts": rle.counts}


def _all_logits(result: pb.PromptResult) -> npt.NDArray[np.float32]:
    if not result.masks:
        return np.zeros((0, 0, 0), dtype=np.float32)
    return np.stack([_logits(mask.low_res_mask) for mask in result.masks])


def _logits(mask: pb.LowResMask) -> npt.NDArray[np.float32]:
    return np.frombuffer(mask.data, dtype="<f2").reshape(mask.size, mask.size).astype(np.float32)
