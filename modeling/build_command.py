"""The build command: convert a SAM checkpoint to a model repository, checked by a parity gate."""

from collections.abc import Sequence

from modeling import build_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 after printing the reason to stderr."""
    options = build_arguments.parse(arguments)
    # PyTorch takes seconds to import, for which wrong flags need not wait.
    from modeling import build_run

    return build_run.run(options)
