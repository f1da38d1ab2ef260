"""Trains the small model.

    python -m training.train --config training/tiny.toml --work-dir runs

Goes on from runs/checkpoint.pt where there is one. Leaves runs/tiny.safetensors (the averaged weights), runs/log.csv
and runs/curves.png, anew at every checkpoint.
"""

import argparse
import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from modeling.tiny import TinySam
from training.affinity import AffinityHead
from training.config import Config
from training.curves import plot
from training.dataset import Batch, SceneDataset, batches
from training.forward import decode, embed_masks, embed_points
from training.losses import sam_loss
from training.prompts import Prompts, first_prompts, next_prompts

AFFINITY_WEIGHT = 2.0


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up, then a cosine down to one hundredth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def optimizer_for(parameters: list[nn.Parameter], config: Config) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels only."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
    )


def objective(
    model: TinySam, affinity: AffinityHead, batch: Batch, rounds: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """The loss of the interactive rounds (their mean) and of the affinities on one batch, and figures to log."""
    embeddings = model.vision_encoder(batch.pixel_values)
    alike = affinity.loss(embeddings, batch)
    prompts: Prompts = first_prompts(batch)
    total = embeddings.new_zeros(())
    figures: dict[str, float] = {}
    for number in range(rounds):
        sparse = embed_points(model, prompts.coords, prompts.labels)
        dense = None
        if prompts.previous is not None:
            # Clients may click again without handing the last mask back.
            given = torch.rand(len(prompts.image), generator=generator) < 0.7
            dense = embed_masks(model, prompts.previous, given)
        masks, ious = decode(model, embeddings[prompts.image], sparse, dense)
        loss, found = sam_loss(masks, ious, prompts.target, prompts.unambiguous)
        total = total + loss
        figures = figures or found
        if number + 1 < rounds:
            shown = 1 + ious[:, 1:].argmax(dim=1)
            shown = torch.where(prompts.unambiguous, 0, shown)
            prompts = next_prompts(prompts, masks.detach()[torch.arange(len(shown)), shown], generator)
    return total / rounds + AFFINITY_WEIGHT * alike, {**figures, "affinity_loss": float(alike.detach())}


@dataclass
class Run:
    """All that a resumed run needs."""

    config: Config
    model: TinySam
    average: TinySam
    affinity: AffinityHead
    optimizer: torch.optim.Optimizer
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, config: Config) -> "Run":
        torch.manual_seed(config.seed)
        model = TinySam(config.stage[0].image_size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = TinySam(config.stage[0].image_size)
        average.load_state_dict(model.state_dict())
        affinity = AffinityHead()
        learning = [p for p in (*model.parameters(), *affinity.parameters()) if p.requires_grad]
        return cls(config, model, average.requires_grad_(False), affinity, optimizer_for(learning, config))

    def advance(self, batch: Batch) -> dict[str, float]:
        """One optimiser step."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.model.set_image_size(batch.pixel_values.shape[-1])
        loss, figures = objective(self.model, self.affinity, batch, self.config.rounds, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(
            [p for g in self.optimizer.param_groups for p in g["params"]], self.config.gradient_norm
        )
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
            "affinity": self.affinity.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.affinity.load_state_dict(state["affinity"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], state["history"]

    def save(self, work_dir: Path) -> None:
        """Writes the checkpoint, whole or not at all, the averaged weights and the curves."""
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
    """The state as safetensors, in FP32 but rounded to what FP16 can hold; the shared encoding is stored once."""
    weights = {
        name: value.half().to(value.dtype) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if name != "prompt_encoder.shared_embedding.positional_embedding"
    }
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("training/tiny.toml"))
    parser.add_argument("--work-dir", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    work_dir: Path = arguments.work_dir
    config = Config.read(arguments.config)
    run = Run.start(config)
    checkpoint = work_dir / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(torch.load(checkpoint, weights_only=True))
    pools = [sorted((work_dir / pool).glob("*.npz")) for pool in config.pools]
    with tqdm(total=config.steps, initial=run.step, desc="training") as progress:
        for stage, first, steps in config.stages_from(run.step):
            dataset = SceneDataset(pools, stage.image_size, stage.objects, config.seed)
            for batch in batches(dataset, stage.batch, first, steps):
                figures = run.advance(batch)
                progress.update()
                progress.set_postfix({name: f"{value:.3f}" for name, value in figures.items() if "i" in name})
                if run.step % config.save_every == 0:
                    run.save(work_dir)
    run.save(work_dir)


if __name__ == "__main__":
    main()
