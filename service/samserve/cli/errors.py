"""Errors that the user can fix, and their messages."""

import sys
from typing import Any

from samserve.client import ClientError
from samserve.domain.manifest import InvalidManifest


class CommandFailed(Exception):
    """The command cannot do what was requested. The message says why and what to do, in one line."""


def explain(error: Exception) -> str | None:
    """Return a line that says what is wrong and what to do, or None for an internal error."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    # Only a gateway's settings raise it, and pydantic is not installed with the client alone.
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(error, pydantic.ValidationError):
        return "; ".join(_explain_setting(fault) for fault in error.errors())
    if isinstance(error, CommandFailed | ClientError | InvalidManifest | OSError):
        return " ".join(str(error).split())
    return None


def _explain_setting(fault: Any) -> str:
    from samserve.gateway.setting_help import setting_help

    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    setting = setting_help(fault["loc"][0])
    given = "cannot be used" if setting.is_secret else f"is {fault['input']!r}"
    return f"{setting.flag} ({setting.variable}) {given}: {message}"
