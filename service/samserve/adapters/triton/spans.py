"""Allocation of spans in a region of memory."""

import bisect


class SpanAllocator:
    """Allocates spans of `[start, stop)`, first fit from the start. Freed spans are merged with free neighbours.

    Spans begin at multiples of `ALIGNMENT` if `start` does.
    """

    ALIGNMENT = 64
    """A cache line, and the alignment that CPU and GPU kernels need for their operands."""

    def __init__(self, start: int, stop: int) -> None:
        self._free = [(start, stop)]
        self._taken: dict[int, int] = {}

    def take(self, nbytes: int) -> int | None:
        """Allocate a span of at least this many bytes. Returns its start, or None if there is no room."""
        size = -(-nbytes // self.ALIGNMENT) * self.ALIGNMENT
        for index, (start, stop) in enumerate(self._free):
            if stop - start >= size:
                self._free[index : index + 1] = [(start + size, stop)] if stop - start > size else []
                self._taken[start] = start + size
                return start
        return None

    def free(self, start: int) -> None:
        """Free the span that starts here."""
        stop = self._taken.pop(start)
        index = bisect.bisect(self._free, (start, stop))
        if index < len(self._free) and self._free[index][0] == stop:
            stop = self._free.pop(index)[1]
        if index and self._free[index - 1][1] == start:
            index -= 1
            start = self._free.pop(index)[0]
        self._free.insert(index, (start, stop))
