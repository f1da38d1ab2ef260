"""Real gateways on ONNX Runtime and the bundled model, asked through real gRPC."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from tests.support.gateway import Served, serving
from tests.support.model_gate import ModelGate, gated


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractAsyncContextManager[Served]]:
    """Starts gateways."""
    return serving


@pytest.fixture
def encoder_gate() -> Iterator[ModelGate]:
    """Holds the image encoder."""
    with gated("input_size") as gate:
        yield gate


@pytest.fixture
def decoder_gate() -> Iterator[ModelGate]:
    """Holds the mask decoder."""
    with gated("point_coords") as gate:
        yield gate
