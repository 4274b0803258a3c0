"""Arithmetic of positions: integer forms in the loops of a nest, simplified by what is known of their ranges.

An :class:`Index` is an affine form over atoms. An atom is a loop, a quotient or remainder that could not be
simplified, or a word that is only known when the program runs. Splitting a loop ``k`` of extent 12 into ``4 *
k1 + k0`` makes ``k // 4`` and ``k % 4`` affine: that is how reshapes cost nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Atom", "Exact", "Index", "Loop", "Quotient", "Remainder", "exact", "placed"]

_serial = itertools.count()


class Atom:
    """Something that an affine form multiplies; its value lies from ``low`` to ``high``, both included."""

    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Loop(Atom):
    """Part number ``part`` (most significant first) of logical dimension ``dim`` of a nest being built."""

    extent: int
    dim: int = 0
    part: int = 0
    serial: int = field(default_factory=_serial.__next__)

    @property
    def low(self) -> int:  # type: ignore[override]
        return 0

    @property
    def high(self) -> int:  # type: ignore[override]
        return self.extent - 1


@dataclass(frozen=True)
class Index:
    """``offset`` + sum of coefficient · atom; loops first, in the order in which they were made."""

    terms: tuple[tuple[Atom, int], ...] = ()
    offset: int = 0

    @classmethod
    def of(cls, value: Index | Atom | int) -> Index:
        if isinstance(value, Index):
            return value
        if isinstance(value, int):
            return cls((), value)
        if isinstance(value, Loop) and value.extent == 1:
            return cls()
        return cls(((value, 1),))

    @classmethod
    def _sum(cls, coefficients: Mapping[Atom, int], offset: int) -> Index:
        terms = [(atom, c) for atom, c in coefficients.items() if c]
        terms.sort(key=lambda term: (0, term[0].serial) if isinstance(term[0], Loop) else (1, 0))
        return cls(tuple(terms), offset)

    @property
    def low(self) -> int:
        """Least value that it can have."""
        return self.offset + sum(c * (atom.low if c > 0 else atom.high) for atom, c in self.terms)

    @property
    def high(self) -> int:
        """Greatest value that it can have."""
        return self.offset + sum(c * (atom.high if c > 0 else atom.low) for atom, c in self.terms)

    @property
    def is_affine(self) -> bool:
        """Whether all its atoms are loops."""
        return all(isinstance(atom, Loop) for atom, _ in self.terms)

    def atoms(self) -> Iterator[Atom]:
        """Its atoms, those inside quotients and remainders first."""
        for atom, _ in self.terms:
            if isinstance(atom, Quotient | Remainder):
                yield from atom.inner.atoms()
            yield atom

    def __add__(self, other: Index | int) -> Index:
        other = Index.of(other)
        total = dict(self.terms)
        for atom, c in other.terms:
            total[atom] = total.get(atom, 0) + c
        return Index._sum(total, self.offset + other.offset)

    __radd__ = __add__

    def __mul__(self, factor: int) -> Index:
        return Index._sum({atom: c * factor for atom, c in self.terms}, self.offset * factor)

    __rmul__ = __mul__

    def __neg__(self) -> Index:
        return self * -1

    def __sub__(self, other: Index | int) -> Index:
        return self + -Index.of(other)

    def __rsub__(self, other: int) -> Index:
        return -self + other

    def _divide(self, divisor: int) -> tuple[Index, Index]:
        """Whole part and rest: ``self == divisor * whole + rest``, with as little as possible in the rest."""
        whole = {atom: c // divisor for atom, c in self.terms if c % divisor == 0}
        rest = {atom: c for atom, c in self.terms if c % divisor}
        quotient, remainder = divmod(self.offset, divisor)
        return Index._sum(whole, quotient), Index._sum(rest, remainder)

    def _parts(self, divisor: int) -> tuple[Index, Index, int] | None:
        """``self`` as ``unit * coarse + fine`` with 0 ≤ fine < unit, for the greatest such unit that divides
        ``divisor``: division by ``divisor`` concerns ``coarse`` alone.
        """
        for unit in sorted({math.gcd(c, divisor) for _, c in self.terms}, reverse=True):
            coarse, fine = self._divide(unit)
            if unit > 1 and fine.low >= 0 and fine.high < unit:
                return coarse, fine, unit
        return None

    def __floordiv__(self, divisor: int) -> Index:
        if divisor == 1:
            return self
        whole, rest = self._divide(divisor)
        if rest.low // divisor == rest.high // divisor:
            return whole + rest.low // divisor
        parts = rest._parts(divisor)
        if parts is not None:
            coarse, _, unit = parts
            return whole + coarse // (divisor // unit)
        if len(rest.terms) == 1 and isinstance(rest.terms[0][0], Quotient) and rest.terms[0][1] == 1:
            inner = rest.terms[0][0]
            return whole + (inner.inner + rest.offset * inner.divisor) // (inner.divisor * divisor)
        return whole + Index.of(Quotient(rest, divisor))

    def __mod__(self, divisor: int) -> Index:
        _, rest = self._divide(divisor)
        if rest.low // divisor == rest.high // divisor:
            return rest - divisor * (rest.low // divisor)
        parts = rest._parts(divisor)
        if parts is not None:
            coarse, fine, unit = parts
            return coarse % (divisor // unit) * unit + fine
        return Index.of(Remainder(rest, divisor))


@dataclass(frozen=True)
class Quotient(Atom):
    """``inner // divisor``, toward minus infinity."""

    inner: Index
    divisor: int

    @property
    def low(self) -> int:  # type: ignore[override]
        return self.inner.low // self.divisor

    @property
    def high(self) -> int:  # type: ignore[override]
        return self.inner.high // self.divisor


@dataclass(frozen=True)
class Remainder(Atom):
    """``inner % divisor``, never negative."""

    inner: Index
    divisor: int

    @property
    def low(self) -> int:  # type: ignore[override]
        return 0

    @property
    def high(self) -> int:  # type: ignore[override]
        return self.divisor - 1


@dataclass(frozen=True)
class Exact:
    """``inner / divisor`` as a position: where it does not divide, a read gives its fill word."""

    inner: Index
    divisor: int


def exact(index: Index, divisor: int) -> Index | Exact:
    """The position ``index / divisor`` where that is whole, and no position elsewhere."""
    whole, rest = index // divisor, index % divisor
    if not rest.terms and rest.offset == 0:
        return whole
    return Exact(index, divisor)


def placed(positions: Sequence[Index | int], dim: int, position: Index | int) -> tuple[Index | int, ...]:
    """``positions`` with ``position`` in dimension ``dim``."""
    return (*positions[:dim], position, *positions[dim + 1 :])
