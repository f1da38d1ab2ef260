"""Requests that are not the protobuf message they should be, refused like any other bad input.

Left to itself gRPC ends such a unary call with UNKNOWN, and a stream in the middle of the servicer.
"""

# grpc's own classes are generic to the type checker only.
from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from samserve.domain.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands for a request until the servicer's turn, whose errors become statuses."""

    reason: str


def refusing_unreadable(handler: Any, request_type: str) -> Any:
    """The same handler, which raises `InvalidArgument` for bytes that are no message of its request type.

    Args:
        handler: of one rpc, as `grpc.RpcMethodHandler`; not of the kind that takes a stream and answers once.
        request_type: full name of the message, for the error.
    """
    read = _reading(handler.request_deserializer)

    def check(request: Any) -> Any:
        if isinstance(request, _Unreadable):
            raise InvalidArgument(
                "",
                f"the message cannot be read as {request_type} ({request.reason}): send what this server's proto says",
            )
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


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read
