"""Shared memory for the tensors of requests in flight."""

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from samserve.adapters.triton.shared_memory import SharedMemory, when_unused
from samserve.adapters.triton.spans import SpanAllocator

_SETTLE_SECONDS = 1.0
"""An abandoned request counts as finished once a request sent at least this much later has been answered."""


class Scratch:
    """Arrays for the inputs and outputs of requests. An array is freed when it and its views are released.

    Triton may write an output after its caller has gone away: a cancelled request that is running already runs to its
    end. So arrays of a request without an answer are *abandoned*: kept out of use until a request to the same model
    that was sent well after that has been answered. The model has one instance, which takes requests in order.

    Args:
        start: where in the memory it begins, and it goes on to the end.
    """

    def __init__(self, memory: SharedMemory, start: int) -> None:
        self._memory = memory
        self._spans = SpanAllocator(start, memory.nbytes)
        self._given_back: deque[int] = deque()
        self._abandoned: dict[str, deque[tuple[float, Sequence[npt.NDArray[Any]]]]] = {}

    @property
    def has_abandoned(self) -> bool:
        """True if Triton may still be writing to an abandoned array."""
        return any(self._abandoned.values())

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
        """Allocate an array with arbitrary content. Returns None if there is no room."""
        self._collect()
        start = self._spans.take(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        if start is None:
            return None
        array = self._memory.array(start, shape, dtype)
        when_unused(array, partial(self._given_back.append, start))
        return array

    def abandon(self, model: str, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Mark arrays of a request without an answer: Triton may still write to them."""
        if arrays:
            self._abandoned.setdefault(model, deque()).append((time.monotonic(), arrays))

    def answered(self, model: str, sent: float) -> None:
        """Report that a request to this model, sent at that time by `time.monotonic()`, has been answered."""
        waiting = self._abandoned.get(model)
        while waiting and waiting[0][0] < sent - _SETTLE_SECONDS:
            waiting.popleft()

    def _collect(self) -> None:
        while self._given_back:
            self._spans.free(self._given_back.popleft())
