"""Collects the parts of a program and puts them in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from crowdtrain_engine import Labels, Nest, Program, Read, TensorType
from crowdtrain_engine.program import Operand

__all__ = ["Assembly"]

_LABEL = 200


class Assembly:
    """State tensors, data tensors and nests by the numbers of their values."""

    def __init__(self) -> None:
        self.next: dict[int, int] = {}
        """the value that becomes each state tensor; without an entry it stays as it is"""
        self.logs: dict[str, int] = {}
        self._groups: dict[str, dict[str, TensorType]] = {}
        self._data: dict[str, TensorType] = {}
        self._nests: list[tuple[Nest, str]] = []

    @property
    def _states(self) -> list[tuple[str, TensorType]]:
        return [item for tensors in self._groups.values() for item in tensors.items()]

    def state(self, group: str, name: str, kind: TensorType) -> int:
        """Adds a state tensor. Groups stay in the order of their first tensors, each all at once."""
        if self._data or self._nests or (group in self._groups and group != next(reversed(self._groups))):
            raise ValueError(f"state {group}/{name} must be declared with its group, before data and nests")
        tensors = self._groups.setdefault(group, {})
        if name in tensors:
            raise ValueError(f"state {group}/{name} is declared twice")
        tensors[name] = kind
        return len(self._states) - 1

    def data(self, name: str, kind: TensorType) -> int:
        """Adds a data tensor."""
        if self._nests or name in self._data:
            raise ValueError(f"data {name} must be declared once, before nests")
        self._data[name] = kind
        return len(self._states) + len(self._data) - 1

    def nest(self, nest: Nest, label: str) -> int:
        """Adds a nest; the number of its value."""
        self._nests.append((nest, label))
        return len(self._states) + len(self._data) + len(self._nests) - 1

    def shape(self, value: int) -> tuple[int, ...]:
        """Shape of a value."""
        known = [*(kind for _, kind in self._states), *self._data.values()]
        return known[value].shape if value < len(known) else self._nests[value - len(known)][0].outer

    def finish(self) -> Program:
        """The program, without nests on which neither the next state nor a log depends."""
        states = self._states
        first = len(states) + len(self._data)
        following = [self.next.get(i, i) for i in range(len(states))]
        needed = self._needed([*following, *self.logs.values()], first)
        number = {value: value for value in range(first)}
        for value in needed:
            number[value] = len(number)
        kept = [self._nests[value - first] for value in needed]
        return Program(
            groups=tuple(map(len, self._groups.values())),
            state=tuple(kind for _, kind in states),
            data=tuple(self._data.values()),
            nests=tuple(_renumbered(nest, number) for nest, _ in kept),
            next=tuple(number[value] for value in following),
            logs=tuple(number[value] for value in self.logs.values()),
            labels=Labels(
                groups=tuple(self._groups),
                state=tuple(name for name, _ in states),
                data=tuple(self._data),
                logs=tuple(self.logs),
                nests=tuple(label[:_LABEL] for _, label in kept),
            ),
        )

    def _needed(self, roots: list[int], first: int) -> list[int]:
        """Values of nests that are reachable from ``roots``, ascending."""
        found: set[int] = set()
        todo = [value for value in roots if value >= first]
        while todo:
            value = todo.pop()
            if value not in found:
                found.add(value)
                todo += [read.value for read in self._nests[value - first][0].reads if read.value >= first]
        return sorted(found)


def _renumbered(nest: Nest, number: Mapping[int, int]) -> Nest:
    def renumber(operand: Operand) -> Operand:
        return replace(operand, value=number[operand.value]) if isinstance(operand, Read) else operand

    return replace(nest, operands=tuple(map(renumber, nest.operands)))
