"""Set-up of the command's tests."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Undoes what `samserve serve` sets up: its handler would write to a stream that pytest closes."""
    root, grpc = logging.getLogger(), logging.getLogger("grpc._cython.cygrpc")
    kept = root.handlers[:], root.level, grpc.filters[:]
    yield
    root.handlers[:], level, grpc.filters[:] = kept
    root.setLevel(level)
    logging.captureWarnings(False)
