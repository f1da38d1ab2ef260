"""Which failures are the user's to mend, and how they are told."""

import sys

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
        return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    if isinstance(error, CommandFailed | ClientError | InvalidManifest | OSError):
        return " ".join(str(error).split())
    return None
