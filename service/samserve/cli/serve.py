"""`samserve serve`: run a gateway."""

import argparse
import asyncio
import logging
from pathlib import Path
from typing import Any

from samserve.cli.errors import CommandFailed
from samserve.cli.extras import require_server_extra

_log = logging.getLogger(__name__)


def _backend_of_engine(engine: str) -> str:
    return "onnxruntime" if engine == "embedded" else engine


_FLAGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--host", {"help": "address to listen on; default: 127.0.0.1"}),
    ("--port", {"type": int, "help": "gRPC port; default: 50051; 0 selects a free port"}),
    ("--metrics-port", {"type": int, "help": "Prometheus port; disabled by default"}),
    ("--processes", {"type": int, "help": "gateway processes that share the port; default: 1"}),
    ("--backend", {"help": "backend that runs the models: onnxruntime (default) or triton"}),
    (
        "--engine",
        {
            "dest": "backend",
            "metavar": "ENGINE",
            "type": _backend_of_engine,
            "help": "deprecated, use --backend; embedded means onnxruntime",
        },
    ),
    (
        "--triton",
        {"metavar": "HOST:PORT", "help": "Triton's gRPC endpoint, with --backend triton; default: 127.0.0.1:8001"},
    ),
    (
        "--model-repository",
        {"type": Path, "metavar": "FOLDER", "help": "folder of the models; default: the bundled model"},
    ),
    ("--redis-url", {"metavar": "URL", "help": "redis://... URL of a cache that gateways share; disabled by default"}),
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "serve",
        help="run a gateway until SIGTERM or Ctrl-C",
        description="Run a gateway until SIGTERM or Ctrl-C. Every flag can also be set as a SAMSERVE_* environment "
        "variable, and further settings only so (service/samserve/gateway/settings.py).",
    )
    for name, options in _FLAGS:
        parser.add_argument(name, default=argparse.SUPPRESS, **options)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve until told to stop; returns once calls in flight have ended.

    Raises:
        CommandFailed: the extra `server` is missing, the port is taken, or traces are asked for and cannot be made.
        InvalidManifest, ValidationError, OSError: the models, the settings or a metrics port are not as they must be.
    """
    require_server_extra("samserve serve")
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
