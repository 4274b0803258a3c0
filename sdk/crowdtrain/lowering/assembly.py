"""Collects the parts of a program and puts them in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from crowdtrain_engine import DType, Labels, Nest, Program, Read, TensorType
from crowdtrain_engine.program import Operand
from crowdtrain_engine.reference import run_nest
from crowdtrain_engine.state import Array

__all__ = ["CONSTANTS", "Assembly"]

CONSTANTS = "constants"
"""The group of state tensors that never change."""

_LABEL = 200

_MOST_WORDS, _MOST_WORK = 1 << 18, 1 << 22
"""Output words and iterations up to which a nest of constants is computed while lowering."""


class Assembly:
    """State tensors, data tensors and nests by the numbers of their values."""

    def __init__(self) -> None:
        self.next: dict[int, int] = {}
        """the value that becomes each state tensor; without an entry it stays as it is"""
        self.logs: dict[str, int] = {}
        self.constants: dict[str, Array] = {}
        """the tensors of the group of constants, by name; complete once the program is finished"""
        self._groups: dict[str, dict[str, TensorType]] = {}
        self._data: dict[str, TensorType] = {}
        self._made: list[tuple[Nest | Array, str]] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    @property
    def _states(self) -> list[tuple[str, TensorType]]:
        return [item for tensors in self._groups.values() for item in tensors.items()]

    def state(self, group: str, name: str, kind: TensorType) -> int:
        """Adds a state tensor. Groups stay in the order of their first tensors, each all at once."""
        if self._data or self._made or (group in self._groups and group != next(reversed(self._groups))):
            raise ValueError(f"state {group}/{name} must be declared with its group, before data and nests")
        tensors = self._groups.setdefault(group, {})
        if name in tensors:
            raise ValueError(f"state {group}/{name} is declared twice")
        tensors[name] = kind
        return len(self._states) - 1

    def data(self, name: str, kind: TensorType) -> int:
        """Adds a data tensor."""
        if self._made or name in self._data:
            raise ValueError(f"data {name} must be declared once, before nests")
        self._data[name] = kind
        return len(self._states) + len(self._data) - 1

    def nest(self, nest: Nest, label: str) -> int:
        """Adds a nest; the number of its value."""
        return self._make(nest, label)

    def constant(self, values: Array, name: str) -> int:
        """Adds a tensor that never changes, unless an equal one exists; the number of its value."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._known:
            self._known[key] = self._make(values, name)
        return self._known[key]

    def _make(self, what: Nest | Array, label: str) -> int:
        self._made.append((what, label))
        return self._first + len(self._made) - 1

    @property
    def _first(self) -> int:
        """Number of the first value that is neither declared state nor data."""
        return len(self._states) + len(self._data)

    def shape(self, value: int) -> tuple[int, ...]:
        """Shape of a value."""
        known = [*(kind for _, kind in self._states), *self._data.values()]
        if value < len(known):
            return known[value].shape
        made, _ = self._made[value - len(known)]
        return made.outer if isinstance(made, Nest) else made.shape

    def finish(self) -> Program:
        """The program, without nests on which neither the next state nor a log depends.

        Nests that read only constants are computed here, by the reference, and become constants themselves.
        """
        states, first = self._states, self._first
        following = [self.next.get(i, i) for i in range(len(states))]
        ends = [*following, *self.logs.values()]
        needed = self._needed(ends)
        self._compute_constants(needed, frozenset(ends))
        needed = self._needed(ends)
        fixed = [value for value in needed if not isinstance(self._made[value - first][0], Nest)]
        names = self._name_constants(fixed)
        number = {value: value + (len(fixed) if value >= len(states) else 0) for value in range(first)}
        number |= {value: len(states) + i for i, value in enumerate(fixed)}
        nests: list[tuple[Nest, str]] = []
        for value in needed:
            made, label = self._made[value - first]
            if isinstance(made, Nest):
                number[value] = first + len(fixed) + len(nests)
                nests.append((made, label))
        kinds = [TensorType(DType.of(a.dtype), a.shape) for a in self.constants.values()]
        groups = {group: len(tensors) for group, tensors in self._groups.items()}
        if fixed:
            groups[CONSTANTS] = len(fixed)
        return Program(
            groups=tuple(groups.values()),
            state=(*(kind for _, kind in states), *kinds),
            data=tuple(self._data.values()),
            nests=tuple(_renumbered(nest, number) for nest, _ in nests),
            next=(*(number[value] for value in following), *(number[value] for value in fixed)),
            logs=tuple(number[value] for value in self.logs.values()),
            labels=Labels(
                groups=tuple(groups),
                state=(*(name for name, _ in states), *names),
                data=tuple(self._data),
                logs=tuple(self.logs),
                nests=tuple(label[:_LABEL] for _, label in nests),
            ),
        )

    def _compute_constants(self, needed: list[int], ends: frozenset[int]) -> None:
        """Replaces nests by their words where those follow from constants alone and are not too many."""
        known: set[int] = set()
        words = [np.empty(0, np.uint32)] * (self._first + len(self._made))
        for value in needed:
            made, label = self._made[value - self._first]
            if isinstance(made, Nest):
                size = made.type.size
                if value in ends or size > _MOST_WORDS or size * made.fold_length > _MOST_WORK:
                    continue
                if not all(read.value in known for read in made.reads):
                    continue
                made = run_nest(made, words).view(made.dtype.numpy).reshape(made.outer)
                self._made[value - self._first] = made, label
            known.add(value)
            words[value] = np.ascontiguousarray(made).view(np.uint32).ravel()

    def _name_constants(self, fixed: list[int]) -> tuple[str, ...]:
        for value in fixed:
            made, label = self._made[value - self._first]
            assert not isinstance(made, Nest)
            name, count = label[: _LABEL - 10], 1
            while name in self.constants:
                count += 1
                name = f"{label[: _LABEL - 10]} {count}"
            self.constants[name] = made
        return tuple(self.constants)

    def _needed(self, roots: list[int]) -> list[int]:
        """Values that are made and reachable from ``roots``, ascending."""
        first = self._first
        found: set[int] = set()
        todo = [value for value in roots if value >= first]
        while todo:
            value = todo.pop()
            if value not in found:
                found.add(value)
                made, _ = self._made[value - first]
                if isinstance(made, Nest):
                    todo += [read.value for read in made.reads if read.value >= first]
        return sorted(found)


def _renumbered(nest: Nest, number: Mapping[int, int]) -> Nest:
    def renumber(operand: Operand) -> Operand:
        return replace(operand, value=number[operand.value]) if isinstance(operand, Read) else operand

    return replace(nest, operands=tuple(map(renumber, nest.operands)))
