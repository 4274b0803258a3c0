"""The Referee against the reference interpreter and the decoder, on generated nests and hostile bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from contracts.dearest import DEEPER_PROOFS, dearest_nest, dearest_tensors
from contracts.openings import Words, arguments
from contracts.referee import GAS, Call, Referee
from contracts.vectors import FILE, broken_headers, broken_nests, text
from crowdtrain.game.flaws import decode_nest, find_flaw, is_invalid_header, is_invalid_nest
from crowdtrain_engine import (
    Axis,
    DType,
    Instruction,
    Nest,
    Program,
    ProgramError,
    Read,
    TensorType,
    _native,
    merkle,
    reference,
)  # fmt: skip
from crowdtrain_engine.arithmetic import evaluate
from crowdtrain_engine.elementary import FUNCTIONS
from crowdtrain_engine.header import Header
from crowdtrain_engine.native import isas
from crowdtrain_engine.ops import BY_NAME, OPS
from crowdtrain_engine.validation import cost
from engine.strategies import SPECIAL, Case, cases, contractions, convolutions, programs, words
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from web3.exceptions import ContractCustomError

FEW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
MANY = settings(FEW, max_examples=5_000)


def _stretches(nest: Nest, values: list[Words], rng: random.Random, count: int) -> list[tuple[Call, int]]:
    """Calls of evaluate on stretches of at most 4 iterations, with the words that the reference gives."""
    found = []
    for _ in range(count):
        output = rng.randrange(nest.type.size)
        start = rng.randrange(nest.fold_length)
        stop = min(nest.fold_length, start + rng.randint(1, 4))
        accumulator = nest.init if start == 0 else rng.choice([int(word) for word in SPECIAL])
        expected = reference.fold(
            nest, values, np.array([output]), start, stop, np.array([accumulator], np.uint32)
        )
        call = "evaluate", arguments(nest, values, output, start, stop, accumulator)
        found.append((call, int(expected[0])))
    return found


def _check(referee: Referee, case: Case, seed: int) -> None:
    rng = random.Random(seed)
    values = reference.run_step(case.program, [*case.state, *case.data])
    asked = [pair for nest in case.program.nests for pair in _stretches(nest, values, rng, 3)]
    got = referee([call for call, _ in asked])
    assert got == [(expected,) for _, expected in asked]


@FEW
@given(case=cases(), seed=st.integers(0, 2**32))
def test_any_program(referee: Referee, case: Case, seed: int) -> None:
    _check(referee, case, seed)


@FEW
@given(case=cases(st.one_of(contractions(), convolutions())), seed=st.integers(0, 2**32))
def test_contractions_and_convolutions(referee: Referee, case: Case, seed: int) -> None:
    _check(referee, case, seed)


@pytest.mark.slow
@MANY
@given(case=cases(st.one_of(programs(), contractions(), convolutions())), seed=st.integers(0, 2**32))
def test_thousands_of_programs(referee: Referee, case: Case, seed: int) -> None:
    _check(referee, case, seed)


def _operation(name: str, count: int = 64) -> Nest:
    """out[i] = name(value 0 at i, value 1 at i, value 2 at i), each of ``count`` words"""
    op = BY_NAME[name]
    reads = tuple(Read(value, (Axis(count, ((0, 1),)),)) for value in range(op.arity))
    return Nest(DType.f32, (count,), reads, (Instruction(op.code, *range(1, op.arity + 1)),), op.arity + 1)


@pytest.mark.parametrize("name", [op.name for op in OPS])
def test_every_operation(referee: Referee, name: str) -> None:
    rng = np.random.default_rng(BY_NAME[name].code)
    nest = _operation(name)
    values = [words(rng, 64) for _ in range(BY_NAME[name].arity)]
    for other in values[1:]:
        other[::4] = values[0][::4]  # compares must see equals too
    asked: list[Call] = [("evaluate", arguments(nest, values, i, 0, 1, 0)) for i in range(64)]
    expected = evaluate(name, *values)
    assert referee(asked) == [(int(word),) for word in expected]


def test_every_elementary_function_over_its_range(referee: Referee) -> None:
    """The range where most of them change, words of every exponent, and special words."""
    rng = np.random.default_rng(9)
    exponents = np.arange(256, dtype=np.uint32) << 23
    rest = rng.integers(0, 2**23, 256, np.uint32) | rng.integers(0, 2, 256, np.uint32) << 31
    range_ = np.linspace(-110, 110, 64, dtype=np.float32).view(np.uint32)
    argument = np.concatenate([range_, exponents | rest, np.array(SPECIAL, np.uint32)])
    for name in FUNCTIONS:
        asked: list[Call] = [
            ("evaluate", arguments(_operation(name, argument.size), [argument], i, 0, 1, 0))
            for i in range(argument.size)
        ]
        assert referee(asked) == [(int(word),) for word in evaluate(name, argument)]


# --------------------------------------------------------------------------- pages


@pytest.fixture(scope="module")
def product() -> tuple[Nest, list[Words]]:
    """A matrix product whose operands take 4 and 3 pages."""
    rows, columns, inner = 20, 10, 50
    reads = (
        Read(0, (Axis(rows, ((0, 1),)), Axis(inner, ((2, 1),)))),
        Read(1, (Axis(inner, ((2, 1),)), Axis(columns, ((1, 1),)))),
    )
    body = (Instruction(BY_NAME["ffma"].code, 1, 2, 0),)
    nest = Nest(DType.f32, (rows, columns), reads, body, 3, (inner,))
    rng = np.random.default_rng(7)
    return nest, [words(rng, rows * inner), words(rng, inner * columns)]


def test_a_page_that_is_read_must_be_opened(referee: Referee, product: tuple[Nest, list[Words]]) -> None:
    encoded, operands, pages, *rest = arguments(*product, 125, 20, 36, 0)
    for missing in range(len(pages)):
        kept = pages[:missing] + pages[missing + 1 :]
        assert referee([("evaluate", (encoded, operands, kept, *rest))]) == ["MissingPage"]
    assert referee([("evaluate", (encoded, operands, pages[::-1], *rest))])[0] != "MissingPage"


def test_a_page_must_be_proved(referee: Referee, product: tuple[Nest, list[Words]]) -> None:
    encoded, operands, pages, *rest = arguments(*product, 125, 20, 36, 0)
    operand, index, content, proof = pages[0]
    bad = [
        (operand, index, content[:-1] + b"x", proof),
        (operand, index, content[:-1], proof),
        (operand, index ^ 1, content, proof),
        (operand, index + 4, content, proof),
        (operand, index, content, proof[:-1]),
        (operand, index, content, [*proof, bytes(32)]),
        (operand, index, content, [bytes(32), *proof[1:]]),
        (1 - operand, index, content, proof),
        (2, index, content, proof),
    ]
    for page in bad:
        assert referee([("evaluate", (encoded, operands, [page, *pages[1:]], *rest))]) == ["BadPage"], page[
            :2
        ]


def test_an_opened_page_of_padding_is_no_page(referee: Referee, product: tuple[Nest, list[Words]]) -> None:
    """Value 1 has 500 words, 2 pages; value 0 has 1000, 4; 600 words make 3 pages and one leaf of padding."""
    nest, (first, _) = product
    short = Nest(nest.dtype, (600,), (Read(0, (Axis(600, ((0, 1),)),)),), (), 1)
    encoded, operands, pages, *rest = arguments(short, [first[:600]], 3, 0, 1, 0)
    tree = merkle.tensor_tree(first[:600])
    padding = (0, 3, bytes(1024), tree.proof(3))
    assert referee([("evaluate", (encoded, operands, [*pages, padding], *rest))]) == ["BadPage"]


def test_elements_and_iterations_beyond_the_end(referee: Referee, product: tuple[Nest, list[Words]]) -> None:
    encoded, operands, pages, *_ = arguments(*product, 125, 20, 36, 0)
    assert referee(
        [
            ("evaluate", (encoded, operands, pages, 200, 20, 36, 0)),
            ("evaluate", (encoded, operands, pages, 125, 36, 51, 0)),
        ]
    ) == ["OutOfRange", "OutOfRange"]


# --------------------------------------------------------------------------- decoding


def _shape_of(encoded: bytes) -> tuple[Any, ...] | str:
    """What Referee.shapeOf must say."""
    try:
        nest = decode_nest(encoded)
    except ProgramError:
        return "InvalidNest"
    return ((nest.type.size, nest.fold_length, nest.init),)


def _mutants(encoded: bytes, rng: random.Random, count: int) -> list[bytes]:
    """Bytes near `encoded`: changed, cut, lengthened, doubled."""
    found = [encoded, b"", encoded[:-1], encoded + b"\0", encoded[: rng.randrange(len(encoded))]]
    for _ in range(count):
        changed = bytearray(encoded)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            at = rng.randrange(len(changed))
            changed[at] = rng.choice([0, 1, 2, 3, changed[at] ^ 1 << rng.randrange(8), 0x7F, 0x80, 0xFF])
        found.append(bytes(changed))
    return found


@FEW
@given(case=cases(), seed=st.integers(0, 2**32))
def test_the_decoder_accepts_what_python_accepts(referee: Referee, case: Case, seed: int) -> None:
    rng = random.Random(seed)
    encodings = [mutant for nest in case.program.nests for mutant in _mutants(nest.encode(), rng, 15)]
    assert referee([("shapeOf", (encoded,)) for encoded in encodings]) == [*map(_shape_of, encodings)]


def _about_header(encoded: bytes, tensor: int, producer: Nest) -> list[tuple[Call, Any]]:
    """What the Referee is asked about a header, with what it must say."""
    invalid: Call = ("isInvalidHeader", (encoded, tensor, producer.encode()))
    try:
        header = Header.decode(encoded)
    except ProgramError:
        calls: list[Call] = [("headerOf", (encoded,)), ("nextOf", (encoded, tensor))]
        return [*((call, "InvalidHeader") for call in calls), (invalid, (True,))]
    shape = (len(header.state), len(header.data), header.nests, header.groups)
    following = (header.next[tensor],) if tensor < len(header.next) else "OutOfRange"
    return [
        (("headerOf", (encoded,)), (shape,)),
        (("nextOf", (encoded, tensor)), following),
        (invalid, (is_invalid_header(encoded, tensor, producer.encode()),)),
    ]


@FEW
@given(case=cases(), seed=st.integers(0, 2**32))
def test_headers(referee: Referee, case: Case, seed: int) -> None:
    rng = random.Random(seed)
    program = case.program
    pairs = [
        pair
        for encoded in _mutants(program.header.encode(), rng, 15)
        for pair in _about_header(encoded, rng.randrange(len(program.state) + 1), rng.choice(program.nests))
    ]
    assert referee([call for call, _ in pairs]) == [expected for _, expected in pairs]


@FEW
@given(case=cases(), seed=st.integers(0, 2**32))
def test_validity_of_a_nest_in_its_program(referee: Referee, case: Case, seed: int) -> None:
    rng = random.Random(seed)
    program = case.program
    header = program.header.encode()
    asked: list[Call] = []
    for index, nest in enumerate(program.nests):
        for encoded in _mutants(nest.encode(), rng, 10):
            read = rng.randrange(program.first_nest + index)
            producer = b"" if read < program.first_nest else program.nests[read - program.first_nest].encode()
            asked.append(("isInvalid", (header, rng.randrange(index, index + 2), encoded, read, producer)))
    assert referee(asked) == [(is_invalid_nest(*call[1]),) for call in asked]


def _relinked(program: Program, rng: random.Random) -> Program:
    """The program with something else for what joins its parts: what nests read, under which shape, and what
    becomes of it.
    """
    extents = [0, 1, 1, 2, 3, 5, 6, 2**16, 2**31 - 1]
    kind = rng.choice(["value", "shape", "outer", "next", "state"])
    number = rng.randrange(len(program.nests))
    nest = program.nests[number]
    if kind in ("value", "shape") and nest.reads:
        read = rng.choice(nest.reads)
        other = replace(read, value=rng.randrange(program.first_nest + len(program.nests) + 1))
        if kind == "shape":
            sizes = rng.choice(
                [[rng.choice(extents) for _ in range(rng.randrange(9))], list(read.shape[::-1])]
            )
            other = replace(read, axes=tuple(Axis(size) for size in sizes))
        operands = tuple(other if operand is read else operand for operand in nest.operands)
        nest = replace(nest, operands=operands)
    elif kind == "outer" and nest.outer:
        outer = list(nest.outer)
        outer[rng.randrange(len(outer))] = rng.choice(extents)
        nest = replace(nest, outer=tuple(outer))
    elif kind == "next":
        changed = list(program.next)
        changed[rng.randrange(len(changed))] = rng.randrange(program.first_nest + len(program.nests) + 1)
        return replace(program, next=tuple(changed))
    elif kind == "state":
        types = list(program.state)
        shape = rng.choice([(*types[0].shape, 1)[:8], types[0].shape[::-1], (rng.choice(extents),)])
        types[0] = TensorType(rng.choice([types[0].dtype, DType.u32]), shape)
        return replace(program, state=tuple(types))
    return replace(program, nests=(*program.nests[:number], nest, *program.nests[number + 1 :]))


@FEW
@given(case=cases(), seed=st.integers(0, 2**32))
def test_a_program_is_valid_to_all_or_to_none(referee: Referee, case: Case, seed: int) -> None:
    """Python's validation, the native decoder, the search for flaws, and the Referee asked about every part."""
    rng = random.Random(seed)
    for _ in range(6):
        program = _relinked(case.program, rng)
        leaves = [program.header.encode(), b"", *(nest.encode() for nest in program.nests)]
        valid = _accepted(lambda program=program: program.validate()) and not program.is_open
        if not valid or cost(program).memory < 1 << 28:
            assert _accepted(lambda leaves=leaves: _native.Plan(leaves[0], leaves[2:], isas()[0], 1)) == valid
        assert (find_flaw(leaves) is None) == valid
        said = referee(_accusations(program, leaves))
        assert ((True,) in said) != valid, (program, said)


def _accepted(check: Callable[[], object]) -> bool:
    try:
        check()
    except ProgramError:
        return False
    return True


def _accusations(program: Program, leaves: list[bytes]) -> list[Call]:
    """Everything that a challenger can ask the Referee about a program, with the right producers."""

    def producer(value: int, before: int) -> bytes:
        return leaves[2 + value - program.first_nest] if program.first_nest <= value < before else b""

    asked: list[Call] = [("isInvalidHeader", (leaves[0], 2**32 - 1, b""))]
    for index, nest in enumerate(program.nests):
        for value in {0, *(read.value for read in nest.reads)}:
            given = producer(value, program.first_nest + index)
            asked.append(("isInvalid", (leaves[0], index, leaves[2 + index], value, given)))
    last = program.first_nest + len(program.nests)
    for tensor, value in enumerate(program.next):
        asked.append(("isInvalidHeader", (leaves[0], tensor, producer(value, last))))
    return asked


@pytest.mark.parametrize("rule", broken_nests())
def test_a_nest_that_breaks_a_rule_is_refused(referee: Referee, rule: str) -> None:
    encoded = broken_nests()[rule]
    assert _shape_of(encoded) == "InvalidNest"
    assert referee([("shapeOf", (encoded,))]) == ["InvalidNest"]


@pytest.mark.parametrize("rule", broken_headers())
def test_a_header_that_breaks_a_rule_is_invalid(referee: Referee, rule: str) -> None:
    encoded = broken_headers()[rule]
    assert is_invalid_header(encoded, 2**32 - 1, b"")
    assert referee([("isInvalidHeader", (encoded, 2**32 - 1, b""))]) == [(True,)]


def test_the_vectors_for_forge_are_current() -> None:
    assert FILE.read_text() == text(), "run python -m contracts.vectors in tests/"


def test_a_valid_program_is_not_called_invalid(referee: Referee) -> None:
    nest = _operation("fadd")
    program = _three_vectors(nest)
    program.validate()
    header, encoded = program.header.encode(), nest.encode()
    asked: list[Call] = [("isInvalid", (header, 0, encoded, read, b"")) for read in range(3)]
    asked += [("isInvalidHeader", (header, tensor, encoded)) for tensor in range(4)]
    assert referee(asked) == [(False,)] * 7


def _three_vectors(nest: Nest) -> Program:
    kind = nest.type
    return Program((2, 1), (kind, kind, kind), (), (nest,), (3, 1, 2))


@pytest.mark.parametrize("function", ["headerOf", "shapeOf"])
def test_errors_carry_the_reason(referee: Referee, function: str) -> None:
    with pytest.raises(ContractCustomError):
        referee.contract.functions[function](b"").call(GAS)


def test_the_dearest_nest_fits_a_transaction(referee: Referee) -> None:
    nest, values = dearest_nest(range(16)), dearest_tensors()
    nest.validate()
    expected = int(reference.fold(nest, values, np.zeros(1, np.int64))[0])
    call = ("evaluate", arguments(nest, values, 0, 0, 4, 0))
    (answer,) = referee.answers([call])
    assert answer.result == (expected,)
    assert answer.gas + DEEPER_PROOFS < 2**24, f"{answer.gas:,} gas"
    print(f"{answer.gas:,} gas")
