"""Tensors while a program is being built: functions from a position to an expression.

A stored tensor reads a value of the program. Everything else is a formula over other tensors, so a transposed
or reshaped tensor is only another way to compute positions, and a chain of elementwise operations is one
expression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from crowdtrain_engine import DType, TensorType

from crowdtrain.lowering.expr import Const, Expr, Operation, Position, ReadExpr, Word, bits
from crowdtrain.lowering.index import Atom, Exact, Index, Loop

__all__ = ["Formula", "Tensor", "Weight", "broadcast", "reshape", "walk", "weigh"]

Formula = Callable[..., Expr]
"""From one :class:`Index` for each dimension to the element there."""

_MEMO = 64


class Tensor:
    """A tensor of a known shape. ``tensor[i, j]`` is an element at positions that are in range.

    ``label`` says in words what it is, should it become the output of a nest. ``value`` is the number of the
    value that it is, where it is stored with this very shape.
    """

    def __init__(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        formula: Formula,
        *,
        label: str = "",
        value: int | None = None,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.label = label
        self.value = value
        self._formula = formula
        self._memo: dict[tuple[Index, ...], Expr] = {}

    @classmethod
    def stored(cls, value: int, kind: TensorType, label: str = "") -> Tensor:
        """Value number ``value`` of the program, under the shape of ``kind``."""

        def formula(*indices: Index) -> Expr:
            return ReadExpr(kind.dtype, value, kind.shape, indices)

        return cls(kind.dtype, kind.shape, formula, label=label, value=value)

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.type.size

    def become(self, other: Tensor) -> None:
        """From now on, read this tensor through ``other``, which holds the same elements."""
        self._formula = other._formula
        self.value = other.value
        self._memo.clear()
        for cached in ("element", "weight"):
            self.__dict__.pop(cached, None)

    def __getitem__(self, indices: Index | int | tuple[Index | int, ...]) -> Expr:
        positions = tuple(map(Index.of, indices if isinstance(indices, tuple) else (indices,)))
        if len(positions) != len(self.shape):
            raise ValueError(f"{len(positions)} positions in a tensor of shape {self.shape}")
        if positions not in self._memo:
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            self._memo[positions] = self._formula(*positions)
        return self._memo[positions]

    def read(self, indices: tuple[Index | Exact | int, ...], fill: float | int = 0) -> Expr:
        """An element at positions that may lie outside, where it is ``fill``.

        Raises ValueError unless :meth:`has_edges` of the dimensions in which a position may lie outside.
        """
        places = {d: i if isinstance(i, Exact) else Index.of(i) for d, i in enumerate(indices)}
        inside = {d: i for d, i in places.items() if isinstance(i, Index) and _is_inside(i, self.shape[d])}
        outside = {d: i for d, i in places.items() if d not in inside}
        if not outside:
            return self[tuple(inside.values())]
        read = self._with_edges(inside, {d: Index(((Loop(self.shape[d], d), 1),)) for d in outside}, outside)
        if read is None:
            raise ValueError(f"{self!r} is not stored, so it cannot be read beyond its edges")
        return replace(read, fill=bits(fill, self.dtype))

    def has_edges(self, dims: Iterable[int]) -> bool:
        """Whether a position beyond the edge of each of ``dims`` is beyond that of the value read, too."""
        loops = {d: Index(((Loop(extent, d), 1),)) for d, extent in enumerate(self.shape)}
        outside = {d: loops[d] for d in dims}
        inside = {d: loop for d, loop in loops.items() if d not in outside}
        return self._with_edges(inside, outside, outside) is not None

    def _with_edges(
        self, inside: dict[int, Index], stand_ins: dict[int, Index], outside: Mapping[int, Index | Exact]
    ) -> ReadExpr | None:
        """The read with ``outside`` in place of ``stand_ins``, if each is alone the position along an
        axis.
        """
        read = self._formula(*((inside | stand_ins)[d] for d in range(len(self.shape))))
        if not isinstance(read, ReadExpr):
            return None
        if not all(
            isinstance(i, Index) and _is_inside(i, n) for i, n in zip(read.indices, read.shape, strict=True)
        ):
            return None  # it already has edges of its own, with another fill
        axes = list(read.indices)
        for d, stand_in in stand_ins.items():
            ((loop, _),) = stand_in.terms
            used = [i for i, axis in enumerate(read.indices) if loop in _atoms(axis)]
            if len(used) != 1 or read.indices[used[0]] != stand_in or read.shape[used[0]] != self.shape[d]:
                return None
            axes[used[0]] = outside[d]
        return replace(read, indices=tuple(axes))

    @cached_property
    def element(self) -> Expr:
        """The element at generic positions: one loop for each dimension."""
        return self[tuple(Index.of(Loop(extent, d)) for d, extent in enumerate(self.shape))]

    @cached_property
    def weight(self) -> Weight:
        """What one element costs."""
        return weigh(self.element)

    @property
    def is_computed(self) -> bool:
        """Whether an element takes more than reading a word at a computed position."""
        return self.weight.operations > 0

    @property
    def is_gathered(self) -> bool:
        """Whether an element is read at positions that are themselves read."""
        read = self.element
        return isinstance(read, ReadExpr) and any(
            isinstance(atom, Word) for index in read.indices for atom in _atoms(index)
        )

    def __repr__(self) -> str:
        return f"Tensor({self.dtype.name}, {self.shape}, {self.label!r})"


def _is_inside(index: Index, size: int) -> bool:
    """A word read at run time is taken to be inside."""
    return any(isinstance(atom, Word) for atom in index.atoms()) or 0 <= index.low <= index.high < size


def _atoms(index: Index | Exact) -> set[Atom]:
    return set((index.inner if isinstance(index, Exact) else index).atoms())


@dataclass(frozen=True)
class Weight:
    """What an expression puts into a nest."""

    operations: int
    reads: int
    constants: int

    def fits(self, operations: int, reads: int, constants: int) -> bool:
        return self.operations <= operations and self.reads <= reads and self.constants <= constants


def walk(expr: Expr) -> Iterator[Expr]:
    """``expr`` and all that it is made of, operands first, each once."""
    seen: set[Expr] = set()
    stack = [(expr, False)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if isinstance(node, Operation):
                stack += [(arg, False) for arg in reversed(node.args)]


def weigh(expr: Expr) -> Weight:
    """Counts what ``expr`` puts into a nest; equal subexpressions count once where they are one object."""
    parts = list(walk(expr))
    operations = sum(isinstance(part, Operation) for part in parts)
    constants = len({part.word for part in parts if isinstance(part, Const)})
    return Weight(operations, sum(map(_reads, parts)), constants)


def _reads(part: Expr) -> int:
    """Operands of a nest that one node needs, with those that give it positions."""
    if isinstance(part, ReadExpr):
        words = [atom for index in part.indices for atom in _atoms(index) if isinstance(atom, Word)]
        return 1 + sum(weigh(word.expr).reads for word in words)
    return int(isinstance(part, Position))


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all ``shapes`` are repeated: aligned at the end, where 1 goes with anything."""
    rank = max(map(len, shapes), default=0)
    columns = zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True)
    result = []
    for extents in columns:
        longest = max(extents)
        if any(extent not in (1, longest) for extent in extents):
            raise ValueError(f"shapes {shapes} do not broadcast")
        result.append(longest)
    return tuple(result)


def reshape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same elements in row-major order under another shape: another way to compute positions."""
    if shape == tensor.shape:
        return tensor
    if tensor.value is not None:  # a value may be read under any shape
        return Tensor.stored(tensor.value, TensorType(tensor.dtype, shape), tensor.label)
    strides = [math.prod(tensor.shape[d + 1 :]) for d in range(len(tensor.shape))]

    def formula(*indices: Index) -> Expr:
        flat = Index()
        for index, extent in zip(indices, shape, strict=True):
            flat = flat * extent + index
        places = (flat // stride % extent for stride, extent in zip(strides, tensor.shape, strict=True))
        return tensor[tuple(places)]

    return Tensor(tensor.dtype, shape, formula, label=tensor.label)
