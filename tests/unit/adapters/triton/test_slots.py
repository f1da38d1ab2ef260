"""Slots of the slab: in whatever order they are asked for, lent and given back."""

from collections import OrderedDict

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from samserve.adapters.triton.slots import SlotTable

KEYS = st.integers(0, 9)


class Slots(RuleBasedStateMachine):
    """Compares with a model that remembers what each slot holds and who still reads it."""

    loans = Bundle("loans")

    @initialize(slots=st.integers(0, 4))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.table: SlotTable[int] = SlotTable(slots)
        self.held: OrderedDict[int, int] = OrderedDict()
        self.contents: dict[int, tuple[int, int]] = {}
        self.writes = 0
        self.lent: list[int] = []

    @rule(key=KEYS)
    def put(self, key: int) -> None:
        replaced = self.held.pop(key, None)
        slot, evicted = self.table.assign(key)
        busy = set(self.lent)
        if replaced is None or replaced in busy:
            free = self.slots - len(self.held) - len(busy - set(self.held.values()))
            idle = [old for old, taken in self.held.items() if taken not in busy]
            expected = [] if free else idle[:1]
        else:
            expected = []
        assert evicted == expected
        for old in evicted:
            del self.held[old]
        if slot is None:
            assert busy | set(self.held.values()) == set(range(self.slots))
            return
        assert slot not in busy
        assert slot not in self.held.values()
        self.writes += 1
        self.contents[slot] = (key, self.writes)
        self.held[key] = slot

    @rule(key=KEYS, target=loans)
    def lend(self, key: int) -> tuple[int, tuple[int, int]] | None:
        slot = self.table.find(key)
        assert slot == self.held.get(key)
        if slot is None:
            return None
        self.held.move_to_end(key)
        self.table.lend(slot)
        self.lent.append(slot)
        assert self.contents[slot][0] == key
        return slot, self.contents[slot]

    @rule(loan=consumes(loans))
    def give_back(self, loan: tuple[int, tuple[int, int]] | None) -> None:
        if loan is None:
            return
        slot, content = loan
        # What was lent has not been written to in the meantime.
        assert self.contents[slot] == content
        self.lent.remove(slot)
        self.table.give_back(slot)

    @invariant()
    def never_more_than_its_slots(self) -> None:
        assert len(self.table) == len(self.held) <= self.slots


TestSlots = Slots.TestCase
