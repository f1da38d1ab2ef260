"""Fine-tune MobileSAM for a smaller input size.

    python -m training train

Starts with MobileSAM's weights, or resumes from runs/checkpoint.pt if it exists. Writes runs/tiny.safetensors (the
averaged weights), runs/log.csv and runs/curves.png at every checkpoint.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from modeling.tiny import TinySam
from training.config import Config
from training.curves import plot
from training.dataset import Batch, PromptDataset, batches
from training.forward import decode, embed_masks, embed_points
from training.losses import sam_loss
from training.mobile_sam import CHECKPOINT, load_mobile_sam
from training.prompts import Prompts, first_prompts, next_prompts


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up, a plateau, and a linear decay to one hundredth over the last two fifths."""
    rise = (step + 1) / config.warmup_steps
    fall = 0.01 + 0.99 * (config.steps - step) / (0.4 * config.steps)
    return config.learning_rate * min(1.0, rise, fall)


def optimizer_for(model: TinySam, config: Config) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices and kernels only, and a smaller learning rate for the image encoder."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith("vision_encoder."), parameter.ndim > 1].append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "share": config.encoder_share if in_encoder else 1.0,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (in_encoder, decays), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )


def objective(model: TinySam, batch: Batch, rounds: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    """Mean loss of the interactive rounds on one batch, and metrics to log."""
    embeddings = model.vision_encoder(batch.pixel_values)
    total = embeddings.new_zeros(())
    figures: dict[str, float] = {}
    rows: Prompts = first_prompts(batch)
    for number in range(rounds):
        sparse = embed_points(model, rows.coords, rows.labels)
        dense = None
        if rows.previous is not None:
            # Clients may send further points without the previous mask.
            given = torch.rand(len(rows.image), generator=generator) < 0.7
            dense = embed_masks(model, rows.previous, given)
        masks, ious = decode(model, embeddings[rows.image], sparse, dense)
        loss, found = sam_loss(masks, ious, rows.target, rows.unambiguous)
        total = total + loss / rounds
        if number == 0:
            figures |= found
        if number + 1 < rounds:
            shown = 1 + ious[:, 1:].argmax(dim=1)
            shown = torch.where(rows.unambiguous, 0, shown)
            rows = next_prompts(rows, masks.detach()[torch.arange(len(shown)), shown], generator)
    return total, figures


@dataclass
class Run:
    """The complete state of a run, for resuming."""

    config: Config
    model: TinySam
    average: TinySam
    optimizer: torch.optim.Optimizer
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, config: Config, model: TinySam) -> "Run":
        torch.manual_seed(config.seed)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = TinySam(model.image_size)
        average.load_state_dict(model.state_dict())
        return cls(config, model, average.requires_grad_(False), optimizer_for(model, config))

    def advance(self, batch: Batch) -> dict[str, float]:
        """Run one optimiser step."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        # Batches are too small for their own statistics, so batch normalisation keeps those of the published weights.
        self.model.eval()
        loss, figures = objective(self.model, batch, self.config.rounds, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        figures = {"step": self.step, "loss": float(loss.detach()), "learning_rate": rate, **figures}
        self.history.append(figures)
        return figures

    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], state["history"]

    def save(self, work_dir: Path) -> None:
        """Write the checkpoint atomically, the averaged weights and the curves."""
        unfinished = work_dir / "checkpoint.part"
        torch.save(self.state(), unfinished)
        unfinished.replace(work_dir / "checkpoint.pt")
        save_weights(self.average, work_dir / "tiny.safetensors")
        with (work_dir / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.history[0]))
            writer.writeheader()
            writer.writerows(self.history)
        plot(self.history, work_dir / "curves.png")


def save_weights(model: TinySam, path: Path) -> None:
    """Write the state as safetensors: FP32, rounded to values that FP16 can represent. The shared encoding is stored
    once."""
    weights = {
        name: value.half().to(value.dtype) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if name != "prompt_encoder.shared_embedding.positional_embedding"
    }
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path)


def train(config: Config, work_dir: Path) -> None:
    """Train to the end of the last stage, resuming from work_dir/checkpoint.pt if it exists."""
    cv2.setNumThreads(1)
    run = Run.start(config, load_mobile_sam(work_dir / CHECKPOINT, config.image_size))
    checkpoint = work_dir / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(torch.load(checkpoint, weights_only=True))
    dataset = PromptDataset(sorted((work_dir / "masks").glob("*.npz")), config.image_size, config.objects, config.seed)
    with tqdm(total=config.steps, initial=run.step, desc="training") as progress:
        for batch in batches(dataset, config.batch, run.step, config.steps - run.step):
            figures = run.advance(batch)
            progress.update()
            progress.set_postfix({name: f"{value:.3f}" for name, value in figures.items() if "iou" in name})
            if run.step % config.save_every == 0:
                run.save(work_dir)
    run.save(work_dir)
