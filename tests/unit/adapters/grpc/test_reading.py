"""What a refused call leaves behind: nothing, at once."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from samserve.adapters.grpc.reading import refusing
from samserve.domain.errors import Overloaded
from samserve.usecases.load.admission import Admission


class Message(bytearray):
    """Bytes whose end can be seen."""


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_a_refused_call_keeps_no_message_until_garbage_is_collected() -> None:
    admission = Admission("requests", 1, 1.0)
    handler: Any = refusing(
        grpc.unary_unary_rpc_method_handler(lambda request, context: request, bytes), "M", admission
    )
    message = Message(b"much")
    seen = weakref.ref(message)
    with admission.admit():
        request = handler.request_deserializer(message)
    with pytest.raises(Overloaded):
        handler.unary_unary(request, None)
    del message, request
    assert seen() is None
