"""Requests that are refused before they are parsed: there is no room for them, or they are no protobuf message.

Refusing must stay cheap where most calls are refused, and parsing a message can cost more than all the rest.
Bytes that are no message gRPC left to itself would end with UNKNOWN, and a stream in the middle of the servicer.
"""

# grpc's own classes are generic to the type checker only.
from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from samserve.domain.errors import InvalidArgument, Overloaded, SamserveError
from samserve.usecases.load.admission import Admission


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands for a request until the servicer's turn, whose errors become statuses."""

    error: SamserveError


def refusing(handler: Any, request_type: str, admission: Admission | None) -> Any:
    """The same handler, raising `Overloaded` where there is no place, else `InvalidArgument` for what is no message.

    Args:
        handler: of one rpc, as `grpc.RpcMethodHandler`; not of the kind that takes a stream and answers once.
        request_type: full name of the message, for the error.
        admission: what the rpc will ask for a place, if any.
    """
    read = _reading(handler.request_deserializer, request_type, admission)

    def check(request: Any) -> Any:
        if isinstance(request, _Refused):
            raise request.error
        return request

    async def readable(requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        async for request in requests:
            yield check(request)

    if handler.stream_stream:
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, context: handler.stream_stream(readable(requests), context),
            read,
            handler.response_serializer,
        )
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(
            lambda request, context: handler.unary_stream(check(request), context), read, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        lambda request, context: handler.unary_unary(check(request), context), read, handler.response_serializer
    )


def _reading(
    deserialize: Callable[[bytes], Any], request_type: str, admission: Admission | None
) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            if admission is not None:
                admission.check()
            return deserialize(data)
        except Overloaded as error:
            # Its traceback would hold the message until somebody collects garbage.
            return _Refused(error.with_traceback(None))
        except DecodeError as error:
            description = (
                f"cannot parse the message as {request_type} ({error}); check the client against the server's proto"
            )
            return _Refused(InvalidArgument("", description))

    return read
