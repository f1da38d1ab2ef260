"""Messages of a call as bytes: parsing, serialising, size limits, and the metadata before the first response."""

# grpc's own classes are generic only for the type checker.
from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from samserve.api import REQUEST_ID_METADATA_KEY
from samserve.domain.errors import InvalidArgument
from samserve.observability.call import CallRecord

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Unread: TypeAlias = "asyncio.Future[None]"


class Wire:
    """Parses the requests and serialises the responses of one call.

    gRPC itself passes bytes. Its own parsing would answer a malformed message with UNKNOWN, and would run before the
    gateway can refuse the call; its own serializing would run after the call has been recorded.

    Attributes:
        head: the metadata that goes ahead of the first response, or with the status of a call that has none.

    Args:
        max_message_bytes: of one response; for a larger one gRPC would blame the server.
    """

    def __init__(self, rpc: MethodDescriptor, call: CallRecord, context: Context, max_message_bytes: int) -> None:
        self.head = ((REQUEST_ID_METADATA_KEY, call.request_id),)
        self._request_type = rpc.input_type
        self._call = call
        self._context = context
        self._max_message_bytes = max_message_bytes
        self._is_head_sent = False

    def parse(self, data: bytes) -> Any:
        """Parse a request.

        Raises:
            InvalidArgument: of no field: it is not a message of the rpc's type.
        """
        try:
            return GetMessageClass(self._request_type).FromString(data)
        except DecodeError as error:
            description = (
                f"cannot parse the message as {self._request_type.full_name} ({error});"
                " check the client against the server's proto"
            )
            raise InvalidArgument("", description) from None

    async def parse_all(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[Any, None]:
        """Parse the requests of a stream, as they arrive. Raises the errors of `parse`."""
        async for data in stream:
            self._call.request_bytes += len(data)
            yield self.parse(data)

    def serialize(self, response: Message) -> bytes:
        """Serialise a response.

        Raises:
            InvalidArgument: of no field: what was asked for does not fit into a message.
        """
        data = response.SerializeToString()
        if len(data) > self._max_message_bytes:
            description = f"the response has {len(data)} bytes, the limit of a message is {self._max_message_bytes}"
            raise InvalidArgument("", f"{description}; send fewer prompts at a time or use another mask_format")
        self._call.response_bytes += len(data)
        return data

    async def write_all(self, responses: AsyncGenerator[Message, None], idle_seconds: float) -> Unread | None:
        """Send the responses of a stream. Returns the pending write, if the client did not take it within the time
        limit."""
        # However the loop ends, the generator is closed at once and frees its resources.
        async with aclosing(responses):
            async for response in responses:
                data = self.serialize(response)
                await self.send_head()
                write = asyncio.ensure_future(self._context.write(data))
                try:
                    await asyncio.wait([write], timeout=idle_seconds)
                except asyncio.CancelledError:
                    write.cancel()
                    raise
                if not write.done():
                    return write
                await write
        return None

    async def send_head(self) -> None:
        """Send the initial metadata, unless it has been sent.

        The client's gRPC, or a proxy, retries a refused call only if nothing of a response has come.
        """
        if not self._is_head_sent:
            self._is_head_sent = True
            await self._context.send_initial_metadata(self.head)
