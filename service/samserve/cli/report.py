"""Reports of a segmentation: as text, as JSON and as a picture."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samserve.cli.errors import CommandFailed
from samserve.cli.pictures.photo import read_photo
from samserve.cli.prompt import PromptFlags
from samserve.client import Segmentation, Timings

_HEADER = f"{'mask':>6}  {'iou':>5}  {'stability':>9}  {'area':>9}  box"


_SOURCES = {
    "encoded": "newly encoded",
    "coalesced": "encoded for another request",
    "memory": "cached in memory",
    "redis": "cached in Redis",
}


def table(result: Segmentation) -> str:
    """Format one line per mask; an asterisk marks the best."""
    if not result.rles:
        return "no mask passes the server's thresholds for text prompts; see docs/text-prompts.md"
    similarities = result.text_similarities
    lines = [_HEADER if similarities is None else f"{_HEADER:<57}  similarity"]
    for index, iou in enumerate(result.iou_predictions):
        mark = "*" if index == result.best else " "
        corners = ", ".join(f"{value:g}" for value in result.boxes[index])
        stability, area = result.stability_scores[index], result.areas[index]
        line = f"{mark:>4} {index}  {iou:5.3f}  {stability:9.3f}  {area:9d}  {corners}"
        lines.append(line if similarities is None else f"{line:<57}  {similarities[index]:10.3f}")
    return "\n".join(lines)


def tables(results: Sequence[Segmentation]) -> str:
    """A table for each of several prompts."""
    return "\n".join(f"box {number}\n{table(result)}" for number, result in enumerate(results, start=1))


def timing(timings: Timings, embedding_source: str) -> str:
    """Format the duration of one call and its server-side parts, in milliseconds."""
    parts = {
        "cache": timings.cache_seconds,
        "image decode": timings.image_decode_seconds,
        "queue": timings.queue_seconds,
        "encode": timings.encode_seconds,
        "mask decode": timings.decode_seconds,
        "postprocess": timings.postprocess_seconds,
        "rank": timings.rank_seconds,
        "all in the server": timings.total_seconds,
    }
    spent = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in parts.items() if seconds >= 0.00005)
    source = _SOURCES.get(embedding_source, embedding_source)
    return f"{1000 * timings.round_trip_seconds:6.1f} ms, image {source} ({spent})"


def as_json(result: Segmentation) -> str:
    """The same for programs: masks as COCO RLE, which pycocotools reads, sizes (height, width), boxes XYXY."""
    return json.dumps(
        {
            **_image(result),
            "best": result.best if result.rles else None,
            "masks": _masks(result),
            "timings": dataclasses.asdict(result.timings),
        },
        indent=2,
    )


def several_as_json(results: Sequence[Segmentation], boxes: Sequence[tuple[float, ...]]) -> str:
    """The same of several boxes on one image, in their order."""
    prompts = [
        {"box": list(box), "best": result.best, "masks": _masks(result)}
        for box, result in zip(boxes, results, strict=True)
    ]
    timings = dataclasses.asdict(results[0].timings)
    return json.dumps({**_image(results[0]), "prompts": prompts, "timings": timings}, indent=2)


def _image(result: Segmentation) -> dict[str, Any]:
    return {
        "image_id": result.image_id,
        "original_size": result.original_size,
        "cached": result.cached,
        "embedding_source": result.embedding_source,
    }


def _masks(result: Segmentation) -> list[dict[str, Any]]:
    similarities = [None] * len(result.rles) if result.text_similarities is None else result.text_similarities.tolist()
    return [
        {
            "iou_prediction": float(result.iou_predictions[index]),
            "stability_score": float(result.stability_scores[index]),
            "area": int(result.areas[index]),
            "box": result.boxes[index].tolist(),
            "rle": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            **({} if similarities[index] is None else {"text_similarity": similarities[index]}),
        }
        for index, rle in enumerate(result.rles)
    ]


def write_overlay(path: Path, photo: bytes, result: Segmentation, prompt: PromptFlags) -> None:
    """Draw the masks on the photo and write the picture.

    Raises:
        CommandFailed: the local photo is not the one that the server segmented.
        OSError: the file cannot be written.
    """
    from PIL import Image

    from samserve.cli.pictures.files import write_picture
    from samserve.cli.pictures.overlay import MaskOverlay, draw_overlays

    pixels = read_photo(photo)
    if pixels.shape[:2] != result.original_size:
        raise CommandFailed(
            f"the masks have (height, width) {result.original_size}, but the photo has {pixels.shape[:2]}"
        )
    if result.text_similarities is None:
        captions = [f"IoU {iou:.2f}" for iou in result.iou_predictions]
    else:
        captions = [f"similarity {similarity:.3f}" for similarity in result.text_similarities]
    if len(captions) > 1:
        captions = [f"mask {index}   {caption}" for index, caption in enumerate(captions)]
        captions[result.best] += "   best"
    overlays = [MaskOverlay(mask, caption) for mask, caption in zip(result.masks, captions, strict=True)]
    picture = draw_overlays(pixels, overlays, prompt.marks(result.original_size))
    write_picture(path, Image.fromarray(picture))
