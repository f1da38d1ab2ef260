"""Spans of the scratch memory: never two in one place, and none lost."""

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from samserve.adapters.triton.spans import SpanAllocator

START, STOP = 128, 128 + 20 * SpanAllocator.ALIGNMENT


class Spans(RuleBasedStateMachine):
    """Compares with the set of bytes that are taken."""

    spans = Bundle("spans")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = SpanAllocator(START, STOP)
        self.taken: dict[int, int] = {}

    @rule(nbytes=st.integers(1, 8 * SpanAllocator.ALIGNMENT), target=spans)
    def take(self, nbytes: int) -> int | None:
        start = self.allocator.take(nbytes)
        edges = [START, *(edge for span in sorted(self.taken.items()) for edge in span), STOP]
        gaps = list(zip(edges[::2], edges[1::2], strict=True))
        size = -(-nbytes // SpanAllocator.ALIGNMENT) * SpanAllocator.ALIGNMENT
        assert start == next((low for low, high in gaps if high - low >= size), None)
        if start is not None:
            self.taken[start] = start + size
        return start

    @rule(start=consumes(spans))
    def free(self, start: int | None) -> None:
        if start is not None:
            del self.taken[start]
            self.allocator.free(start)

    @invariant()
    def all_is_there_again_once_all_is_free(self) -> None:
        if not self.taken:
            assert self.allocator.take(STOP - START) == START
            self.allocator.free(START)


TestSpans = Spans.TestCase
