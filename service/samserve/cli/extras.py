"""Packages of the extra `server`, which the client does not need."""

from importlib.util import find_spec

from samserve.cli.errors import CommandFailed

_PACKAGES = ("cv2", "onnxruntime", "pydantic_settings", "redis", "tritonclient")


def require_server_extra(purpose: str) -> None:
    """Check that the extra `server` is installed.

    Args:
        purpose: the command or flag that needs it, used as the subject of the error message.

    Raises:
        CommandFailed: it is not installed; the message says how to install it.
    """
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise CommandFailed(f"{purpose} needs {missing[0]}, which is missing: pip install 'samserve[server]'")
