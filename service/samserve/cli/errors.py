"""Which failures are the user's to mend, and how they are told."""

import sys
from typing import Any

from samserve.client import ClientError
from samserve.domain.manifest import InvalidManifest


class CommandFailed(Exception):
    """The command cannot do what it was asked; the text says why and what to do, in one line."""


def explain(error: Exception) -> str | None:
    """One line that says what is wrong and what to do; None for a fault of samserve itself."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    # Only a gateway's settings raise it, and a client alone has no pydantic.
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
    return f"{setting.flag} ({setting.variable}) is {fault['input']!r}: {message}"
