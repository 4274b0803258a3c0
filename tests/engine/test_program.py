"""Programs: their encoding, every rule of validity, and bytes from strangers."""

from __future__ import annotations

import dataclasses
import random
import tracemalloc
from typing import Any

import pytest
from crowdtrain_engine import (
    Axis,
    DType,
    Index,
    Instruction,
    Labels,
    Mode,
    Nest,
    Program,
    ProgramError,
    Read,
    TensorType,
)  # fmt: skip
from crowdtrain_engine.header import Header
from crowdtrain_engine.merkle import leaf, root
from engine.strategies import programs
from hypothesis import given, settings
from hypothesis import strategies as st

ADD, MUL, EXP = 0x01, 0x03, 0x40
F32 = TensorType(DType.f32, (3, 4))
FFFF = 0xFFFFFFFF


def read(*axes: Axis, value: int = 0, fill: int = 0) -> Read:
    return Read(value, axes, fill)


ROWS, COLUMNS = Axis(3, ((0, 1),)), Axis(4, ((1, 1),))
NEST = Nest(
    DType.f32, (3, 4), (read(ROWS, COLUMNS), Index(1)), (Instruction(ADD, 1, 3), Instruction(MUL, 4, 4)), 5,
    immediates=(0x3F800000,),
)  # fmt: skip
SUM = Nest(DType.f32, (3,), (read(ROWS, COLUMNS),), (Instruction(ADD, 0, 1),), 2, fold=(4,), init=7)
PROGRAM = Program((1,), (F32,), (), (NEST,), (1,))


def changed(**fields: Any) -> Nest:
    return dataclasses.replace(NEST, **fields)


def with_axis(axis: Axis) -> Nest:
    return changed(operands=(read(axis, COLUMNS), Index(1)))


# ------------------------------------------------------------------ encoding


def test_layout_of_a_nest() -> None:
    assert SUM.encode() == bytes.fromhex(
        "00" "01" "01"  # f32, outer rank, fold rank
        "00000003" "00000004" "00000007"  # extents, init
        "01" "00" "01" "02"  # operands, immediates, instructions, result
        "00" "00000000" "02" "00000000"  # read, value, rank, fill
        "00000003" "00" "00000000" "01" "00" "00000001"  # size, mode, offset, one term: loop, coefficient
        "00000004" "00" "00000000" "01" "01" "00000001"
        "01" "00" "01" "00"  # fadd accumulator, operand
    )  # fmt: skip


def test_layout_of_other_operands() -> None:
    axes = (
        Axis(3, ((0, -2),), -1, Mode.EXACT, 2),
        Axis(4, (), 9, Mode.FLOOR, 3),
        Axis(5, mode=Mode.GATHER, operand=0),
    )
    nest = Nest(DType.u32, (3,), (Index(0), Read(7, axes, 8)), (), 1)
    assert nest.encode() == bytes.fromhex(
        "02" "01" "00" "00000003" "00000000"
        "02" "00" "00" "01"
        "01" "00"  # index of loop 0
        "00" "00000007" "03" "00000008"
        "00000003" "01" "FFFFFFFF" "00000002" "01" "00" "FFFFFFFE"
        "00000004" "02" "00000009" "00000003" "00"
        "00000005" "03" "00"
    )  # fmt: skip
    assert Nest.decode(nest.encode()) == nest


def test_layout_of_a_header() -> None:
    program = Program(
        (1, 1), (F32, TensorType(DType.u32, ())), (TensorType(DType.i32, (5,)),), (NEST,), (3, 1), (3,)
    )
    assert program.header.encode() == bytes.fromhex(
        "43545031" "0002" "0002" "0001" "0001" "00000001" "0001" "0001"
        "00" "02" "00000003" "00000004" "00000003"
        "02" "00" "00000001"
        "01" "01" "00000005"
        "00000003"
    )  # fmt: skip
    assert Header.decode(program.header.encode()) == program.header


def test_root_is_over_header_labels_and_nests() -> None:
    leaves = [PROGRAM.header.encode(), PROGRAM.labels.encode(), NEST.encode()]
    assert PROGRAM.root == root([leaf(data) for data in leaves])
    assert PROGRAM.encode() == b"".join(len(data).to_bytes(4, "big") + data for data in leaves)


@given(programs())
@settings(deadline=None, max_examples=50)
def test_encoding_round_trip(program: Program) -> None:
    program.validate()
    again = Program.decode(program.encode())
    assert again == program
    assert again.root == program.root
    assert again.encode() == program.encode()
    for nest in program.nests:
        assert Nest.decode(nest.encode()) == nest


# ------------------------------------------------------------------ rules of a nest

TALL = 2**31 - 1
BAD_NESTS: dict[str, tuple[Nest, str]] = {
    "outer rank": (changed(outer=(1,) * 9), "outer rank is 9"),
    "fold rank": (changed(fold=(1,) * 9), "fold rank is 9"),
    "operands": (changed(operands=(Index(0),) * 17), "operand count is 17"),
    "immediates": (changed(immediates=(0,) * 65), "immediate count is 65"),
    "instructions": (changed(body=(Instruction(ADD, 1, 1),) * 129), "body length is 129"),
    "elementary functions": (changed(body=(Instruction(EXP, 1),) * 33), "33 elementary functions"),
    "extent 0": (changed(outer=(0, 4)), "output extents"),
    "extent too large": (changed(outer=(2**31, 1)), "output extents"),
    "fold extent 0": (changed(fold=(0,)), "fold extents"),
    "too many words": (changed(outer=(2**16, 2**15)), "elements"),
    "fold too long": (changed(fold=(2**14, 2**14 + 1)), "elements"),
    "wide and long": (changed(outer=(2**24 + 1,), fold=(2**14 + 1,), operands=()), "too long a dispute"),
    "init without fold": (changed(init=1), "init must be 0"),
    "index of no loop": (changed(operands=(Index(2),)), "loop 2 does not exist"),
    "rank of a read": (changed(operands=(read(*[Axis(1)] * 9),)), "rank is 9"),
    "value number": (changed(operands=(read(ROWS, COLUMNS, value=2**16),)), "value or fill"),
    "size 0": (changed(operands=(read(ROWS, Axis(0)),)), "shape"),
    "size too large": (with_axis(Axis(2**31)), "shape"),
    "tensor too large": (changed(operands=(read(Axis(2**16), Axis(2**15)),)), "elements"),
    "gather ahead": (with_axis(Axis(3, mode=Mode.GATHER, operand=0)), "gathers by operand 0"),
    "divisor 1": (with_axis(Axis(3, mode=Mode.EXACT, divisor=1)), "divisor 1"),
    "divisor 0": (with_axis(Axis(3, mode=Mode.FLOOR, divisor=0)), "divisor 0"),
    "loops out of order": (with_axis(Axis(3, ((1, 1), (0, 1)))), "ascending"),
    "loop twice": (with_axis(Axis(3, ((0, 1), (0, 1)))), "ascending"),
    "no such loop": (with_axis(Axis(3, ((2, 1),))), "ascending"),
    "coefficient 0": (with_axis(Axis(3, ((0, 0),))), "not 0"),
    "reach": (
        Nest(DType.f32, (TALL,), (read(Axis(3, ((0, -(2**31)), (1, -(2**31))))),), (), 1, fold=(2**14,)),
        "may reach",
    ),
    "opcode": (changed(body=(Instruction(0x0F, 1, 1),), result=4), "opcode 0x0f"),
    "reference ahead": (changed(body=(Instruction(ADD, 1, 4),), result=4), "reference 4"),
    "accumulator without fold": (changed(body=(Instruction(ADD, 0, 1),), result=4), "reference 0"),
    "unused reference": (changed(body=(Instruction(ADD, 1, 1, 1),), result=4), "unused references"),
    "result ahead": (changed(result=6), "result reference 6"),
    "result is no accumulator": (changed(result=0), "result reference 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_NESTS)
def test_every_rule_of_a_nest(name: str) -> None:
    nest, message = BAD_NESTS[name]
    with pytest.raises(ProgramError, match=message) as caught:
        nest.validate("nest 12")
    assert caught.value.where.startswith("nest 12")
    with pytest.raises(ProgramError):
        Nest.decode(nest.encode())


def test_limits_that_are_just_kept() -> None:
    kept = [
        changed(outer=(TALL, 1)),
        Nest(DType.f32, (TALL,), (read(Axis(3, ((0, -(2**31)),), -(2**31))),), (), 1),
        Nest(DType.f32, (2**24,), (), (), 0, fold=(2**26,)),
        Nest(DType.f32, (TALL,), (), (), 0, fold=(2**14,)),
        changed(body=(Instruction(ADD, 1, 1),) * 128),
        changed(operands=(read(Axis(TALL)),) * 16, immediates=(0,) * 64),
    ]
    for nest in kept:
        nest.validate()
        assert Nest.decode(nest.encode()) == nest


def test_words_must_be_words() -> None:
    for nest in (changed(immediates=(2**32,)), changed(immediates=(-1,))):
        with pytest.raises(ProgramError, match="must be words"):
            nest.validate()


def test_what_the_encoding_cannot_say_is_refused_too() -> None:
    fields: list[tuple[Axis, str]] = [
        (Axis(3, ((0, 2**31),)), "32-bit"),
        (Axis(3, offset=2**31), "32-bit"),
        (Axis(3, operand=1), "only a gather"),
        (Axis(3, divisor=2), "divisor 2"),
        (Axis(3, mode=Mode.FLOOR, divisor=2**32), "divisor"),
    ]
    for axis, message in fields:
        with pytest.raises(ProgramError, match=message):
            with_axis(axis).validate()
    gather = read(Axis(3, mode=Mode.GATHER, offset=1), COLUMNS)
    with pytest.raises(ProgramError, match="no affine form"):
        changed(operands=(Index(0), gather)).validate()


# ------------------------------------------------------------------ rules of a program


def relabelled(old: Program, **fields: Any) -> Program:
    """``old`` with other fields, and labels that fit them."""
    return dataclasses.replace(old, labels=None, **fields)  # type: ignore[arg-type]


def program(**fields: Any) -> Program:
    return relabelled(PROGRAM, **fields)


SCALAR = TensorType(DType.f32, ())
COUNTER = TensorType(DType.u32, (3, 4))


def reading(*axes: Axis) -> Nest:
    return changed(operands=(read(*axes),), body=(), result=1)


ITSELF = changed(operands=(read(ROWS, COLUMNS, value=1), Index(1)))


BAD_PROGRAMS: dict[str, tuple[Program, str]] = {
    "no group": (program(groups=()), "at least one group"),
    "no state": (program(state=(), next=()), "at least one group"),
    "no nest": (program(nests=(), next=(0,)), "at least one group"),
    "empty group": (program(groups=(1, 0)), "share out"),
    "tensors without group": (program(state=(F32, F32), next=(1, 1)), "share out"),
    "too many values": (program(nests=(NEST,) * 2**16), "values, at most"),
    "rank": (program(data=(TensorType(DType.f32, (1,) * 9),)), "rank is 9"),
    "state extent 0": (program(state=(TensorType(DType.f32, (0, 4)),)), "extents"),
    "data extent 0": (program(data=(TensorType(DType.f32, (3, 0)),)), "extents"),
    "extent": (program(data=(TensorType(DType.f32, (2**31,)),)), "extents"),
    "elements": (program(data=(TensorType(DType.f32, (2**16, 2**15)),)), "elements"),
    "next is not there": (program(next=(2,)), "becomes value 2"),
    "next of another dtype": (program(state=(COUNTER,)), "becomes value 1"),
    "next of another shape": (program(groups=(2,), state=(F32, SCALAR), next=(2, 2)), "becomes value 2"),
    "next is another state": (program(groups=(2,), state=(F32, SCALAR), next=(1, 1)), "becomes value 1"),
    "logged value is not there": (program(logs=(2,)), "logged values"),
    "a nest reads itself": (program(nests=(ITSELF,)), "not computed"),
    "another shape is read": (program(nests=(reading(ROWS, Axis(5)),)), "under the shape"),
    "another rank is read": (program(nests=(reading(ROWS),)), "under the shape"),
    "a bad nest": (program(nests=(changed(init=1),)), "nest 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_every_rule_of_a_program(name: str) -> None:
    bad, message = BAD_PROGRAMS[name]
    with pytest.raises(ProgramError, match=message):
        bad.validate()
    with pytest.raises(ProgramError):
        Program.decode(bad.encode())


def test_the_number_of_nests_must_be_the_headers() -> None:
    header, labels, nest = PROGRAM.leaves
    for leaves in ([header, labels], [header, labels, nest, nest]):
        data = b"".join(len(part).to_bytes(4, "big") + part for part in leaves)
        with pytest.raises(ProgramError, match="nests are declared"):
            Program.decode(data)


def test_an_open_program_is_bound_to_rows() -> None:
    rows = Axis(0, mode=Mode.GATHER, operand=0)
    reading = Nest(DType.f32, (3, 4), (Index(0), Read(1, (rows, COLUMNS))), (), 2)
    opened = Program((1,), (F32,), (TensorType(DType.f32, (0, 4)),), (reading,), (2,))
    opened.validate()
    assert opened.is_open
    bound = opened.bind([10])
    bound.validate()
    assert not bound.is_open
    assert bound.data[0].shape == (10, 4)
    assert bound.nests[0].reads[0].shape == (10, 4)
    assert bound.bind([10]) == bound
    with pytest.raises(ProgramError, match="10"):
        bound.bind([11])
    with pytest.raises(ProgramError, match="1 data tensors"):
        opened.bind([1, 2])


def test_binding_leaves_alone_what_is_not_open() -> None:
    """Two data tensors with a fixed number of rows, read under other shapes, beside an open one."""
    kinds = tuple(TensorType(DType.f32, shape) for shape in ((6,), (1,), (0,)))
    reads = (read(Axis(2, ((0, 1),)), Axis(3, ((1, 1),)), value=1), read(value=2), read(Axis(0), value=3))
    nest = Nest(DType.f32, (2, 3), reads, (), 1)
    opened = Program((1,), (TensorType(DType.f32, (2, 3)),), kinds, (nest,), (4,))
    opened.validate()
    bound = opened.bind([6, 1, 5])
    bound.validate()
    assert [operand.shape for operand in bound.nests[0].reads] == [(2, 3), (), (5,)]
    assert bound.bind([6, 1, 5]) == bound


# ------------------------------------------------------------------ labels

NAMED = Labels(("parameters",), ("weight",), (), (), ("weight: update",))


def with_labels(labels: bytes) -> bytes:
    header, _, nest = PROGRAM.leaves
    return b"".join(len(part).to_bytes(4, "big") + part for part in (header, labels, nest))


def test_labels_name_values() -> None:
    named = Program.decode(with_labels(NAMED.encode()))
    assert named.labels == NAMED
    assert [named.value_name(value) for value in range(2)] == ["weight", "weight: update"]


@pytest.mark.parametrize(
    "labels",
    [
        b"", b"\xff", b"[]", b"{}", b"1", b"null", b"[" * 10**5, b'{"nests":[["x"]]}',
        NAMED.encode().replace(b":", b": ", 1),
        NAMED.encode().replace(b'"weight"', b'"weight","bias"'),
        NAMED.encode().replace(b'"weight"', b"1"),
        NAMED.encode().replace(b'"weight"', b'"' + b"w" * 201 + b'"'),
        NAMED.encode().replace(b'"weight"', b'"\\u001b[2J"'),
        NAMED.encode().replace(b'"weight"', b'"\\ud800"'),
    ],
)  # fmt: skip
def test_malformed_labels_become_numbers_and_stay_in_the_root(labels: bytes) -> None:
    data = with_labels(labels)
    decoded = Program.decode(data)
    assert decoded.labels == Labels.numbered(decoded)
    assert decoded.encode() == data
    assert decoded.root == root([leaf(part) for part in (PROGRAM.leaves[0], labels, PROGRAM.leaves[2])])


def test_names_are_unique_where_dictionaries_are_made_of_them() -> None:
    two = Program((1, 1), (F32, F32), (), (NEST,), (2, 2))
    fits = Labels(("a", "b"), ("weight", "weight"), (), (), ("n",))
    assert fits.fits(two)
    assert not dataclasses.replace(fits, groups=("a", "a")).fits(two)
    assert not fits.fits(relabelled(two, groups=(2,)))


# ------------------------------------------------------------------ bytes from strangers


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` after a few changes: bytes replaced, flipped, cut out, repeated, or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, span = rng.randrange(len(changed) or 1), rng.randint(1, 8)
        match rng.choice(["replace", "flip", "flip", "cut", "repeat", "end"]):
            case "replace":
                changed[at : at + span] = rng.randbytes(span)
            case "flip" if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case "cut":
                del changed[at : at + span]
            case "repeat":
                changed[at:at] = changed[at : at + span]
            case "end":
                del changed[at:]
    return bytes(changed)


@given(programs(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_other_bytes_are_another_program_or_none(original: Program, rng: random.Random) -> None:
    for _ in range(20):
        data = mutated(original.encode(), rng)
        try:
            decoded = Program.decode(data)
        except ProgramError:
            continue
        decoded.validate()
        assert decoded.encode() == data
        assert decoded.header.encode() == decoded.leaves[0]
        assert tuple(nest.encode() for nest in decoded.nests) == decoded.leaves[2:]
        assert (decoded.root == original.root) == (data == original.encode())


@given(st.binary(max_size=400))
def test_any_bytes_give_a_program_error_or_a_nest(data: bytes) -> None:
    for decode in (Program.decode, Nest.decode, Header.decode):
        try:
            decoded = decode(data)
        except ProgramError:
            continue
        assert decoded.encode() == data


HOSTILE = {
    "zeros": bytes(10**5),
    "ones": b"\xff" * 10**5,
    "empty leaves": bytes(4 * 2 * 10**4),
    "a leaf of 4 GiB": b"\xff\xff\xff\xff" + bytes(100),
    "counts without contents": (24).to_bytes(4, "big") + b"CTP1" + b"\xff" * 20 + bytes(4),
    "65,536 tensors of nothing": b"\0\0\0\x10" + b"CTP1" + b"\xff" * 8 + bytes(8),
    "one nest too few": b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (dataclasses.replace(PROGRAM.header, nests=501).encode(), b"", *[NEST.encode()] * 500)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_bytes_claim_takes_no_memory_before_it_is_there(name: str) -> None:
    data = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(ProgramError):
            Program.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * len(data) + 10**6
