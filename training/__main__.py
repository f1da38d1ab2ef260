"""The bundled model from nothing: pictures, pools of samples, training. Each step goes on where it stopped.

    python -m training [assets] [regions] [scenes] [train] [--config training/tiny.toml] [--work-dir runs]

Without a step: all of them, in this order.
"""

import argparse
from pathlib import Path

from training.assets import make_assets
from training.config import Config
from training.regions import make_regions
from training.scenes import make_scenes
from training.train import train

STEPS = ("assets", "regions", "scenes", "train")


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
    if "assets" in steps:
        make_assets(work_dir)
    if "regions" in steps:
        make_regions(work_dir, config.crops, config.seed)
    if "scenes" in steps:
        make_scenes(work_dir, config.scenes, config.seed)
    if "train" in steps:
        train(config, work_dir)


if __name__ == "__main__":
    main()
