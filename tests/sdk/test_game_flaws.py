"""Programs that are not valid: found, and proved on chain; valid ones never are."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from crowdtrain._errors import Refused
from crowdtrain.chain import INITIAL, Phase, ProgramLeaf, Reason, SegmentKey, SegmentSpec, Source
from crowdtrain.game import CHALLENGER_PHASES, Flaw, find_flaw, split_leaves
from crowdtrain.game.flaws import CARRIED, is_invalid_header, is_invalid_nest
from crowdtrain.game.moves import RevealStates, RevealStep, RevealTrace
from crowdtrain_engine import (
    Axis,
    DType,
    Index,
    Instruction,
    Mode,
    Nest,
    Program,
    ProgramError,
    Read,
    TensorType,
    merkle,
)  # fmt: skip
from crowdtrain_engine.header import Header
from crowdtrain_engine.trace import seal, trace_root
from engine.strategies import programs
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk.arena import CID, CLOCK, PRICE, Arena, challenge, fake_arena, overturned, post_and_claim
from small_programs import perceptron, perceptron_state

F32 = TensorType(DType.f32, (3, 4))
ROWS, COLUMNS = Axis(3, ((0, 1),)), Axis(4, ((1, 1),))
DOUBLE = Nest(DType.f32, (3, 4), (Read(0, (ROWS, COLUMNS)),), (Instruction(0x01, 1, 1),), 2)
AGAIN = replace(DOUBLE, operands=(Read(1, (ROWS, COLUMNS)),))
GOOD = Program((1,), (F32,), (), (DOUBLE, AGAIN), (2,))


def leaves(program: Program, **changed: bytes) -> tuple[bytes, ...]:
    names = ("header", "labels", *(f"nest{i}" for i in range(len(program.nests))))
    return tuple(changed.get(name, data) for name, data in zip(names, program.leaves, strict=True))


def with_header(**fields: object) -> tuple[bytes, ...]:
    return leaves(GOOD, header=replace(GOOD.header, **fields).encode())  # type: ignore[arg-type]


def with_second(nest: Nest) -> tuple[bytes, ...]:
    return leaves(GOOD, nest1=nest.encode())


FLAWS: dict[str, tuple[tuple[bytes, ...], int | None]] = {
    "malformed header": (leaves(GOOD, header=b"CTP0"), None),
    "no bytes at all": (leaves(GOOD, header=b""), None),
    "empty group": (with_header(groups=(1, 0)), None),
    "next is not there": (with_header(next=(3,)), None),
    "next of another dtype": (with_header(state=(TensorType(DType.u32, (3, 4)),)), None),
    "next of another shape": (
        leaves(GOOD, header=replace(GOOD.header, next=(2,)).encode(), nest1=replace(AGAIN, outer=(3,
        3)).encode()), None,
    ),
    "more bytes than a header may have": (with_header(logs=(0,) * 2**14), None),
    "257 groups": (with_header(groups=(1,) * 257, state=(F32,) * 257, next=tuple(range(257))), None),
    "2^13 + 1 tensors": (with_header(next=(0,), data=(TensorType(DType.f32, ()),) * 2**13), None),
    "open data": (with_header(data=(TensorType(DType.f32, (0, 4)),)), None),
    "logged value is not there": (with_header(logs=(9,)), None),
    "too many values": (with_header(nests=2**31), None),
    "malformed nest": (leaves(GOOD, nest1=AGAIN.encode()[:-1]), 1),
    "no nest": (leaves(GOOD, nest0=b""), 0),
    "a rule of nests": (with_second(replace(AGAIN, init=1)), 1),
    "reads itself": (with_second(replace(AGAIN, operands=(Read(2, (ROWS, COLUMNS)),))), 1),
    "reads ahead": (with_second(replace(AGAIN, operands=(Read(99, (ROWS, COLUMNS)),))), 1),
    "reads a state in another shape": (with_second(replace(AGAIN, operands=(Read(0, (ROWS, Axis(5))),))), 1),
    "reads a nest with other words": (with_second(replace(AGAIN, operands=(Read(1, (COLUMNS, COLUMNS)),))), 1),
    "reads a nest in another rank": (with_second(replace(AGAIN, operands=(Read(1, (ROWS,)),))), 1),
    "gathers from no words": (
        with_second(replace(AGAIN, operands=(Index(0), Read(1, (Axis(0, mode=Mode.GATHER), COLUMNS))))), 1,
    ),
}  # fmt: skip


def committed(
    arena: Arena, program_leaves: tuple[bytes, ...], *, steps: int = 1
) -> tuple[SegmentSpec, SegmentKey, tuple[bytes, ...]]:
    """Some commitment for the program with these leaves, by a solver who does not care what it says."""
    root = merkle.root([merkle.leaf(data) for data in program_leaves])
    state = perceptron_state()
    inputs = tuple(Source(INITIAL, group) for group in range(len(state)))
    spec = SegmentSpec(root, bytes(32), steps, steps, PRICE, inputs)
    key = post_and_claim(arena, spec, state)
    trace = (state.root, state.root)
    sealed = seal(trace_root(trace), bytes.fromhex(arena.solver.address[2:]))
    arena.solver.commit(key, state.root, state.group_roots, sealed, CID)
    return spec, key, trace


def accuse(arena: Arena, flaw: Flaw) -> Reason:
    """Challenges a commitment for a program, and proves its flaw at the first turn."""
    spec, key, trace = committed(arena, flaw.leaves)
    game_id = challenge(arena, key, spec)
    game = arena.solver.game(game_id)
    assert flaw.prove(game) is None, "it is the defender's turn"
    RevealTrace(game_id, game.position, trace).send(arena.solver)
    move = flaw.prove(arena.challenger.game(game_id))
    assert move is not None
    move.send(arena.challenger)
    game = arena.challenger.game(game_id)
    assert game.phase is Phase.OVER
    assert overturned(game) == (game.reason is Reason.INVALID_PROGRAM)
    return game.reason


@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_found_and_proved(name: str) -> None:
    flawed, nest = FLAWS[name]
    flaw = find_flaw(flawed)
    assert flaw is not None
    assert flaw.nest == nest
    assert accuse(fake_arena(), flaw) is Reason.INVALID_PROGRAM


def outlast(arena: Arena, steps: int) -> None:
    """Plays against a commitment for a program whose header no transaction carries."""
    flaw = find_flaw(leaves(GOOD, header=bytes(2**18)))
    assert flaw is not None
    solver, challenger = arena.solver, arena.challenger
    spec, key, trace = committed(arena, flaw.leaves, steps=steps)
    game_id = challenge(arena, key, spec)
    RevealTrace(game_id, solver.game(game_id).position, trace).send(solver)
    while (game := challenger.game(game_id)).phase is not Phase.REVEAL_STEP:
        move = flaw.prove(game) or RevealStates(game_id, game.position, (trace[0],) * (steps + 1))
        move.send(challenger if game.phase in CHALLENGER_PHASES else solver)
    tree = merkle.Tree([merkle.leaf(leaf) for leaf in flaw.leaves])
    header = ProgramLeaf(flaw.leaves[0], tuple(tree.proof(0)))
    with pytest.raises(Refused, match="InvalidHeader"):
        RevealStep(game_id, game.position, header, (bytes(32),) * 2).send(solver)
    arena.advance(CLOCK + 1)
    challenger.timeout(game_id)
    game = challenger.game(game_id)
    assert overturned(game)
    assert game.reason is Reason.TIMEOUT


@pytest.mark.parametrize("steps", [1, 3])
def test_a_header_that_no_transaction_carries_loses_by_the_clock(steps: int) -> None:
    outlast(fake_arena(), steps)


def test_a_valid_program_has_no_flaw_and_none_can_be_proved() -> None:
    for program in (GOOD, perceptron(3)):
        assert find_flaw(program.leaves) is None
    claims = [Flaw(GOOD.leaves, None), Flaw(GOOD.leaves, None, tensor=0), Flaw(GOOD.leaves, 1, read=1)]
    for claim in (*claims, Flaw(GOOD.leaves, 0), Flaw(GOOD.leaves, 1, read=7)):
        assert accuse(fake_arena(), claim) is Reason.VALID_PROGRAM


def test_what_is_open_produces_nothing() -> None:
    """A nest that reads a tensor without words is none to the Referee, also where it only gives what is read."""
    opened = replace(DOUBLE, operands=(Index(0), Read(0, (Axis(0, mode=Mode.GATHER), COLUMNS)))).encode()
    header = GOOD.header.encode()
    with pytest.raises(ProgramError, match="without words"):
        is_invalid_nest(header, 1, AGAIN.encode(), 1, opened)
    with pytest.raises(ProgramError, match="without words"):
        is_invalid_header(header, 0, opened)


def test_nothing_is_known_of_a_program_with_other_nests_than_it_counts() -> None:
    assert find_flaw(with_header(nests=3)) is None
    assert find_flaw(with_header(nests=1, next=(1,))) is None


def test_a_nest_that_no_transaction_carries_is_not_accused() -> None:
    room = CARRIED - len(GOOD.leaves[0])
    assert find_flaw(leaves(GOOD, nest1=bytes(room + 1))) is None
    flaw = find_flaw(leaves(GOOD, nest1=b"\xff" * room))
    assert flaw is not None
    assert accuse(fake_arena(), flaw) is Reason.INVALID_PROGRAM


def test_leaves_are_split_without_being_judged() -> None:
    assert split_leaves(GOOD.encode()) == GOOD.leaves
    assert split_leaves(b"") == ()
    for data in (GOOD.encode()[:-1], b"\xff\xff\xff\xff", b"\0"):
        with pytest.raises(ProgramError, match="ends early"):
            split_leaves(data)


@given(programs(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_what_does_not_decode_has_a_flaw_and_what_does_has_none(program: Program, rng: random.Random) -> None:
    for _ in range(10):
        changed = list(program.leaves)
        which = rng.choice([0, *range(2, len(changed))])
        data = bytearray(changed[which])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        changed[which] = bytes(data)
        flaw = find_flaw(changed)
        try:
            decoded = Program.decode(b"".join(len(leaf).to_bytes(4, "big") + leaf for leaf in changed))
        except ProgramError:
            if flaw is None:
                assert Header.decode(changed[0]).nests != len(changed) - 2
            else:
                assert accuse(fake_arena(), flaw) is Reason.INVALID_PROGRAM
        else:
            assert (flaw is None) == (not decoded.is_open)
