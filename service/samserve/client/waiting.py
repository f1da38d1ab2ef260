"""Blocking operations in which the synchronous and the asynchronous client differ by more than `await`."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import ParamSpec, TypeAlias, TypeVar

from samserve.client.image import ImageLike

_P = ParamSpec("_P")
_T = TypeVar("_T")

Frames: TypeAlias = Iterable[ImageLike]
AsyncFrames: TypeAlias = AsyncIterable[ImageLike] | Iterable[ImageLike]


def run(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run blocking work."""
    return work(*args, **kwargs)


async def async_run(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run blocking work in a thread."""
    return await asyncio.to_thread(work, *args, **kwargs)


def sleep(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)


async def async_sleep(seconds: float) -> None:
    """Sleep."""
    await asyncio.sleep(seconds)


def each(frames: Frames) -> Frames:
    """Iterate over the frames."""
    return frames


async def async_each(frames: AsyncFrames) -> AsyncGenerator[ImageLike, None]:
    """Iterate over the frames."""
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
    else:
        for frame in frames:
            yield frame
