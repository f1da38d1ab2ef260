"""Log lines: one a record, whatever is in it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samserve.observability.logs import TextFormatter, json_formatter

FORMATTERS = {"json": json_formatter(), "text": TextFormatter("%(levelname)s %(name)s: %(message)s")}


def line(log_format: str, message: str, **fields: Any) -> str:
    record = logging.makeLogRecord({"name": "samserve", "levelname": "INFO", "msg": message, **fields})
    return FORMATTERS[log_format].format(record)


@given(st.text(), st.text())
def test_no_text_breaks_a_line_or_drives_a_terminal(message: str, tenant: str) -> None:
    for log_format in FORMATTERS:
        written = line(log_format, message, tenant=tenant)
        assert len(written.splitlines()) == 1
        assert written.isprintable()


@given(st.text(), st.text())
def test_json_lines_hold_all_logged_fields(message: str, tenant: str) -> None:
    read = json.loads(line("json", message, tenant=tenant, seconds=0.25))
    assert (read["message"], read["tenant"], read["seconds"]) == (message, tenant, 0.25)
    assert (read["level"], read["logger"]) == ("INFO", "samserve")
    assert read["timestamp"].endswith("+00:00")


def test_text_has_the_fields_behind_the_message() -> None:
    assert line("text", "Segment OK", tenant="a", prompts=2) == "INFO samserve: Segment OK tenant=a prompts=2"


@pytest.fixture
def lines() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_formatter())
    logger = logging.getLogger("test of tracebacks")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


def test_tracebacks_are_inside_the_json(lines: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = lines
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed")
    (written,) = stream.getvalue().splitlines()
    traceback = json.loads(written)["traceback"]
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("ValueError: two\nlines")
