"""Measure what keyframes cost in accuracy.

    python benchmarks/keyframes.py [--image PHOTO] [--seconds S]

A camera moves over a photo while a user looks at points of it. Masks computed from keyframes are compared with the
masks that each frame would give if it were the next keyframe. Time is the video's time, not the clock's.
"""

import argparse
import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from samserve.adapters.images.decoder import PillowImageDecoder
from samserve.adapters.onnxruntime import OnnxRuntimeImageEncoder, OnnxRuntimeMaskDecoder
from samserve.domain import homography as plane
from samserve.domain.camera_motion import Thumbnail, estimate_motion, warp_mask
from samserve.domain.embedding import Embedding
from samserve.domain.gaze.choice import looked_at
from samserve.domain.geometry import Size
from samserve.domain.keyframes import KeyframePolicy, motion, scene_change
from samserve.domain.low_res_masks import LowResMask, seen_from
from samserve.domain.manifest import ModelManifest
from samserve.domain.masks import MULTIMASK, upsample_mask
from samserve.domain.prompts import click_prompts
from samserve.gateway.settings import Settings

PHOTO = Path(__file__).resolve().parents[1] / "docs" / "photos" / "coffee.jpg"

FRAMES_PER_SECOND = 20
FRAME_SIZE = Size(320, 440)
ENCODE_SECONDS = 0.2
"""Time from requesting a keyframe until it is available."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of the synthetic video, and the results of encoding it."""

    pose: plane.Homography
    thumbnail: Thumbnail
    embedding: Embedding


class Models:
    """The bundled models, in this process."""

    def __init__(self) -> None:
        repository = Settings().model_repository
        self.manifest = ModelManifest.read(repository)
        self.encoder, self.decoder = OnnxRuntimeImageEncoder(repository), OnnxRuntimeMaskDecoder(repository)
        self.image_decoder = PillowImageDecoder(64_000_000, 1)

    async def frame(self, photo: npt.NDArray[np.uint8], pose: plane.Homography) -> Frame:
        """The camera's image in this pose."""
        view = cv2.warpPerspective(
            photo, pose, FRAME_SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )
        data = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        decoded = await self.image_decoder.decode(data, self.manifest.image_size)
        encoded = await self.encoder.encode(decoded)
        return Frame(pose, await self.image_decoder.thumbnail(data), Embedding(encoded.values, decoded.frame))

    async def mask(
        self, frame: Frame, point: npt.NDArray[np.float64], last: tuple[Frame, LowResMask] | None
    ) -> LowResMask:
        """The mask that the gaze session chooses, given the previous mask on the last keyframe."""
        embedding = frame.embedding
        click = click_prompts([point], embedding.frame, self.manifest.low_res_size)
        decoded = await self.decoder.decode(embedding, click)
        masks, ious = decoded.low_res_masks[0, MULTIMASK], decoded.iou_predictions[0, MULTIMASK]
        before = None
        if last is not None:
            to_last = plane.between(last[0].pose, frame.pose)
            before = seen_from(last[1], last[0].embedding.frame, to_last, embedding.frame)
        chosen: LowResMask = masks[looked_at(masks, ious, embedding.frame, point, before)]
        return chosen


def pose(seconds: float, photo: Size) -> plane.Homography:
    """Homography from the frame's pixels to the photo's, for a swaying head: about 60 pixels and 5 degrees a second."""
    turn = cv2.getRotationMatrix2D(
        (FRAME_SIZE.width / 2, FRAME_SIZE.height / 2), 4 * math.sin(1.3 * seconds), 1 + 0.06 * math.sin(0.7 * seconds)
    )
    x = (photo.width - FRAME_SIZE.width) / 2 + 60 * math.sin(0.9 * seconds)
    y = (photo.height - FRAME_SIZE.height) / 2 + 20 * math.sin(0.5 * seconds)
    return np.asarray(np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]]) @ np.vstack([turn, [0, 0, 1]]), np.float64)


async def follow(
    models: Models, frames: Sequence[Frame], target: npt.NDArray[np.float64], policy: KeyframePolicy, transform: str
) -> tuple[list[float], int]:
    """IoU with the masks of an encoded frame, frame by frame, and the number of keyframes.

    Args:
        target: (x, y) in the photo, which is looked at all the time.
        transform: `client` (the true pose), `estimated`, or `none` (the keyframe's mask stays where it was).
    """
    key, keyed_at, next_encode, keyframes = frames[0], 0.0, 0.0, 1
    wanted: tuple[float, Frame] | None = None
    chosen: LowResMask | None = None
    last: tuple[Frame, LowResMask] | None = None
    to_key, ious = plane.IDENTITY, []
    for index, frame in enumerate(frames):
        now = index / FRAMES_PER_SECOND
        if wanted is not None and now >= wanted[0]:
            last = None if chosen is None else (key, chosen)
            key, keyed_at, wanted, chosen = wanted[1], now, None, None
            keyframes += 1
            to_key = plane.between(key.pose, frame.pose)
        found = plane.between(key.pose, frame.pose)
        if transform == "estimated":
            estimate = estimate_motion(key.thumbnail, frame.thumbnail, to_key)
            found = to_key if estimate is None else estimate
        to_key = plane.IDENTITY if transform == "none" else found
        change = scene_change(key.thumbnail.gray, frame.thumbnail.gray, found, FRAME_SIZE)
        if wanted is None and policy.is_outdated(change, motion(found, FRAME_SIZE), now - keyed_at):
            begin = max(now, next_encode)
            next_encode = begin + 1 / policy.max_encodes_per_second
            wanted = (begin + ENCODE_SECONDS, frames[min(len(frames) - 1, round(begin * FRAMES_PER_SECOND))])
        point = plane.apply(plane.inverse(frame.pose), target)
        if chosen is None:
            chosen = await models.mask(key, plane.apply(to_key, point), last)
        shown = warp_mask(chosen, 0.0, key.embedding.frame, to_key, FRAME_SIZE).full()
        own = await models.mask(frame, point, (key, chosen))
        best = upsample_mask(own, 0.0, frame.embedding.frame).full()
        union = np.count_nonzero(shown | best)
        ious.append(np.count_nonzero(shown & best) / union if union else 1.0)
    return ious, keyframes


async def keyframes(photo: bytes, seconds: float) -> None:
    """Print the table."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    size = Size(*pixels.shape[:2])
    models = Models()
    count = round(seconds * FRAMES_PER_SECOND)
    frames = [await models.frame(pixels, pose(index / FRAMES_PER_SECOND, size)) for index in range(count)]
    targets = [np.array([size.width * x, size.height * y]) for x, y in ((0.5, 0.5), (0.4, 0.45), (0.6, 0.6))]
    cases = [
        ("default, estimated from the frames", KeyframePolicy(), "estimated"),
        ("default, the client's pose", KeyframePolicy(), "client"),
        ("max_motion 0.05, the client's pose", KeyframePolicy(max_motion=0.05), "client"),
        ("max_motion 0.2, the client's pose", KeyframePolicy(max_motion=0.2), "client"),
        ("default, masks not moved", KeyframePolicy(), "none"),
    ]
    print("| keyframes | encoded | IoU median | IoU mean | IoU p10 |")
    print("|---|---|---|---|---|")
    for name, policy, transform in cases:
        ious: list[float] = []
        encoded = 0
        for target in targets:
            got, encoded = await follow(models, frames, target, policy, transform)
            ious += got
        print(
            f"| {name} | {encoded} of {count} | {np.median(ious):.3f} | {np.mean(ious):.3f}"
            f" | {np.quantile(ious, 0.1):.3f} |",
            flush=True,
        )
    neighbours = [iou for target in targets for iou in (await follow_neighbours(models, frames, target))]
    print(
        f"| (every frame encoded: with the frame before it) | {count} of {count} | {np.median(neighbours):.3f}"
        f" | {np.mean(neighbours):.3f} | {np.quantile(neighbours, 0.1):.3f} |"
    )
    for closing in (models.encoder, models.decoder, models.image_decoder):
        closing.close()


async def follow_neighbours(models: Models, frames: Sequence[Frame], target: npt.NDArray[np.float64]) -> list[float]:
    """Stability of the model itself: IoU of each frame's own mask with the previous frame's own mask, moved along."""
    ious: list[float] = []
    last: tuple[Frame, LowResMask] | None = None
    for frame in frames:
        own = await models.mask(frame, plane.apply(plane.inverse(frame.pose), target), last)
        if last is not None:
            before, mask = last
            to_key = plane.between(before.pose, frame.pose)
            moved = warp_mask(mask, 0.0, before.embedding.frame, to_key, FRAME_SIZE).full()
            shown = upsample_mask(own, 0.0, frame.embedding.frame).full()
            union = np.count_nonzero(moved | shown)
            ious.append(np.count_nonzero(moved & shown) / union if union else 1.0)
        last = frame, own
    return ious


def main() -> None:
    """Generate the video, track it and print the table."""
    parser = argparse.ArgumentParser(description="What keyframes cost in accuracy.")
    parser.add_argument("--image", type=Path, default=PHOTO)
    parser.add_argument("--seconds", type=float, default=6.0, help="of video")
    arguments = parser.parse_args()
    asyncio.run(keyframes(arguments.image.read_bytes(), arguments.seconds))


if __name__ == "__main__":
    main()
