"""What the client's streams have in common.

`Stream` and `AsyncStream` are both written by hand: gRPC takes the requests of a synchronous call from an iterator,
in a thread of its own, and those of an asynchronous call by `write`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from queue import Full, Queue
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from samserve.client.errors import (
    ClientError,
    ImageNotFound,
    InvalidRequest,
    Overloaded,
    ServerError,
    Unavailable,
    from_rpc_error,
)
from samserve.client.result import CocoRle
from samserve.client.rle import decode_rle
from samserve.domain.identity import ImageId
from samserve.v1 import segmentation_pb2 as pb

_A = TypeVar("_A")

OpenCall: TypeAlias = Callable[..., Any]
"""Starts a call about an image (or None). Takes an iterator of requests, unless requests are written to the call."""

_MAX_UNSENT = 16
_POLL_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class StreamMask:
    """One mask of a stream.

    Attributes:
        rle: as it travels, COCO RLE; its size may be smaller than the frame's, where the stream was told so.
        box: XYXY, right and bottom exclusive; zeros for an empty mask. In pixels of the mask, or [0, 1] across it if
            the stream is `normalized`.
        area: pixels of the mask.
    """

    rle: CocoRle = field(repr=False)
    iou_prediction: float
    stability_score: float
    box: tuple[float, float, float, float]
    area: int

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask as bool `[H, W]`, decoded on first use."""
        height, width = self.rle["size"]
        return decode_rle(self.rle["counts"], (height, width))


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of the stream that the server rejected. The stream continues.

    Attributes:
        sequence: the message's number.
        error: what is wrong with it.
        field: what is to blame, as a path in the message that was sent. In a gaze stream, where frames and samples are
            numbered apart, it begins with `frame` or `sample`.
    """

    sequence: int
    error: ClientError
    field: str = ""


class Stream(Generic[_A]):
    """A bidirectional call that numbers its messages itself.

    Use it in a `with` statement; leaving it cancels what is not ended. Iterate over it for the answers: that waits for
    the first message to be sent, with which the call begins, and raises a `ClientError` where it failed. One thread may
    send while another iterates. Sending waits while the server takes no more.
    """

    def __init__(self, open_call: OpenCall, target: str) -> None:
        self._unsent: Queue[Any] = Queue(_MAX_UNSENT)
        self._open_call = open_call
        self._opened: Future[Any] = Future()
        self._target = target
        self._said_all = False

    def end(self) -> None:
        """End sending. Messages already sent are still answered."""
        if not self._said_all:
            self._said_all = True
            self._put(self._begin(), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._opened.cancel():
            self._opened.result().cancel()
        # gRPC's own thread may be waiting for a message, and would wait forever.
        with suppress(Full):
            self._unsent.put_nowait(None)

    def __iter__(self) -> Iterator[_A]:
        return self

    def __next__(self) -> _A:
        try:
            return self._read(next(self._opened.result()))
        except CancelledError:
            raise StopIteration from None
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error

    def _read(self, message: Any) -> _A:
        raise NotImplementedError

    def _begin(self, image_id: ImageId | None = None) -> Any:
        """Return the call. The first message to be sent starts it, and its image id goes into the metadata."""
        if not self._opened.done():
            self._opened.set_result(self._open_call(image_id, iter(self._unsent.get, None)))
        return self._opened.result()

    def _send(self, *messages: Any, image_id: ImageId | None = None) -> None:
        if self._opened.cancelled():
            raise _closed()
        call = self._begin(image_id)
        for message in messages:
            if self._said_all or not self._put(call, message):
                raise self._ended(call)

    def _put(self, call: Any, message: Any) -> bool:
        """Return True if the call accepts the message; a call that has ended does not."""
        while call.is_active():
            with suppress(Full):
                self._unsent.put(message, timeout=_POLL_SECONDS)
                return True
        return False

    def _ended(self, call: Any) -> ClientError:
        if self._said_all or call.code() is grpc.StatusCode.OK:
            return _closed()
        return from_rpc_error(call, self._target)


class AsyncStream(Generic[_A]):
    """Asynchronous `Stream`: use it in an `async with` statement and iterate with `async for`."""

    def __init__(self, open_call: OpenCall, target: str) -> None:
        self._open_call = open_call
        self._target = target
        self._opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def end(self) -> None:
        """End sending. Messages already sent are still answered."""
        await self._begin().done_writing()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._opened.cancel():
            self._opened.result().cancel()

    def __aiter__(self) -> AsyncIterator[_A]:
        return self

    async def __anext__(self) -> _A:
        message = await self._receive()
        if message is None:
            raise StopAsyncIteration
        return self._read(message)

    def _read(self, message: Any) -> _A:
        raise NotImplementedError

    def _begin(self, image_id: ImageId | None = None) -> Any:
        """Return the call. The first caller starts it, and its image id goes into the metadata."""
        if not self._opened.done():
            self._opened.set_result(self._open_call(image_id))
        return self._opened.result()

    async def _send(self, *messages: Any, image_id: ImageId | None = None) -> None:
        if self._opened.cancelled():
            raise _closed()
        call = self._begin(image_id)
        try:
            for message in messages:
                await call.write(message)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error
        except Exception as error:
            # Writing to an ended call raises an uninformative error; its status has the reason.
            raise await self._ended() from error

    async def _receive(self) -> Any:
        # The waiting caller may be cancelled, but the call belongs to the stream.
        call = await asyncio.shield(self._opened)
        try:
            message = await call.read()
            if message is not grpc.aio.EOF:
                return message
            if await call.code() is grpc.StatusCode.OK:
                return None
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error
        raise await self._ended()

    async def _ended(self) -> ClientError:
        call = self._begin()
        code, details = await call.code(), await call.details()
        return from_rpc_error(
            grpc.aio.AioRpcError(code, await call.initial_metadata(), await call.trailing_metadata(), details),
            self._target,
        )


def _closed() -> InvalidRequest:
    return InvalidRequest("", "the stream has ended; open a new one")


def read_mask(mask: pb.Mask) -> StreamMask:
    """Read a mask in COCO RLE."""
    rle, box = mask.coco_rle, mask.bbox
    return StreamMask(
        {"size": [rle.size.height, rle.size.width], "counts": rle.counts},
        mask.iou_prediction,
        mask.stability_score,
        (box.x0, box.y0, box.x1, box.y1),
        mask.area,
    )


def read_error(error: pb.MessageError) -> ClientError:
    """Read the error about one message."""
    retry_after = error.retry_after.ToNanoseconds() / 1e9 if error.HasField("retry_after") else None
    code = next((code for code in grpc.StatusCode if code.value[0] == error.code), grpc.StatusCode.UNKNOWN)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(error.field, error.description)
        case grpc.StatusCode.NOT_FOUND:
            return ImageNotFound(error.description)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(error.description, retry_after)
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(error.description, retry_after)
        case _:
            return ServerError(error.description, code.name)
