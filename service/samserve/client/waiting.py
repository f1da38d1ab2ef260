"""How the clients wait, where the synchronous one differs from the asynchronous one by more than `await`."""

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
    """Do blocking work."""
    return work(*args, **kwargs)


async def async_run(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do blocking work in a thread."""
    return await asyncio.to_thread(work, *args, **kwargs)


def sleep(seconds: float) -> None:
    """Let time pass."""
    time.sleep(seconds)


async def async_sleep(seconds: float) -> None:
    """Let time pass."""
    await asyncio.sleep(seconds)


def each(frames: Frames) -> Frames:
    """The frames one by one."""
    return frames


async def async_each(frames: AsyncFrames) -> AsyncGenerator[ImageLike, None]:
    """The frames one by one."""
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
    else:
        for frame in frames:
            yield frame
