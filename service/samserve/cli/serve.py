"""`samserve serve`: run a gateway."""

import argparse
import asyncio
import logging
from pathlib import Path
from typing import Any

from samserve.cli.errors import CommandFailed

_log = logging.getLogger(__name__)


def _backend_of_engine(engine: str) -> str:
    return "onnxruntime" if engine == "embedded" else engine


_FLAGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--host", {"help": "address to listen on"}),
    ("--port", {"type": int, "help": "gRPC port; 0 takes a free one"}),
    ("--metrics-port", {"type": int, "help": "Prometheus port; none by default"}),
    ("--processes", {"type": int, "help": "gateways on the port, one a core to fill a machine; 1 by default"}),
    ("--backend", {"help": "what runs the models: onnxruntime or triton"}),
    (
        "--engine",
        {
            "dest": "backend",
            "metavar": "ENGINE",
            "type": _backend_of_engine,
            "help": "deprecated: use --backend; embedded is onnxruntime",
        },
    ),
    ("--triton", {"metavar": "HOST:PORT", "help": "Triton's gRPC service, for --backend triton"}),
    ("--model-repository", {"type": Path, "metavar": "FOLDER", "help": "folder of the models"}),
    ("--redis-url", {"metavar": "URL", "help": "redis://... of a cache that gateways share; none by default"}),
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "serve",
        help="run a gateway until SIGTERM or Ctrl-C",
        description="Run a gateway until SIGTERM or Ctrl-C. Every setting can also be a SAMSERVE_... variable.",
    )
    for name, options in _FLAGS:
        parser.add_argument(name, default=argparse.SUPPRESS, **options)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve until told to stop; returns once calls in flight have ended.

    Raises:
        CommandFailed: the port is taken, or traces are asked for and cannot be made.
        InvalidManifest, ValidationError, OSError: the models, the settings or a metrics port are not as they must be.
    """
    # Loading the backends takes a moment that the other commands need not wait for.
    from samserve.gateway.process import TracingMissing, serve
    from samserve.gateway.settings import Settings
    from samserve.gateway.supervisor import supervise
    from samserve.observability.logs import configure_logging

    flags = {name: value for name, value in vars(arguments).items() if name != "run"}
    settings = Settings(**flags)
    configure_logging(settings.log_format, settings.log_level)
    if settings.engine is not None:
        _log.warning("SAMSERVE_ENGINE is deprecated; set SAMSERVE_BACKEND=%s", settings.backend)
    try:
        asyncio.run(serve(settings) if settings.processes == 1 else supervise(settings))
    except TracingMissing as error:
        raise CommandFailed(str(error)) from error
    except RuntimeError as error:
        if "bind" not in str(error):
            raise
        where = f"{settings.host}:{settings.port}"
        raise CommandFailed(f"cannot listen on {where}; the port may be in use, choose another with --port") from error
