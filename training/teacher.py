"""Masks for real photographs, as MobileSAM sees them in larger pictures: SAM's data engine in miniature.

    python -m training masks

A grid of points on every picture, three masks each; kept are those that their own score and their stability speak for,
each once.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from modeling.tiny import TinySam
from training.dataset import normalised
from training.forward import FOREGROUND, PADDING, decode, embed_points
from training.mobile_sam import CHECKPOINT, load_mobile_sam
from training.samples import SIDE, MaskedImage

TEACHER_SIZE = 672
"""Side of the input that the masks are made from, half as long again as the bundled model's. 1024 finds a little
more and costs four times as much."""
POINTS_PER_SIDE = 8
PROMPTS_PER_DECODE = 16
PREDICTED_IOU, STABILITY, OFFSET = 0.7, 0.85, 1.0
SMALLEST, LARGEST = 0.002, 0.9
SAME = 0.85
"""IoU from which two masks count as one."""


@torch.inference_mode()
def segment(model: TinySam, image: NDArray[np.uint8], rng: np.random.Generator) -> MaskedImage | None:
    """The picture [H, W, 3] with its confident masks, or nothing where there are fewer than three."""
    height, width = image.shape[:2]
    scale = model.image_size / max(height, width)
    size = (round(width * scale), round(height * scale))
    resized = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    embeddings = model.vision_encoder(torch.from_numpy(normalised(resized, model.image_size)).unsqueeze(0))
    steps = (np.arange(POINTS_PER_SIDE) + rng.random(2)[:, None]) / POINTS_PER_SIDE
    points = np.stack(np.meshgrid(steps[0] * size[0], steps[1] * size[1]), axis=-1).reshape(-1, 1, 2)
    logits, ious = [], []
    for some in torch.from_numpy(points.astype(np.float32)).split(PROMPTS_PER_DECODE):
        coords = torch.cat([some, torch.zeros_like(some)], dim=1)
        labels = torch.tensor([FOREGROUND, PADDING]).expand(len(some), 2)
        sparse = embed_points(model, coords, labels)
        masks, scores = decode(model, embeddings.expand(len(some), -1, -1, -1), sparse)
        logits.append(masks[:, 1:].flatten(0, 1))
        ious.append(scores[:, 1:].flatten())
    return confident_masks(image, torch.cat(logits), torch.cat(ious), size, model.image_size)


def confident_masks(
    image: NDArray[np.uint8], logits: Tensor, ious: Tensor, size: tuple[int, int], side: int
) -> MaskedImage | None:
    """The masks worth learning from, of logits [N, side/4, side/4] of which `size` (width, height) is the picture's."""
    areas = [(logits > threshold).sum(dim=(1, 2)) for threshold in (OFFSET, -OFFSET)]
    stability = areas[0] / areas[1].clamp(min=1)
    confident = torch.nonzero((ious > PREDICTED_IOU) & (stability > STABILITY)).squeeze(1)
    masks: list[NDArray[np.bool_]] = []
    weights: list[float] = []
    for index in confident[ious[confident].argsort(descending=True)].tolist():
        large = F.interpolate(logits[index][None, None], (side, side), mode="bilinear", align_corners=False)
        inside = large[:, :, : size[1], : size[0]]
        inside = F.interpolate(inside, image.shape[:2], mode="bilinear", align_corners=False)
        mask: NDArray[np.bool_] = (inside[0, 0] > 0).numpy()
        if SMALLEST < mask.mean() < LARGEST and all(_iou(mask, other) < SAME for other in masks):
            masks.append(mask)
            weights.append(float(ious[index]))
    if len(masks) < 3:
        return None
    found = MaskedImage.of_masks(image, np.stack(masks))
    return MaskedImage(found.image, found.labels, found.members, np.array(weights, dtype=np.float32))


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def random_crop(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A part of a photograph [H, W, 3] of random size, place and aspect, its longest side SIDE."""
    height, width = photo.shape[:2]
    aspect = float(np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
    whole = min(width, height * aspect)
    crop_width = whole * rng.uniform(0.4, 1.0)
    crop_height = min(height, crop_width / aspect)
    x, y = int(rng.uniform(0, width - crop_width)), int(rng.uniform(0, height - crop_height))
    crop = photo[y : y + int(crop_height), x : x + int(crop_width)]
    scale = SIDE / max(crop.shape[:2])
    size = (max(32, round(crop.shape[1] * scale)), max(32, round(crop.shape[0] * scale)))
    return np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def make_masks(work_dir: Path, crops: int, seed: int) -> None:
    """Fills the pool work_dir/masks up to so many crops of the photographs."""
    model = load_mobile_sam(work_dir / CHECKPOINT, TEACHER_SIZE)
    photos = sorted((work_dir / "photos").glob("*.jpg"))
    folder = work_dir / "masks"
    folder.mkdir(exist_ok=True)
    for index in tqdm(range(crops), desc="masks"):
        path = folder / f"{index:05d}.npz"
        rng = np.random.default_rng((seed, index))
        photo = cv2.imread(str(photos[index % len(photos)]), cv2.IMREAD_COLOR)
        if path.exists() or photo is None:
            continue
        crop = random_crop(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB).astype(np.uint8), rng)
        sample = segment(model, crop, rng)
        if sample is not None:
            sample.save(path)
