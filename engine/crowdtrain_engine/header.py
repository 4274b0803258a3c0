"""The header of a program: groups, types and what becomes of them (layout: docs/PROTOCOL.md, "Programs")."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crowdtrain_engine import program as p
from crowdtrain_engine._codec import Reader, Writer
from crowdtrain_engine._errors import ProgramError

__all__ = ["Header"]

MAGIC = b"CTP1"


@dataclass(frozen=True, slots=True)
class Header:
    """Everything that a program says besides its nests, which it only counts. Fields are a Program's."""

    groups: tuple[int, ...]
    state: tuple[p.TensorType, ...]
    next: tuple[int, ...]
    data: tuple[p.TensorType, ...]
    logs: tuple[int, ...]
    nests: int

    @property
    def first_nest(self) -> int:
        """Value number of the first nest's output."""
        return len(self.state) + len(self.data)

    @property
    def values(self) -> int:
        """Number of values."""
        return self.first_nest + self.nests

    @property
    def size(self) -> int:
        """Number of bytes of the encoding."""
        types = (*self.state, *self.data)
        words = len(self.state) + len(self.logs) + sum(len(kind.shape) for kind in types)
        return 16 + 2 * (len(self.groups) + len(types)) + 4 * words

    def encode(self) -> bytes:
        """The canonical bytes."""
        w = Writer()
        w.raw(MAGIC)
        w.u16(len(self.groups), len(self.state), len(self.data), len(self.logs))
        w.u32(self.nests)
        w.u16(*self.groups)
        for kind, following in zip(self.state, self.next, strict=True):
            _encode_type(w, kind)
            w.u32(following)
        for kind in self.data:
            _encode_type(w, kind)
        w.u32(*self.logs)
        return w.bytes()

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header that ``data`` encodes, which may still break rules. Raises ProgramError if malformed."""
        r = Reader(data, "header")
        if r.raw(4) != MAGIC:
            raise r.error("does not begin with CTP1")
        group_count, state_count, data_count, log_count = r.u16(), r.u16(), r.u16(), r.u16()
        nests = r.u32()
        _check_size(len(data), group_count, state_count + data_count)
        groups = tuple(r.u16() for _ in range(group_count))
        entries = [(_decode_type(r), r.u32()) for _ in range(state_count)]
        types, following = tuple(t for t, _ in entries), tuple(value for _, value in entries)
        data_types = tuple(_decode_type(r) for _ in range(data_count))
        logs = tuple(r.u32() for _ in range(log_count))
        r.end()
        return cls(groups, types, following, data_types, logs, nests)

    def validate(self, *, may_be_open: bool = True) -> None:
        """Raises ProgramError if a rule is broken that can be checked on the header alone.

        ``may_be_open`` lets the first extent of a data tensor be 0, to be bound later.
        """
        if not self.groups or not self.state or not self.nests:
            raise ProgramError("header", "a program needs at least one group, one state tensor and one nest")
        if not all(self.groups) or sum(self.groups) != len(self.state):
            raise ProgramError("header", f"groups {self.groups} do not share out {len(self.state)} tensors")
        if len(self.next) != len(self.state):
            raise ProgramError("header", f"{len(self.next)} next values for {len(self.state)} state tensors")
        if self.values > p.MAX_VALUES:
            raise ProgramError("header", f"{self.values} values, at most {p.MAX_VALUES} are allowed")
        _check_size(self.size, len(self.groups), self.first_nest)
        types = (*self.state, *self.data)
        for i, kind in enumerate(types):
            is_open = may_be_open and i >= len(self.state) and kind.shape[:1] == (0,)
            _check_type(kind, kind.shape[1:] if is_open else kind.shape, f"header: value {i}")
        for i, (kind, value) in enumerate(zip(self.state, self.next, strict=True)):
            if not 0 <= value < self.values or (value < len(types) and not types[value].fits(kind)):
                raise ProgramError("header", f"state tensor {i} becomes value {value}, which does not fit")
        if not all(0 <= value < self.values for value in self.logs):
            raise ProgramError("header", f"logged values {self.logs} must exist")


def _check_size(size: int, groups: int, tensors: int) -> None:
    """Raises ProgramError if a header is larger than a dispute can show."""
    counts = (
        (size, p.MAX_HEADER, "bytes"),
        (groups, p.MAX_GROUPS, "groups"),
        (tensors, p.MAX_TENSORS, "tensors"),
    )
    for count, most, what in counts:
        if count > most:
            raise ProgramError("header", f"has {count} {what}, at most {most} are allowed")


def _check_type(kind: p.TensorType, shape: tuple[int, ...], where: str) -> None:
    if len(kind.shape) > p.MAX_RANK:
        raise ProgramError(where, f"rank is {len(kind.shape)}, at most {p.MAX_RANK} is allowed")
    if not all(1 <= extent < 2**31 for extent in shape) or math.prod(shape) > p.MAX_ELEMENTS:
        raise ProgramError(where, f"shape {shape}: extents or elements are not between 1 and 2^31 - 1")


def _encode_type(w: Writer, kind: p.TensorType) -> None:
    w.u8(kind.dtype, len(kind.shape))
    w.u32(*kind.shape)


def _decode_type(r: Reader) -> p.TensorType:
    code = r.u8()
    if code > p.DType.u32:
        raise r.error(f"dtype {code} is not 0 (f32), 1 (i32) or 2 (u32)")
    return p.TensorType(p.DType(code), tuple(r.u32() for _ in range(r.count(p.MAX_RANK, "rank"))))
