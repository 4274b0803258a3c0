"""What travels when a plan is carried out by several machines: groups through a store, counted as they pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import safetensors.numpy
from crowdtrain_engine.state import Array

from crowdtrain.chain import INITIAL, Source
from crowdtrain.stores import FakeStore, Store
from crowdtrain.strategies.blueprint import Role

__all__ = ["Traffic"]


class Traffic:
    """Machines that hand groups to one another through a store.

    A segment of a worker is done by that worker's machine, any other by one machine for all of them. A group is stored
    when another machine needs it for the first time, and fetched once by each that does; what a machine has made or
    fetched, it has. The initial state is everywhere.
    """

    def __init__(self, store: Store | None = None) -> None:
        """``store`` is one in memory if it is not given."""
        self._store = store or FakeStore()
        self._makers: dict[Source, Hashable] = {}
        self._stored: dict[Source, str] = {}
        self._held: dict[Source, set[Hashable]] = {}
        self.up: Counter[Hashable] = Counter()
        """bytes that each machine has stored"""
        self.down: Counter[Hashable] = Counter()
        """bytes that each machine has fetched"""

    @staticmethod
    def machine(role: Role) -> Hashable:
        """The machine that does a segment."""
        return "merger" if role.worker is None else role.worker

    def made(self, role: Role, source: Source) -> None:
        """A segment has made a group."""
        self._makers[source] = self.machine(role)
        self._held[source] = {self.machine(role)}

    def needed(self, role: Role, source: Source, group: Sequence[Array]) -> None:
        """A segment begins with a group."""
        machine = self.machine(role)
        if source.segment == INITIAL or machine in self._held[source]:
            return
        if source not in self._stored:
            blob = safetensors.numpy.save({str(i): tensor for i, tensor in enumerate(group)})
            self._stored[source] = self._store.put(blob)
            self.up[self._makers[source]] += len(blob)
        self.down[machine] += len(self._store.get(self._stored[source], 2**40))
        self._held[source].add(machine)

    def of(self, machine: Hashable) -> int:
        """Bytes that a machine has stored and fetched."""
        return self.up[machine] + self.down[machine]
