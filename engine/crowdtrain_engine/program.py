"""Programs: data types, the canonical byte encoding, and the root (layouts: docs/PROTOCOL.md, "Programs").

A program is a list of nests over numbered values. Values ``0 … S-1`` are the state tensors, group after
group, the next ``D`` the data tensors, then one for each nest. Decoding accepts exactly the bytes that
encoding gives, so a program has one encoding and one root; every rule that can be checked on one nest or
header alone is checked there.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from crowdtrain_engine import merkle
from crowdtrain_engine._codec import Reader, Writer
from crowdtrain_engine._errors import ProgramError

if TYPE_CHECKING:
    from crowdtrain_engine.header import Header

__all__ = [
    "Axis",
    "DType",
    "Index",
    "Instruction",
    "Labels",
    "Mode",
    "Nest",
    "Operand",
    "Program",
    "Read",
    "TensorType",
]

MAX_RANK = 8
MAX_OPERANDS = 16
MAX_IMMEDIATES = 64
MAX_BODY = 128
MAX_ELEMENTARY = 32
"""Elementary functions in a body: more might not fit into the transaction that computes a fold's last step."""
MAX_ELEMENTS = 2**31 - 1
MAX_FOLD = 2**26
MAX_VALUES = 2**16
MAX_HEADER = 2**16
"""Bytes of a header. This bound, and those of groups and tensors, keep every move of a dispute that shows a header
small enough for a transaction."""
MAX_GROUPS = 2**8
MAX_TENSORS = 2**13
"""State and data tensors together."""
MAX_REACH = 2**62
"""Bound of |offset| + sum of |coefficient| * (extent - 1), so that an index fits in 64 bits."""
MAX_WIDE_PAGES = 2**16
MAX_WIDE_FOLD = 2**14
"""A nest may have a longer fold than this, or more output pages than MAX_WIDE_PAGES, not both: a dispute's
length.
"""


class DType(enum.IntEnum):
    """How the words of a tensor are meant. It names the NumPy type; operations themselves are untyped."""

    f32 = 0
    i32 = 1
    u32 = 2

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return _NUMPY[self]

    @classmethod
    def of(cls, dtype: np.dtype[np.generic]) -> DType:
        for member, known in _NUMPY.items():
            if known == dtype:
                return member
        raise ProgramError("tensor", f"dtype {dtype} is not one of float32, int32, uint32")


_NUMPY: dict[DType, np.dtype[np.generic]] = {
    DType.f32: np.dtype("<f4"),
    DType.i32: np.dtype("<i4"),
    DType.u32: np.dtype("<u4"),
}


class Mode(enum.IntEnum):
    """How an axis finds its position."""

    AFFINE = 0
    """offset + sum of coefficient * loop index"""
    EXACT = 1
    """the affine form divided by ``divisor``; the fill word where it does not divide"""
    FLOOR = 2
    """the affine form divided by ``divisor``, rounded toward minus infinity"""
    GATHER = 3
    """the word of an earlier operand, as u32"""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape of a tensor; a scalar has shape ``()``. A first dimension of 0 in data is
    still open.
    """

    dtype: DType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of words."""
        return math.prod(self.shape)

    @property
    def is_open(self) -> bool:
        """Whether the number of rows is still to be filled in."""
        return self.shape[:1] == (0,)

    def fits(self, other: TensorType) -> bool:
        """Whether a value of this type may become a state tensor of the other: same dtype, as many words."""
        return (self.dtype, self.size) == (other.dtype, other.size)


@dataclass(frozen=True, slots=True)
class Axis:
    """The position along one dimension, of length ``size``, of the tensor that an operand reads."""

    size: int
    terms: tuple[tuple[int, int], ...] = ()
    """(loop, coefficient), loops ascending, no coefficient 0"""
    offset: int = 0
    mode: Mode = Mode.AFFINE
    divisor: int = 1
    operand: int = 0
    """for GATHER: number of the operand that gives the position"""


@dataclass(frozen=True, slots=True)
class Read:
    """An operand that reads value number ``value``; out of range on any axis gives the word ``fill``."""

    value: int
    axes: tuple[Axis, ...]
    fill: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape under which the value is read: any that has as many words as the value."""
        return tuple(axis.size for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Index:
    """An operand that is the index of loop number ``loop``, as u32."""

    loop: int


Operand = Read | Index


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation of a body. References: 0 accumulator, then operands, immediates, instructions, in that
    order.
    """

    code: int
    a: int = 0
    b: int = 0
    c: int = 0


@dataclass(frozen=True, slots=True)
class Nest:
    """A loop nest with a scalar body: the only instruction of a program.

    Loops are numbered over ``outer`` first, then ``fold``. Without ``fold`` the output element is the
    body's result; with it, the accumulator starts as the word ``init`` and becomes the body's result for
    every index of ``fold``, in ascending row-major order.
    """

    dtype: DType
    outer: tuple[int, ...]
    operands: tuple[Operand, ...]
    body: tuple[Instruction, ...]
    result: int
    """reference of the result"""
    fold: tuple[int, ...] = ()
    init: int = 0
    immediates: tuple[int, ...] = ()

    @property
    def type(self) -> TensorType:
        """Type of the output."""
        return TensorType(self.dtype, self.outer)

    @property
    def fold_length(self) -> int:
        """Number of iterations of the fold; 1 without fold."""
        return math.prod(self.fold)

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(operand for operand in self.operands if isinstance(operand, Read))

    def encode(self) -> bytes:
        """The canonical bytes of the nest."""
        w = Writer()
        w.u8(self.dtype, len(self.outer), len(self.fold))
        w.u32(*self.outer, *self.fold, self.init)
        w.u8(len(self.operands), len(self.immediates), len(self.body), self.result)
        for operand in self.operands:
            _encode_operand(w, operand)
        w.u32(*self.immediates)
        for ins in self.body:
            w.u8(ins.code, ins.a, ins.b, ins.c)
        return w.bytes()

    @classmethod
    def decode(cls, data: bytes, where: str = "nest") -> Nest:
        """The nest that ``data`` encodes.

        Raises ProgramError, naming ``where``, unless ``data`` is the canonical encoding of a valid nest.
        """
        r = Reader(data, where)
        dtype = _decode_dtype(r)
        outer_rank, fold_rank = r.count(MAX_RANK, "outer rank"), r.count(MAX_RANK, "fold rank")
        outer = tuple(r.u32() for _ in range(outer_rank))
        fold = tuple(r.u32() for _ in range(fold_rank))
        init = r.u32()
        operand_count = r.count(MAX_OPERANDS, "operand count")
        immediate_count = r.count(MAX_IMMEDIATES, "immediate count")
        body_length = r.count(MAX_BODY, "body length")
        result = r.u8()
        operands = tuple(_decode_operand(r) for _ in range(operand_count))
        immediates = tuple(r.u32() for _ in range(immediate_count))
        body = tuple(Instruction(r.u8(), r.u8(), r.u8(), r.u8()) for _ in range(body_length))
        r.end()
        nest = cls(dtype, outer, operands, body, result, fold, init, immediates)
        nest.validate(where)
        return nest

    def validate(self, where: str = "nest") -> None:
        """Raises ProgramError, naming ``where``, if the nest, judged alone, breaks a rule."""
        from crowdtrain_engine.validation import validate_nest

        validate_nest(self, where)


def _encode_operand(w: Writer, operand: Operand) -> None:
    if isinstance(operand, Index):
        w.u8(1, operand.loop)
        return
    w.u8(0)
    w.u32(operand.value)
    w.u8(len(operand.axes))
    w.u32(operand.fill)
    for axis in operand.axes:
        w.u32(axis.size)
        w.u8(axis.mode)
        if axis.mode is Mode.GATHER:
            w.u8(axis.operand)
            continue
        w.i32(axis.offset)
        if axis.mode is not Mode.AFFINE:
            w.u32(axis.divisor)
        w.u8(len(axis.terms))
        for loop, coefficient in axis.terms:
            w.u8(loop)
            w.i32(coefficient)


def _decode_operand(r: Reader) -> Operand:
    kind = r.u8()
    if kind == 1:
        return Index(r.u8())
    if kind != 0:
        raise r.error(f"operand kind {kind} is neither 0 (read) nor 1 (index)")
    value = r.u32()
    rank = r.count(MAX_RANK, "operand rank")
    fill = r.u32()
    return Read(value, tuple(_decode_axis(r) for _ in range(rank)), fill)


def _decode_axis(r: Reader) -> Axis:
    size, mode = r.u32(), r.u8()
    if mode == Mode.GATHER:
        return Axis(size, mode=Mode.GATHER, operand=r.u8())
    if mode > Mode.GATHER:
        raise r.error(f"axis mode {mode} is not 0, 1, 2 or 3")
    offset = r.i32()
    divisor = 1 if mode == Mode.AFFINE else r.u32()
    count = r.count(2 * MAX_RANK, "number of terms")
    terms = tuple((r.u8(), r.i32()) for _ in range(count))
    return Axis(size, terms, offset, Mode(mode), divisor)


def _decode_dtype(r: Reader) -> DType:
    code = r.u8()
    if code > DType.u32:
        raise r.error(f"dtype {code} is not 0 (f32), 1 (i32) or 2 (u32)")
    return DType(code)


@dataclass(frozen=True)
class Labels:
    """Names for people, and for the dictionaries of states and logs. They mean nothing to an execution."""

    groups: tuple[str, ...]
    state: tuple[str, ...]
    data: tuple[str, ...]
    logs: tuple[str, ...]
    nests: tuple[str, ...]

    def encode(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, ASCII."""
        return json.dumps(vars(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def numbered(cls, program: Program) -> Labels:
        """What stands for labels where they are malformed: ``g0``, ``s0``, ``d0``, ``l0``, ``n0`` and so
        on.
        """
        return cls(
            *(tuple(f"{p}{i}" for i in range(n)) for p, n in zip("gsdln", program.counts, strict=True))
        )

    @classmethod
    def decode(cls, data: bytes, program: Program) -> Labels:
        """The labels in ``data``, or numbered ones: labels never make a program invalid."""
        try:
            fields = json.loads(data)
            labels = cls(**{key: tuple(names) for key, names in fields.items()})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return cls.numbered(program)
        return labels if labels.fits(program) and labels.encode() == data else cls.numbered(program)

    def fits(self, program: Program) -> bool:
        """Whether there is one name for everything, and none twice where a dictionary is made of them."""
        lists = (self.groups, self.state, self.data, self.logs, self.nests)
        if tuple(map(len, lists)) != program.counts:
            return False
        # they are shown on terminals: no control characters, and nothing that cannot be encoded
        for name in (name for names in lists for name in names):
            if not isinstance(name, str) or not name.isprintable() or len(name) > 200:
                return False
        in_groups = [
            self.state[start:stop] for start, stop in zip(program.bounds, program.bounds[1:], strict=False)
        ]
        return all(len(set(names)) == len(names) for names in (self.groups, self.data, self.logs, *in_groups))


@dataclass(frozen=True)
class Program:
    """One training step: state and data in, next state and logged values out.

    ``groups`` holds the number of state tensors in each group; ``next`` the value that becomes each state
    tensor of the next state; ``logs`` the values that are reported after every step. Labels are not part of
    equality of meaning, though they are part of the root.
    """

    groups: tuple[int, ...]
    state: tuple[TensorType, ...]
    data: tuple[TensorType, ...]
    nests: tuple[Nest, ...]
    next: tuple[int, ...]
    logs: tuple[int, ...] = ()
    labels: Labels = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.labels is None:
            object.__setattr__(self, "labels", Labels.numbered(self))

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Numbers of groups, state tensors, data tensors, logs and nests."""
        return len(self.groups), len(self.state), len(self.data), len(self.logs), len(self.nests)

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """First state tensor of each group, and the number of state tensors at the end."""
        bounds = [0]
        for count in self.groups:
            bounds.append(bounds[-1] + count)
        return tuple(bounds)

    @cached_property
    def types(self) -> tuple[TensorType, ...]:
        """Type of every value."""
        return (*self.state, *self.data, *(nest.type for nest in self.nests))

    @property
    def first_nest(self) -> int:
        """Value number of the first nest's output: state tensors and data tensors come before it."""
        return len(self.state) + len(self.data)

    def value_name(self, value: int) -> str:
        """What to call a value before people."""
        if value < len(self.state):
            return self.labels.state[value]
        if value < self.first_nest:
            return self.labels.data[value - len(self.state)]
        return self.labels.nests[value - self.first_nest]

    @property
    def header(self) -> Header:
        """Everything but the nests."""
        from crowdtrain_engine.header import Header

        return Header(self.groups, self.state, self.next, self.data, self.logs, len(self.nests))

    @cached_property
    def leaves(self) -> tuple[bytes, ...]:
        """What the root commits to: header, labels, then every nest, each as bytes."""
        return (self.header.encode(), self.labels.encode(), *(nest.encode() for nest in self.nests))

    @cached_property
    def tree(self) -> merkle.Tree:
        """The Merkle tree over :attr:`leaves`."""
        return merkle.Tree([merkle.leaf(data) for data in self.leaves])

    @property
    def root(self) -> bytes:
        """32 bytes that name this program."""
        return self.tree.root

    @property
    def is_open(self) -> bool:
        """Whether the number of rows of some data tensor is still to be filled in by :meth:`bind`."""
        return any(kind.is_open for kind in self.data)

    def bind(self, rows: Sequence[int]) -> Program:
        """The program for data tensors whose first dimensions are ``rows``, one for each data tensor.

        Raises ProgramError if a data tensor that is not open has another number of rows.
        """
        if len(rows) != len(self.data):
            raise ProgramError("data", f"{len(self.data)} data tensors are declared, {len(rows)} are given")
        first = len(self.state)
        types = []
        for i, (kind, n) in enumerate(zip(self.data, rows, strict=True)):
            if kind.shape[:1] not in ((0,), (n,)):
                raise ProgramError(
                    f"data {self.labels.data[i]}", f"shape is {kind.shape}, the data have {n} rows"
                )
            types.append(TensorType(kind.dtype, (n, *kind.shape[1:])))

        opened = {
            first + i: n for i, (kind, n) in enumerate(zip(self.data, rows, strict=True)) if kind.is_open
        }

        def bound(operand: Operand) -> Operand:
            # what is open is read under its own shape; what is not may be read under others
            if isinstance(operand, Index) or operand.value not in opened:
                return operand
            axes = (replace(axis, size=opened[operand.value]) for axis in operand.axes[:1])
            return replace(operand, axes=(*axes, *operand.axes[1:]))

        nests = (replace(nest, operands=tuple(map(bound, nest.operands))) for nest in self.nests)
        return replace(self, data=tuple(types), nests=tuple(nests))

    def validate(self) -> None:
        """Raises ProgramError, naming the part and the rule, if the program is not valid."""
        from crowdtrain_engine.validation import validate_program

        validate_program(self)

    def encode(self) -> bytes:
        """The file form: every leaf, each after its length in 4 bytes."""
        w = Writer()
        for leaf in self.leaves:
            w.u32(len(leaf))
            w.raw(leaf)
        return w.bytes()

    @classmethod
    def decode(cls, data: bytes) -> Program:
        """The valid program in ``data``; raises ProgramError for anything else. A stranger's bytes may come
        here.
        """
        from crowdtrain_engine.header import Header
        from crowdtrain_engine.validation import validate_links

        r = Reader(data, "program")
        leaves = [r.raw(r.u32()), r.raw(r.u32())]
        known = Header.decode(leaves[0])
        known.validate()
        nests: list[Nest] = []
        while not r.done:
            if len(nests) == known.nests:
                raise r.error(f"{known.nests} nests are declared, more are there")
            leaves.append(r.raw(r.u32()))
            nests.append(Nest.decode(leaves[-1], f"nest {len(nests)}"))
        if known.nests != len(nests):
            raise ProgramError("header", f"{known.nests} nests are declared, {len(nests)} are there")
        program = cls(known.groups, known.state, known.data, tuple(nests), known.next, known.logs)
        program = replace(program, labels=Labels.decode(leaves[1], program))
        validate_links(program)
        # the root must be over the very bytes that were given, even where the labels were replaced by numbers
        object.__setattr__(program, "leaves", tuple(leaves))
        return program
