"""Measure where a ViT's activations exceed half precision, layer by layer, with layer norms in single or half
precision.

python -m benchmarks.half_precision --model vit_h --plot docs/images/half-precision.png

The weights are random with outliers like a trained model's (`modeling.random_weights.grow_outliers`). Half precision is
emulated: every operation computes in single precision and its result is rounded to half, as tensor cores leave it.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import SamModel

from modeling.architectures import VIT_SIZES, vit_config
from modeling.encoder_graph import ImageEncoderGraph
from modeling.precision import FP16, FP32
from modeling.probes import probe_images
from modeling.progress import step
from modeling.random_weights import grow_outliers, randomise

mpl.use("Agg")
from matplotlib import pyplot as plt

LARGEST_HALF = 65504.0
ISLANDS, NECK_BY_HAND, ALL_BY_HAND = "float32 norms", "the neck's norms in float16", "all norms in float16"


def uneven_model(name: str, image_size: int, seed: int) -> SamModel:
    """Build one of SAM's ViTs, optionally for another image size, with random weights and outliers."""
    config = vit_config(name)
    vision: Any = config.vision_config
    prompts: Any = config.prompt_encoder_config
    vision.image_size = prompts.image_size = image_size
    prompts.image_embedding_size = image_size // vision.patch_size
    with torch.device("meta"):
        model = SamModel(config)
    model.train(False)
    model.to_empty(device="cpu")
    model.prompt_encoder.shared_embedding = model.shared_image_embedding
    randomise(model, seed)
    grow_outliers(model.vision_encoder)
    return model


class HandWrittenNorm(nn.Module):
    """Layer norm from elementary operations, as in `segment_anything`'s `LayerNorm2d` and in exports without the ONNX
    operator."""

    def __init__(self, norm: nn.LayerNorm, dim: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.dim = norm.weight, norm.bias, norm.eps, dim

    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (-1 - self.dim)
        mean = x.mean(self.dim, keepdim=True)
        variance = (x - mean).pow(2).mean(self.dim, keepdim=True)
        normalised = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight.reshape(shape) * normalised + self.bias.reshape(shape)


def with_hand_written_norms(model: SamModel, *, everywhere: bool) -> SamModel:
    """Return a model with the same weights and function whose layer norms are computed from elementary operations.

    Args:
        model: with a ViT; it stays as it is and shares its weights.
        everywhere: in the layers too, and not only in the neck.
    """
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    encoder: Any = copied.vision_encoder
    for name in ("layer_norm1", "layer_norm2"):
        setattr(encoder.neck, name, HandWrittenNorm(getattr(encoder.neck, name), dim=-3))
        for layer in encoder.layers if everywhere else ():
            setattr(layer, name, HandWrittenNorm(getattr(layer, name), dim=-1))
    return copied


class HalfEmulation(TorchDispatchMode):
    """Operations on half-precision tensors compute in single precision and round their results."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kinds = {leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        if torch.float16 not in kinds or func.is_view or func is torch.ops.aten._to_copy.default:
            return func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map_only(Tensor, _single, (args, kwargs))
        output = func(*wide_args, **wide_kwargs)
        return output if torch.float32 in kinds else tree_map_only(Tensor, _half, output)


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.dtype == torch.float32 else tensor


class Place(NamedTuple):
    """The output of one part of the encoder.

    Attributes:
        name: patches, a layer, or a part of the neck.
        largest: the largest absolute value in single precision.
        errors: by variant: the distance from single precision as a part of the norm; not a number after an overflow.
    """

    name: str
    largest: float
    errors: dict[str, float]


def study(model: SamModel, variants: Sequence[str] = (ISLANDS, NECK_BY_HAND)) -> list[Place]:
    """Run one image through a model's ViT in single precision and in each half-precision variant."""
    with step("single precision"):
        exact = _outputs(ImageEncoderGraph(model, FP32))
    places = [Place(name, float(values.abs().max()), {}) for name, values in exact.items()]
    for variant in variants:
        of_variant = model
        if variant != ISLANDS:
            of_variant = with_hand_written_norms(model, everywhere=variant == ALL_BY_HAND)
        with step(f"half precision: {variant}"), HalfEmulation():
            rounded = _outputs(ImageEncoderGraph(of_variant, FP16))
        for place in places:
            expected = exact[place.name]
            place.errors[variant] = float((rounded[place.name] - expected).norm() / expected.norm())
    return places


def _outputs(graph: ImageEncoderGraph) -> dict[str, Tensor]:
    """Outputs of the encoder's parts for the first probe image, float32, keyed by the part's name."""
    encoder: Any = graph.vision_encoder
    parts = {"patches": encoder.patch_embed}
    parts |= {f"layer {index + 1}": layer for index, layer in enumerate(encoder.layers)}
    parts |= {f"neck {name}": part for name, part in encoder.neck.named_children()}
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.__setitem__(name, output.float().clone())

    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    [probe] = probe_images(1, graph.image_size)
    with torch.inference_mode():
        graph(torch.from_numpy(probe.image)[None], torch.tensor([probe.input_size], dtype=torch.int32))
    for hook in hooks:
        hook.remove()
    return outputs


def table(places: Sequence[Place]) -> str:
    """Render the results as a Markdown table."""
    variants = list(places[0].errors)
    lines = [f"| after | largest value | {' | '.join(variants)} |", "|---" * (2 + len(variants)) + "|"]
    for place in places:
        errors = " | ".join(f"{place.errors[variant]:.1e}" for variant in variants)
        lines.append(f"| {place.name} | {place.largest:.0f} | {errors} |")
    return "\n".join(lines)


def plot(places: Sequence[Place], path: Path) -> None:
    """Plot the largest values, and the errors of each variant, along the encoder."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    along = range(len(places))
    above.plot(along, [place.largest for place in places], color="tab:blue", marker=".", label="largest value")
    above.plot(along, [place.largest**2 for place in places], color="tab:red", marker=".", label="its square")
    above.axhline(LARGEST_HALF, color="black", linestyle="--", linewidth=1, label="largest half-precision number")
    above.set_yscale("log")
    above.legend(loc="lower center")
    above.set_title("Activations in single precision")
    for variant, marker in zip(places[0].errors, ".x+", strict=False):
        below.plot(along, [place.errors[variant] for place in places], marker=marker, label=variant)
    below.set_yscale("log")
    below.legend(loc="upper left")
    below.set_title("Half precision: distance from single precision, as a part of the norm")
    below.set_xticks(list(along), [place.name for place in places], rotation=90, fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="vit_h", choices=list(VIT_SIZES))
    parser.add_argument("--image-size", type=int, default=1024, help="smaller is faster, and rounds alike")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--layers-too", action="store_true", help="a third run, with the layers' norms in half as well")
    parser.add_argument("--plot", type=Path, help="an image file to write")
    options = parser.parse_args(arguments)
    with step(f"filling {options.model} with random weights"):
        model = uneven_model(options.model, options.image_size, options.seed)
    places = study(model, (ISLANDS, NECK_BY_HAND, *([ALL_BY_HAND] if options.layers_too else [])))
    print(table(places))
    if options.plot:
        plot(places, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
