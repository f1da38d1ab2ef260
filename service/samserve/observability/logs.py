"""Log formats: JSON, one object per line, or text for terminals."""

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from samserve.observability.call import present_call

LogFormat = Literal["json", "text"]

_RENAMED = {"levelname": "level", "name": "logger", "exc_info": "traceback"}
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_GRPC_LOGGER = "grpc._cython.cygrpc"
_METADATA_NOT_UTF_8 = "Invalid encoding on %s"
# The attributes of a plain record, to find the fields that were added.
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


def configure_logging(log_format: LogFormat | None, level: str) -> None:
    """Write the process's log to standard error.

    Args:
        log_format: None writes text if standard error is a terminal, and JSON if not.
        level: a name of `logging`, in capitals.
    """
    if log_format is None:
        log_format = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(json_formatter() if log_format == "json" else TextFormatter(_TEXT))
    handler.addFilter(add_call_ids)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Pillow warns about unusual files; outside the log, such lines would have a different format.
    logging.captureWarnings(True)
    logging.getLogger(_GRPC_LOGGER).addFilter(_is_of_the_gateway)


def json_formatter() -> logging.Formatter:
    """One JSON object per line, including tracebacks, with times in UTC."""
    return JsonFormatter(["message", "levelname", "name"], rename_fields=_RENAMED, timestamp=True)


class TextFormatter(logging.Formatter):
    """The message, followed by the fields as `name=value`. Control characters are escaped; tracebacks keep their
    lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        return _printable(" ".join([super().formatMessage(record), *(f"{name}={fields[name]}" for name in fields)]))


def add_call_ids(record: logging.LogRecord) -> bool:
    """Add the call's ids to everything logged during a call."""
    call = present_call()
    if call is not None:
        vars(record).update(call.ids())
    return True


def _is_of_the_gateway(record: logging.LogRecord) -> bool:
    # Metadata that is not UTF-8 comes from the caller. It is read as Latin-1 instead of causing an error and a
    # traceback.
    return record.msg != _METADATA_NOT_UTF_8


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
