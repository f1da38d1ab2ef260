"""`samserve serve`: run a gateway."""

import argparse
import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from samserve.cli.errors import CommandFailed
from samserve.cli.extras import require_server_extra
from samserve.cli.parser import Commands, Parser

if TYPE_CHECKING:
    from samserve.gateway.settings import Settings

_log = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    """Add the command. Its flags are the gateway's settings, which the other commands need not import."""
    parser = commands.add_parser(
        "serve",
        usage="%(prog)s [FLAG ...]",
        help="run a gateway until SIGTERM or Ctrl-C",
        description="Run a gateway until SIGTERM or Ctrl-C. Every flag can also be set as an environment variable: "
        "--redis-url is SAMSERVE_REDIS_URL. The flag takes precedence.",
    )
    parser.add_flags = partial(_add_flags, parser)


def _add_flags(parser: Parser) -> None:
    require_server_extra("samserve serve")
    from pydantic_settings import CliSettingsSource

    from samserve.gateway.settings import Settings

    source = CliSettingsSource[Parser](
        Settings,
        root_parser=parser,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
        cli_kebab_case=True,
        add_argument_method=_add_flag,
    )
    parser.set_defaults(run=partial(run, source))


def _add_flag(parser: Parser, *names: str, **options: Any) -> None:
    from samserve.gateway.setting_help import setting_help

    setting = setting_help(options["dest"])
    default = f"; default: {setting.default}" if setting.default else ""
    options["help"] = f"{setting.description}{default}".replace("%", "%%")
    # --tracing and its like take no value.
    if "metavar" in options:
        options["metavar"] = setting.metavar
    parser.add_argument(*names, **options)


def run(source: Any, arguments: argparse.Namespace) -> None:
    """Serve until told to stop; returns once calls in flight have ended.

    Args:
        source: of the settings, whose flags these arguments are.

    Raises:
        CommandFailed: the port is taken, or traces are asked for and cannot be made.
        InvalidManifest, ValidationError, OSError: the models, the settings or a metrics port are not as they must be.
    """
    # Loading the backends takes a moment that the help need not wait for.
    from pydantic_settings import CliApp

    from samserve.gateway.environment import unknown_variables
    from samserve.gateway.process import TracingMissing, serve
    from samserve.gateway.settings import Settings, replace_deprecated
    from samserve.gateway.supervisor import supervise
    from samserve.observability.logs import configure_logging

    flags = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    settings = CliApp.run(Settings, replace_deprecated(flags), cli_settings_source=source)
    configure_logging(settings.log_format, settings.log_level)
    _warn_of_deprecated(settings)
    for sentence in unknown_variables(os.environ):
        _log.warning(sentence)
    try:
        asyncio.run(serve(settings) if settings.processes == 1 else supervise(settings))
    except TracingMissing as error:
        raise CommandFailed(str(error)) from error
    except RuntimeError as error:
        if "bind" not in str(error):
            raise
        where = f"{settings.host}:{settings.port}"
        raise CommandFailed(f"cannot listen on {where}; the port may be in use, choose another with --port") from error


def _warn_of_deprecated(settings: "Settings") -> None:
    from samserve.gateway.setting_help import setting_help

    for name, current in settings.deprecated.items():
        former, present, value = setting_help(name), setting_help(current), getattr(settings, current)
        _log.warning(
            "%s (%s) is deprecated; use %s %s (%s=%s)",
            *(former.flag, former.variable, present.flag, value, present.variable, value),
        )
