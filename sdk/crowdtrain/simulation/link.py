"""A link that transfers share evenly: processor sharing, in the virtual time of one byte for each of them."""

from __future__ import annotations

import heapq

__all__ = ["SharedLink"]

Key = tuple[int, int]


class SharedLink:
    """Transfers that are under way, each with as many bytes a second as any other."""

    def __init__(self, capacity: float) -> None:
        """``capacity`` is in bytes a second."""
        self._capacity = capacity
        self._virtual = 0.0
        """bytes that a transfer has got that has been there from the beginning"""
        self._last = 0.0
        self._ends: dict[Key, float] = {}
        self._order: list[tuple[float, int, Key]] = []
        self._added = 0

    def _advance(self, now: float) -> None:
        if self._ends:
            self._virtual += (now - self._last) * self._capacity / len(self._ends)
        self._last = now

    def add(self, now: float, key: Key, size: float) -> None:
        """Begins a transfer of ``size`` bytes."""
        self._advance(now)
        self._added += 1
        self._ends[key] = self._virtual + size
        heapq.heappush(self._order, (self._virtual + size, self._added, key))

    def cancel(self, now: float, key: Key) -> None:
        """Ends a transfer before it is done; nothing happens if it is over."""
        self._advance(now)
        self._ends.pop(key, None)

    def next(self) -> float | None:
        """When the next transfer is done, if none begins or ends before; None without transfers."""
        while self._order and self._order[0][2] not in self._ends:
            heapq.heappop(self._order)
        if not self._order:
            return None
        left = max(0.0, self._order[0][0] - self._virtual)
        return self._last + left * len(self._ends) / self._capacity

    def pop(self, now: float) -> Key:
        """Takes out the transfer that is done now."""
        self.next()
        self._advance(now)
        end, _, key = heapq.heappop(self._order)
        self._virtual = max(self._virtual, end)
        del self._ends[key]
        return key
