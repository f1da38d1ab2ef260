"""Real gateways on ONNX Runtime and the bundled model, asked through real gRPC."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.support.gateway import Served, serving


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractAsyncContextManager[Served]]:
    """Starts gateways."""
    return serving
