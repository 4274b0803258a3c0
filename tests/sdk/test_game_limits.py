"""Trees of two levels, folds of two levels, trees of a single leaf, and how long a dispute can be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from crowdtrain.chain import Game, Phase, Reason
from crowdtrain.game import Move, defend, positions, transactions
from crowdtrain.game.moves import RevealPartials
from crowdtrain.game.positions import depth, fan_out, is_short, piece_ends
from crowdtrain.game.sabotage import UnboundNext, WrongWord
from crowdtrain_engine import Axis, Dataset, DType, Index, Instruction, Nest, Program, Read, State, TensorType
from sdk.arena import Segment, fake_arena, overturned

FMUL, IADD, IXOR = 0x03, 0x20, 0x26
SCALAR, U32 = TensorType(DType.f32, ()), DType.u32


def segment(program: Program, tensors: list[np.ndarray], sabotage: WrongWord | UnboundNext) -> Segment:
    """Two steps in one interval, the first of them wrong."""
    state = State.from_tensors(program, tensors)
    data = Dataset.from_tensors({})
    return Segment.commit(
        fake_arena(), program, state, data, steps=2, interval=2, sabotage=sabotage, backend="native"
    )


def chain(count: int) -> Program:
    """A counter to which nest after nest adds what the nest 256 before gave (or the input)."""
    nests = tuple(
        Nest(U32, (), (Read(i, ()), Read(max(0, i - 256), ())), (Instruction(IADD, 1, 2),), 3)
        for i in range(count)
    )
    return Program((1,), (TensorType(U32, ()),), (), nests, (count,))


@pytest.mark.parametrize("nest", [0, 1, 255, 256, 299, 511, 599])
def test_more_nests_than_are_shown_at_once(nest: int) -> None:
    program = chain(600)
    play = segment(program, [np.asarray(3, np.uint32)], WrongWord(0, lambda program: nest, 0))
    game = play.dispute()
    assert overturned(game)
    assert (game.reason, game.value) == (Reason.WRONG_WORD, 1 + nest)
    assert play.transactions <= transactions(program, nest)


def test_a_next_state_among_many_nests() -> None:
    play = segment(chain(300), [np.asarray(3, np.uint32)], UnboundNext(0))
    game = play.dispute()
    assert overturned(game)
    assert game.reason is Reason.BAD_BINDING


@pytest.mark.parametrize("word", [0, 255, 256, 65_535, 65_536, 69_999])
def test_more_pages_than_are_shown_at_once(word: int) -> None:
    axes = (Axis(70_000, ((0, 1),)),)
    nest = Nest(U32, (70_000,), (Read(0, axes), Index(0)), (Instruction(IADD, 1, 2),), 3)
    program = Program((1,), (TensorType(U32, (70_000,)),), (), (nest,), (1,))
    tensor = np.arange(70_000, dtype=np.uint32)
    play = segment(program, [tensor], WrongWord(0, lambda program: 0, word, 5))
    game = play.dispute()
    assert overturned(game)
    assert (game.reason, game.word) == (Reason.WRONG_WORD, word)
    assert play.transactions == transactions(program, 0)


def long_sum(length: int) -> Program:
    """A scalar that becomes the sum of itself xor the index of a loop."""
    body = (Instruction(IXOR, 1, 2), Instruction(IADD, 0, 3))
    nest = Nest(U32, (), (Index(0), Read(0, ())), body, 4, fold=(length,), init=7)
    return Program((1,), (TensorType(U32, ()),), (), (nest,), (1,))


@pytest.mark.parametrize("length", [1, 4, 5, 8, 100])
def test_folds_around_the_referees_limit(length: int) -> None:
    program = long_sum(length)
    play = segment(program, [np.asarray(0, np.uint32)], WrongWord(0, lambda program: 0, 0))
    game = play.dispute()
    assert overturned(game)
    assert game.reason is Reason.WRONG_WORD
    assert (game.from_, game.to) == ((length - 1) // 4 * 4, length)
    assert play.transactions == transactions(program, 0)


def test_a_fold_of_two_levels() -> None:
    """The first partial sum is a lie, too, so that the players go through a piece of 16,384 terms."""
    program = long_sum(66_000)
    play = segment(program, [np.asarray(0, np.uint32)], WrongWord(0, lambda program: 0, 0))

    def defender(game: Game) -> Move | None:
        move = defend(game, play.solvers)
        if game.phase is Phase.REVEAL_PARTIALS and game.to == 66_000:
            assert isinstance(move, RevealPartials)
            return dataclasses.replace(move, partials=b"LIAR" + move.partials[4:])
        return move

    game = play.dispute(defender=defender)
    assert overturned(game)
    assert (game.reason, game.from_, game.to) == (Reason.WRONG_WORD, 16_380, 16_384)
    assert play.transactions == transactions(program, 0)


@pytest.mark.parametrize("lies", [(0, 0, 0), (1, 2, 0), (2, 0, 2), (0, 1, 1), (2, 2, 2)])
def test_a_lie_deep_in_a_fold(monkeypatch: pytest.MonkeyPatch, lies: tuple[int, ...]) -> None:
    """With pieces cut in four, so that a short fold has three levels; at each, one partial sum is a lie."""
    monkeypatch.setattr(positions, "PIECES", 4)
    play = segment(long_sum(250), [np.asarray(0, np.uint32)], WrongWord(0, lambda program: 0, 0))
    levels = iter(lies)
    accumulators = []

    def defender(game: Game) -> Move | None:
        move = defend(game, play.solvers)
        if not isinstance(move, RevealPartials):
            return move
        partials, lie = bytearray(move.partials), next(levels)
        partials[4 * lie] ^= 1
        accumulators.append(game.accumulator)
        return dataclasses.replace(move, partials=bytes(partials))

    game = play.dispute(defender=defender)
    assert overturned(game)
    start = sum(lie * size for lie, size in zip(lies, (64, 16, 4), strict=True))
    assert (game.reason, game.from_, game.to) == (Reason.WRONG_WORD, start, start + 4)
    step = play.honest.step(0)
    assert accumulators[1:] == step.accumulators(1, 0, [64 * lies[0], 64 * lies[0] + 16 * lies[1]])


def test_trees_of_a_single_leaf() -> None:
    """One group, one tensor, one nest, one page: nothing is shown that needs no showing."""
    square = Nest(DType.f32, (), (Read(0, ()),), (Instruction(FMUL, 1, 1),), 2)
    program = Program((1,), (SCALAR,), (), (square,), (1,))
    start = [np.asarray(3, np.float32)]
    wrong = segment(program, start, WrongWord(0, lambda program: 0))
    game = wrong.dispute()
    assert overturned(game)
    assert wrong.transactions == transactions(program, 0) == 10
    unbound = segment(program, start, UnboundNext(0))
    game = unbound.dispute()
    assert overturned(game)
    assert (game.reason, unbound.transactions) == (Reason.BAD_BINDING, 9)


# ------------------------------------------------------------------ arithmetic of positions


@pytest.mark.parametrize(
    ("length", "size", "pieces"),
    [
        (5, 4, 2), (8, 4, 2), (9, 4, 3), (2**14, 4, 4096), (2**14 + 1, 2**14, 2), (2**26, 2**14, 4096),
    ],
)  # fmt: skip
def test_pieces_of_a_fold(length: int, size: int, pieces: int) -> None:
    ends = piece_ends(100, 100 + length)
    assert len(ends) == pieces
    assert ends[0] == 100 + size
    assert ends[-1] == 100 + length
    assert all(b - a <= size for a, b in zip([100, *ends], ends, strict=False))


def test_what_the_referee_computes_at_once() -> None:
    assert is_short(5, 9)
    assert not is_short(5, 10)


def test_children_shown_at_once() -> None:
    assert [fan_out(height) for height in (0, 1, 7, 8, 9, 23)] == [1, 2, 128, 256, 256, 256]
    assert [depth(height) for height in (0, 1, 8, 9)] == [0, 1, 8, 8]


@pytest.mark.parametrize(
    ("outer", "fold"),
    [
        ((2**31 - 1,), (2**14,)),
        ((2**24,), (2**26,)),
        ((2**31 - 1,), ()),
        ((), (2**26,)),
        ((2**24 + 1,), (1,)),
    ],
)
def test_no_dispute_is_longer_than_20_transactions(outer: tuple[int, ...], fold: tuple[int, ...]) -> None:
    nest = Nest(DType.f32, outer, (), (), 1, fold, immediates=(0,))
    nest.validate()
    tiny = Nest(DType.f32, (), (), (), 1, immediates=(0,))
    program = Program((1,), (SCALAR,), (), (tiny,) * (2**16 - 2) + (nest,), (1,))
    assert transactions(program, 2**16 - 2) <= 20
    assert transactions(program, 0) < transactions(program, 2**16 - 2)
