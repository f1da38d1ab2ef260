"""Flags of the build command."""

import subprocess
import sys

import pytest

from modeling.architectures import TINY_VIT_SIDES, VIT_SIZES
from modeling.model_names import MODEL_NAMES

_PROGRAM = """
import sys
from modeling.build_command import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    heavy = {"torch", "transformers", "onnx", "tritonclient", "pydantic"} & set(sys.modules)
    sys.exit(f"imported {heavy}" if heavy else ended.code)
"""


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--model", "steam"), "invalid choice: 'steam'"),
        (("--model", "vit_b"), "--checkpoint or --random-weights is required"),
        (("--model", "vit_b", "--images", "1"), "--images must be at least 2"),
        (("--model", "vit_b", "--points", "3:2:1"), "is not in order"),
        (("--model", "vit_b", "--keyed"), "--keyed requires a --target with engines"),
        (("--model", "vit_b", "--target", "tensorrt", "--prompts", "1:1:2"), "widen the ranges"),
    ],
)
def test_wrong_flags_are_refused_before_pytorch_is_imported(flags: tuple[str, ...], told: str) -> None:
    command = [sys.executable, "-c", _PROGRAM, *flags, "--output", "models"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr


def test_every_architecture_has_a_name() -> None:
    assert set(MODEL_NAMES) == {*VIT_SIZES, *TINY_VIT_SIDES}
