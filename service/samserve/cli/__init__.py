"""The `samserve` command: `serve`, `segment`, `generate`, `gaze`, `track`, `demo`.

Exit codes: 0 for success, 1 for an internal error, 2 for an error that the user can fix, which is reported in one line
on stderr.
"""

import codecs
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    _print_any_name()
    # Read as gRPC is loaded: it writes lines of its own, of another form, about whatever odd bytes a peer sends.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from samserve.cli import demo, gaze, generate, segment, serve, track
    from samserve.cli.errors import explain
    from samserve.cli.parser import Parser

    parser = Parser(prog="samserve", description="Promptable segmentation (Segment Anything, SAM) as a gRPC service.")
    parser.add_argument("--version", action="version", version=f"samserve {version('samserve')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, segment, generate, gaze, track, demo):
        command.add_to(commands)
    try:
        parsed = parser.parse_args(arguments)
        parsed.run(parsed)
    except Exception as error:
        explanation = explain(error)
        if explanation is None:
            raise
        print(f"samserve: {explanation}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _print_any_name() -> None:
    """Let names of files be printed that are not text in the terminal's encoding: their bytes come out as they are."""
    codecs.register_error("samserve.name", _encode_name)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="samserve.name")


def _encode_name(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
