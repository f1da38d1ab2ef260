"""Which slots of a slab hold what, and which may be used again."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class SlotTable(Generic[K]):
    """A fixed number of slots under keys, the least recently used of which give way; but never one that is lent.

    A slot that is lent when its key goes stays out of use until it has been given back.
    """

    def __init__(self, slots: int) -> None:
        self._free = list(reversed(range(slots)))
        self._slots: OrderedDict[K, int] = OrderedDict()
        self._lent: dict[int, int] = {}
        self._orphans: set[int] = set()

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, key: K) -> int | None:
        """The slot under this key, which becomes the most recently used."""
        slot = self._slots.get(key)
        if slot is not None:
            self._slots.move_to_end(key)
        return slot

    def lend(self, slot: int) -> None:
        """The slot is read by one more, and keeps its content until as many have given it back."""
        self._lent[slot] = self._lent.get(slot, 0) + 1

    def give_back(self, slot: int) -> None:
        """One who read the slot reads it no more."""
        self._lent[slot] -= 1
        if not self._lent[slot]:
            del self._lent[slot]
            if slot in self._orphans:
                self._orphans.discard(slot)
                self._free.append(slot)

    def assign(self, key: K) -> tuple[int | None, list[K]]:
        """A slot to fill anew for this key, as the most recently used, in place of any under it.

        Returns:
            The slot, or None if all are lent; and the keys that gave way.
        """
        if key in self._slots:
            self._release(key)
        evicted: list[K] = []
        if not self._free:
            oldest = next((old for old, slot in self._slots.items() if slot not in self._lent), None)
            if oldest is not None:
                self._release(oldest)
                evicted.append(oldest)
        if not self._free:
            return None, evicted
        slot = self._slots[key] = self._free.pop()
        return slot, evicted

    def _release(self, key: K) -> None:
        slot = self._slots.pop(key)
        if slot in self._lent:
            self._orphans.add(slot)
        else:
            self._free.append(slot)
