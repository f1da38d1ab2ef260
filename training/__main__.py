"""Train the bundled model from scratch: checkpoint, photographs, masks for them, training. Each step resumes where it
stopped.

    python -m training [checkpoint] [assets] [masks] [train] [--config training/tiny.toml] [--work-dir runs]

Without arguments, all steps run in this order.
"""

import argparse
from pathlib import Path

from training.assets import make_assets
from training.config import Config
from training.mobile_sam import fetch_checkpoint
from training.teacher import make_masks
from training.train import train

STEPS = ("checkpoint", "assets", "masks", "train")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", choices=[*STEPS, []], metavar="STEP")
    parser.add_argument("--config", type=Path, default=Path("training/tiny.toml"))
    parser.add_argument("--work-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    config, work_dir = Config.read(options.config), options.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    steps = options.steps or STEPS
    if "checkpoint" in steps:
        fetch_checkpoint(work_dir)
    if "assets" in steps:
        make_assets(work_dir)
    if "masks" in steps:
        make_masks(work_dir, config.crops, config.seed)
    if "train" in steps:
        train(config, work_dir)


if __name__ == "__main__":
    main()
