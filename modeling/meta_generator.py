"""Meta's own `SamAutomaticMaskGenerator` on exported graphs: the reference for the service's mask generation.

It comes from the package `segment-anything` and runs unchanged, but its predictor uses ONNX Runtime instead of PyTorch,
so that both generators see the same values. The four functions that it imports from torchvision are implemented here,
because torchvision does not fit PyTorch's CPU builds.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from PIL import Image
from torch import Tensor

from samserve.domain.manifest import ModelManifest

Record = dict[str, Any]
"""A record of SA-1B: segmentation, bbox XYWH, area, predicted_iou, stability_score, point_coords, crop_box."""


class MetaGenerator:
    """Meta's automatic mask generator on the graphs of a model repository.

    Args:
        parameters: of `SamAutomaticMaskGenerator`.
    """

    def __init__(self, repository: Path, threads: int = 0, **parameters: Any) -> None:
        with _torchvision():
            from segment_anything.automatic_mask_generator import SamAutomaticMaskGenerator
        manifest = ModelManifest.read(repository)
        model = SimpleNamespace(
            image_encoder=SimpleNamespace(img_size=manifest.image_size),
            image_format="RGB",
            mask_threshold=0.0,
            device=torch.device("cpu"),
        )
        self._generator = SamAutomaticMaskGenerator(model, output_mode="coco_rle", **parameters)
        self._generator.predictor = _predictor(model, repository, threads)

    def generate(self, image: npt.NDArray[np.uint8]) -> list[Record]:
        """Generate the records of an RGB image `[H, W, 3]`."""
        records: list[Record] = self._generator.generate(image)
        return records


def meta_algorithms() -> ModuleType:
    """Return `segment_anything.utils.amg`, the module with the algorithms of Meta's generator."""
    with _torchvision():
        from segment_anything.utils import amg
    module: ModuleType = amg
    return module


def _predictor(model: Any, repository: Path, threads: int) -> Any:
    from segment_anything.modeling import Sam
    from segment_anything.predictor import SamPredictor

    encoder, decoder = (
        _session(repository / f"sam_{name}" / "1" / "model.onnx", threads) for name in ("image_encoder", "mask_decoder")
    )

    class OnnxPredictor(SamPredictor):  # type: ignore[misc]
        """`SamPredictor` with the two networks replaced; all other steps are Meta's."""

        def set_torch_image(self, transformed_image: Tensor, original_image_size: tuple[int, ...]) -> None:
            self.reset_image()
            self.original_size = original_image_size
            self.input_size = tuple(transformed_image.shape[-2:])
            side = model.image_encoder.img_size
            square = np.zeros((1, 3, side, side), dtype=np.uint8)
            square[..., : self.input_size[0], : self.input_size[1]] = transformed_image.numpy()
            size = np.array([self.input_size], dtype=np.int32)
            (self.features,) = encoder.run(["image_embeddings"], {"image": square, "input_size": size})
            self.is_image_set = True

        def predict_torch(
            self, point_coords: Tensor, point_labels: Tensor, multimask_output: bool = True, return_logits: bool = False
        ) -> tuple[Tensor, Tensor, Tensor]:
            assert multimask_output
            assert return_logits
            prompts = len(point_coords)
            low_res_size = 4 * self.features.shape[-1]
            # As Meta's prompt encoder does for a prompt without a box.
            coords = np.pad(point_coords.numpy().astype(np.float32), ((0, 0), (0, 1), (0, 0)))
            labels = np.pad(point_labels.numpy().astype(np.int32), ((0, 0), (0, 1)), constant_values=-1)
            masks, ious = decoder.run(
                ["low_res_masks", "iou_predictions"],
                {
                    "image_embeddings": self.features,
                    "point_coords": coords[None],
                    "point_labels": labels[None],
                    "mask_input": np.zeros((1, prompts, low_res_size, low_res_size), dtype=np.float32),
                    "has_mask_input": np.zeros((1, prompts), dtype=np.float32),
                },
            )
            low_res = torch.from_numpy(masks[0, :, 1:])
            logits = Sam.postprocess_masks(model, low_res, self.input_size, self.original_size)
            return logits, torch.from_numpy(ious[0, :, 1:]), low_res

    return OnnxPredictor(model)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def _torchvision() -> Iterator[None]:
    """Provide the names that the package imports from torchvision, during the import only."""
    contents: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": _batched_nms, "box_area": _box_area},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"resize": _resize, "to_pil_image": Image.fromarray},
    }
    modules = {name: ModuleType(name) for name in contents}
    for name, attributes in contents.items():
        vars(modules[name]).update(attributes)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        # Other packages also check for torchvision and must not find these.
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Indices kept by greedy suppression, by falling score. Meta's generator has only one category."""
    assert not idxs.any()
    order = torch.sort(scores, descending=True, stable=True).indices
    left_top = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    right_bottom = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (right_bottom - left_top).clamp(min=0).prod(dim=2)
    area = _box_area(boxes)
    overlapping = shared / (area[:, None] + area[None, :] - shared) > iou_threshold
    suppressed = torch.zeros(len(boxes), dtype=torch.bool)
    kept = []
    for index in order.tolist():
        if not suppressed[index]:
            kept.append(index)
            suppressed |= overlapping[index]
    return torch.tensor(kept, dtype=torch.long)


def _box_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
