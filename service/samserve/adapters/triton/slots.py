"""Bookkeeping of a slab's slots: their keys, and which slots can be reused."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class SlotTable(Generic[K]):
    """A fixed number of slots with keys. The least recently used slot is reused, but never one that is lent.

    If a lent slot loses its key, it stays out of use until it has been returned.
    """

    def __init__(self, slots: int) -> None:
        self._free = list(reversed(range(slots)))
        self._slots: OrderedDict[K, int] = OrderedDict()
        self._lent: dict[int, int] = {}
        self._orphans: set[int] = set()

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, key: K) -> int | None:
        """Return the slot of this key, which becomes the most recently used."""
        slot = self._slots.get(key)
        if slot is not None:
            self._slots.move_to_end(key)
        return slot

    def lend(self, slot: int) -> None:
        """Add a reader of the slot. It keeps its content until every reader has returned it."""
        self._lent[slot] = self._lent.get(slot, 0) + 1

    def give_back(self, slot: int) -> None:
        """Remove a reader of the slot."""
        self._lent[slot] -= 1
        if not self._lent[slot]:
            del self._lent[slot]
            if slot in self._orphans:
                self._orphans.discard(slot)
                self._free.append(slot)

    def assign(self, key: K) -> tuple[int | None, list[K]]:
        """Assign a slot to this key, as the most recently used, replacing the key's previous slot.

        Returns:
            The slot to fill, or None if all are lent; and the keys that were evicted.
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
