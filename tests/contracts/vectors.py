"""Calls of the Referee with the words of the reference, and nests and headers that break one rule each.

The Forge tests read them from contracts/test/vectors/referee.json; ``python -m contracts.vectors`` in tests/
writes that file, and a test fails when it is not what this module gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from contracts.openings import Words, arguments
from crowdtrain_engine import Axis, DType, Index, Instruction, Mode, Nest, Read, TensorType, reference
from crowdtrain_engine.header import Header
from crowdtrain_engine.ops import BY_NAME, OPS
from eth_abi.abi import encode
from web3 import Web3

__all__ = ["FILE", "broken_headers", "broken_nests", "text"]

FILE = Path(__file__).resolve().parents[2] / "contracts" / "test" / "vectors" / "referee.json"

_ARGUMENTS = ("bytes", "(uint32,bytes32)[]", "(uint32,uint32,bytes,bytes32[])[]", *["uint32"] * 4)
_FFMA = BY_NAME["ffma"].code
_ONE, _MINUS_INFINITY = 0x3F800000, 0xFF800000


@dataclass(frozen=True)
class Vector:
    """A stretch of a nest's fold for one output element."""

    name: str
    nest: Nest
    values: list[Words]
    output: int
    start: int = 0
    stop: int = 1
    accumulator: int = 0

    @property
    def call(self) -> bytes:
        """The calldata of Referee.evaluate."""
        selector = bytes(Web3.keccak(text=f"evaluate({','.join(_ARGUMENTS)})")[:4])
        given = arguments(self.nest, self.values, self.output, self.start, self.stop, self.accumulator)
        return selector + encode(_ARGUMENTS, given)

    @property
    def word(self) -> int:
        """What the Referee must return."""
        outputs, accumulator = np.array([self.output]), np.array([self.accumulator], np.uint32)
        return int(reference.fold(self.nest, self.values, outputs, self.start, self.stop, accumulator)[0])


def _words(rng: np.random.Generator, count: int) -> Words:
    """Ordinary floats, and as many words of any bits."""
    floats = rng.standard_normal(count).astype(np.float32).view(np.uint32)
    return np.where(rng.random(count) < 0.5, floats, rng.integers(0, 2**32, count, np.uint32))


def _operations(rng: np.random.Generator) -> Iterator[Vector]:
    """Each operation, of words that follow one another in one tensor."""
    for op in OPS:
        reads = tuple(Read(0, (Axis(32, ((0, 1),), offset),)) for offset in range(op.arity))
        body = (Instruction(op.code, *range(1, op.arity + 1)),)
        yield Vector(op.name, Nest(DType.f32, (30,), reads, body, op.arity + 1), [_words(rng, 32)], 17)


def _accesses(rng: np.random.Generator) -> Iterator[Vector]:
    """Matrix product, convolution at an edge, division, a gather in and out of range, indices of loops."""
    product = Nest(
        DType.f32,
        (20, 10),
        (
            Read(0, (Axis(20, ((0, 1),)), Axis(50, ((2, 1),)))),
            Read(1, (Axis(50, ((2, 1),)), Axis(10, ((1, 1),)))),
        ),
        (Instruction(_FFMA, 1, 2, 0),),
        3,
        (50,),
    )
    yield Vector("matrix product", product, [_words(rng, 1000), _words(rng, 500)], 125, 20, 36, _ONE)

    kernel = Axis(3, ((3, 1),)), Axis(3, ((4, 1),))
    padded = Axis(5, ((1, 1), (3, 1)), -1), Axis(5, ((2, 1), (4, 1)), -1)
    convolution = Nest(
        DType.f32,
        (2, 5, 5),
        (Read(0, padded), Read(1, (Axis(2, ((0, 1),)), *kernel))),
        (Instruction(_FFMA, 1, 2, 0),),
        3,
        (3, 3),
    )
    floats = rng.standard_normal(68).astype(np.float32).view(np.uint32)
    yield Vector("convolution at a corner", convolution, [floats[:25], floats[25:43]], 0, 0, 9)

    for mode in (Mode.EXACT, Mode.FLOOR):
        strided = Read(0, (Axis(8, ((0, 1), (1, -3)), -2, mode, 3),), _MINUS_INFINITY)
        nest = Nest(DType.f32, (20,), (strided,), (Instruction(BY_NAME["fadd"].code, 0, 1),), 2, (3,), _ONE)
        yield Vector(f"{mode.name.lower()} division", nest, [floats[:8]], 13, 0, 3, _ONE)
        yield Vector(f"{mode.name.lower()} division of a negative", nest, [floats[:8]], 1, 0, 1, _ONE)

    rows = Read(0, (Axis(6, ((0, 1),)),))
    gathered = Read(1, (Axis(10, mode=Mode.GATHER, operand=0), Axis(4, ((1, 1),))), 7)
    embedding = Nest(DType.f32, (6, 4), (rows, gathered), (), 2)
    table = [np.array([3, 9, 10, 0xFFFFFFFF, 0, 5], np.uint32), _words(rng, 40)]
    for row in range(4):
        yield Vector(f"gather of row {table[0][row]} of 10", embedding, table, 4 * row + 2)

    iota = Nest(
        DType.u32,
        (3, 4, 5),
        (Index(0), Index(1), Index(2)),
        (Instruction(0x26, 1, 3), Instruction(0x20, 2, 4)),
        5,
    )
    yield Vector("indices", iota, [], 47)
    total = Nest(
        DType.u32, (), (Index(0), Index(1)), (Instruction(0x21, 0, 1), Instruction(0x22, 3, 2)), 4, (5, 7), 1
    )
    yield Vector("a fold of two loops", total, [], 0, 5, 21, 9)


def broken_nests() -> dict[str, bytes]:
    """Encodings that break one rule each, by the rule."""
    read = Read(0, (Axis(4, ((0, 1),)),))
    nest = Nest(DType.f32, (4,), (read,), (Instruction(0x20, 1, 2),), 3, (), 0, (5,))
    fold = replace(nest, fold=(4,))

    def axis(**changes: Any) -> Nest:
        return replace(nest, operands=(replace(read, axes=(replace(read.axes[0], **changes),)),))

    def body(*instruction: int) -> Nest:
        return replace(nest, body=(Instruction(*instruction),))

    big = 2**31 - 1
    broken = {
        "outer rank of 9": replace(nest, outer=(1,) * 9),
        "fold rank of 9": replace(nest, fold=(1,) * 9),
        "extent of 0": replace(nest, outer=(0,)),
        "extent of 2^31": replace(nest, outer=(2**31,)),
        "output of 2^31 words": replace(nest, outer=(2**16, 2**15)),
        "fold of more than 2^28": replace(fold, fold=(2**14, 2**14 + 1)),
        "output and fold too large": replace(fold, outer=(2**24 + 1,), fold=(2**14 + 1,)),
        "init without fold": replace(nest, init=1),
        "17 operands": replace(nest, operands=(read,) * 17),
        "65 immediates": replace(nest, immediates=(0,) * 65),
        "129 instructions": replace(nest, body=nest.body * 129),
        "33 elementary functions": replace(nest, body=(Instruction(0x40, 1),) * 33),
        "index of a loop that does not exist": replace(nest, operands=(Index(1),)),
        "value of 2^16": replace(nest, operands=(replace(read, value=2**16),)),
        "operand rank of 9": replace(nest, operands=(replace(read, axes=read.axes * 9),)),
        "size of 0": axis(size=0),
        "size of 2^31": axis(size=2**31),
        "operand of 2^31 words": replace(nest, operands=(Read(0, (Axis(2**16), Axis(2**15))),)),
        "gather by itself": axis(mode=Mode.GATHER, operand=0, terms=()),
        "divisor of 1": axis(mode=Mode.EXACT, divisor=1),
        "divisor of 0": axis(mode=Mode.FLOOR, divisor=0),
        "loop twice": axis(terms=((0, 1), (0, 1))),
        "loops descending": replace(axis(terms=((1, 1), (0, 1))), fold=(4,)),
        "term of a loop that does not exist": axis(terms=((1, 1),)),
        "coefficient of 0": axis(terms=((0, 0),)),
        "reach of 2^62": replace(axis(terms=((0, -(2**31)), (1, -(2**31)))), outer=(big,), fold=(2**14,)),
        "opcode 0": body(0, 1, 2),
        "opcode 0x47": body(0x47, 1),
        "opcode 0x80": body(0x80, 1),
        "reference to itself": body(0x20, 1, 3),
        "accumulator without fold": body(0x20, 0, 1),
        "unused reference not 0": body(0x07, 1, 1),
        "result that does not exist": replace(nest, result=4),
        "result is the accumulator without fold": replace(nest, result=0),
    }
    plain = nest.encode()
    raw = {
        "nothing": b"",
        "a byte missing": plain[:-1],
        "a byte left over": plain + b"\0",
        "dtype of 3": b"\3" + plain[1:],
        "operand of kind 2": _changed(plain, 15, 2),
        "mode 4": _changed(plain, 29, 4),
    }
    return {rule: broken_nest.encode() for rule, broken_nest in broken.items()} | raw


def broken_headers() -> dict[str, bytes]:
    """Headers that are malformed or break one rule each, by the rule; none is open."""
    kind = TensorType(DType.f32, (4,))
    header = Header((1, 1), (kind, kind), (3, 1), (kind,), (3,), 1)
    header.validate(may_be_open=False)

    def state(dtype: DType, *shape: int) -> Header:
        return replace(header, state=(TensorType(dtype, shape), kind))

    broken = {
        "no groups": replace(header, groups=()),
        "no state": replace(header, groups=(), state=(), next=()),
        "more than 2^16 bytes": replace(header, logs=(3,) * 2**14),
        "257 groups": replace(
            header, groups=(1,) * 257, state=(kind,) * 257, next=tuple(range(257)), data=(), logs=()
        ),
        "2^13 + 1 tensors": replace(
            header, next=(0, 1), data=(TensorType(DType.f32, ()),) * (2**13 - 1), logs=()
        ),
        "no nests": replace(header, nests=0, next=(0, 1), logs=()),
        "2^16 + 1 values": replace(header, nests=2**16 - 2),
        "empty group": replace(header, groups=(2, 0)),
        "groups of too few tensors": replace(header, groups=(1,)),
        "groups of too many tensors": replace(header, groups=(1, 2)),
        "state extent of 0": state(DType.f32, 0),
        "state extent of 2^31": state(DType.f32, 2**31),
        "state of 2^31 words": state(DType.f32, 2**16, 2**15),
        "state rank of 9": state(DType.f32, *[1] * 9),
        "open data": replace(header, data=(TensorType(DType.f32, (0,)),)),
        "next value that does not exist": replace(header, next=(4, 1)),
        "next value of another data type": replace(state(DType.i32, 4), next=(1, 1)),
        "next value of another rank and size": replace(state(DType.f32, 4, 2), next=(2, 1)),
        "next value of another extent": replace(state(DType.f32, 5), next=(2, 1)),
        "logged value that does not exist": replace(header, logs=(4,)),
    }
    plain = header.encode()
    raw = {
        "nothing": b"",
        "another magic": b"CTP2" + plain[4:],
        "a byte missing": plain[:-1],
        "a byte left over": plain + b"\0",
        "dtype of 3": _changed(plain, 20, 3),
    }
    return {rule: broken_header.encode() for rule, broken_header in broken.items()} | raw


def _changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def text() -> str:
    """The text of contracts/test/vectors/referee.json."""
    rng = np.random.default_rng(2)
    vectors = [*_operations(rng), *_accesses(rng)]
    broken, headers = broken_nests(), broken_headers()
    return (
        json.dumps(
            {
                "names": [vector.name for vector in vectors],
                "calls": [f"0x{vector.call.hex()}" for vector in vectors],
                "words": [vector.word for vector in vectors],
                "rules": list(broken),
                "broken": [f"0x{encoded.hex()}" for encoded in broken.values()],
                "headerRules": list(headers),
                "headers": [f"0x{encoded.hex()}" for encoded in headers.values()],
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
