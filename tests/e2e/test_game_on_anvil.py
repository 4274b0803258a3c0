"""The players of tests/sdk/test_game*.py against the real contracts: the same moves, the same outcomes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from crowdtrain._errors import Refused
from crowdtrain.chain import Game, Phase, Reason
from crowdtrain.devnet import Devnet
from crowdtrain.game import Flaw, Move, attack, find_flaw, transactions
from crowdtrain.game.sabotage import MODES, Sabotage, UnboundNext, WrongWord, parse
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine import Dataset, Program, State
from sdk.arena import STAKE, Arena, Segment, overturned
from sdk.liars import Lies, Troublemaker
from sdk.test_game import EXPECTED, Forger, Until
from sdk.test_game_flaws import FLAWS, GOOD, accuse, outlast
from sdk.test_game_limits import chain, long_sum
from sdk.test_game_trees import PADDED, lying, squares
from small_programs import perceptron, perceptron_data, perceptron_state

STEPS = 7


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with Devnet(tmp_path_factory.mktemp("devnet")) as running:
        yield running


@pytest.fixture(scope="module")
def arena(devnet: Devnet) -> Arena:
    """Three accounts; solver and challenger have deposited more than they can lose here."""
    buyer, solver, challenger = (Web3Chain(devnet.rpc, devnet.deployment, key) for key in devnet.keys[:3])
    for account in (solver, challenger):
        account.deposit(1000 * STAKE)
    return Arena(buyer, solver, challenger, devnet.advance)


def perceptron_segment(arena: Arena, sabotage: Sabotage | None = None) -> Segment:
    return Segment.commit(
        arena, perceptron(STEPS), perceptron_state(), perceptron_data(STEPS),
        steps=STEPS, interval=3, sabotage=sabotage,
    )  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_sabotage_is_overturned(arena: Arena, name: str) -> None:
    segment = perceptron_segment(arena, parse(f"{name}:5"))
    solver, challenger = arena.solver, arena.challenger
    (_, locked), (free, _) = solver.stake(solver.address), challenger.stake(challenger.address)
    game = segment.dispute()
    assert overturned(game)
    expected = Reason.TIMEOUT if name.startswith("silent") else EXPECTED.get(name, Reason.WRONG_WORD)
    assert game.reason is expected
    assert segment.transactions <= 20
    assert solver.stake(solver.address)[1] == locked - STAKE
    assert challenger.stake(challenger.address)[0] == free + STAKE // 2


@pytest.mark.parametrize("seed", range(3))
def test_right_work_stands_whoever_challenges_it(arena: Arena, seed: int) -> None:
    segment = perceptron_segment(arena)
    for _ in range(2):
        troublemaker = Troublemaker(segment.honest, random.Random(seed))
        assert not overturned(segment.dispute(challenger=troublemaker))


@pytest.mark.parametrize("turn", [1, 2, 3, 5, 7])
def test_a_false_claim_at_any_turn_loses(arena: Arena, turn: int) -> None:
    segment = perceptron_segment(arena)
    patient = Troublemaker(segment.honest, random.Random(turn), give_up=0, claim=0)
    liar = Troublemaker(segment.honest, random.Random(turn), give_up=0, claim=1)
    game = segment.dispute(challenger=Until(turn, patient, liar))
    assert not overturned(game)


@pytest.mark.parametrize("next_state", [False, True])
def test_forged_last_moves_are_refused(arena: Arena, next_state: bool) -> None:
    segment = perceptron_segment(arena)
    forger = Forger(segment, next_state=next_state)
    while not forger.tried:
        game = segment.dispute(challenger=forger)
        assert not overturned(game)
    assert game.reason is (Reason.BINDING_HOLDS if next_state else Reason.RIGHT_WORD)


@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_proved(arena: Arena, name: str) -> None:
    leaves, nest = FLAWS[name]
    flaw = find_flaw(leaves)
    assert flaw is not None
    assert flaw.nest == nest
    assert accuse(arena, flaw) is Reason.INVALID_PROGRAM


@pytest.mark.parametrize("steps", [1, 3])
def test_a_header_that_no_transaction_carries_loses_by_the_clock(arena: Arena, steps: int) -> None:
    outlast(arena, steps)


@pytest.mark.parametrize(
    "claim",
    [
        Flaw(GOOD.leaves, None),
        Flaw(GOOD.leaves, None, tensor=0),
        Flaw(GOOD.leaves, 1, read=1),
        Flaw(GOOD.leaves, 0),
    ],
)
def test_no_flaw_is_proved_where_none_is(arena: Arena, claim: Flaw) -> None:
    assert accuse(arena, claim) is Reason.VALID_PROGRAM


@pytest.mark.parametrize(("lies", "reason"), PADDED)
def test_padding_and_words_of_a_liar(arena: Arena, lies: Lies, reason: Reason) -> None:
    game = lying(squares(), lies, UnboundNext(0), arena=arena).dispute()
    assert overturned(game)
    assert game.reason is reason


def wrong(arena: Arena, program: Program, tensor: np.ndarray, nest: int, word: int = 0) -> Segment:
    state = State.from_tensors(program, [tensor])
    sabotage = WrongWord(0, lambda program: nest, word, 5)
    data = Dataset.from_tensors({})
    return Segment.commit(
        arena, program, state, data, steps=2, interval=2, sabotage=sabotage, backend="native"
    )


@pytest.mark.parametrize("nest", [255, 599])
def test_more_nests_than_are_shown_at_once(arena: Arena, nest: int) -> None:
    program = chain(600)
    segment = wrong(arena, program, np.asarray(3, np.uint32), nest)
    game = segment.dispute()
    assert overturned(game)
    assert (game.reason, game.value) == (Reason.WRONG_WORD, 1 + nest)
    assert segment.transactions <= transactions(program, nest)


@pytest.mark.parametrize("length", [4, 5])
def test_folds_around_the_referees_limit(arena: Arena, length: int) -> None:
    segment = wrong(arena, long_sum(length), np.asarray(0, np.uint32), 0)
    game = segment.dispute()
    assert overturned(game)
    assert (game.reason, game.to) == (Reason.WRONG_WORD, length)
    assert segment.transactions == transactions(segment.solvers.program, 0)


def test_a_move_answers_one_position(arena: Arena) -> None:
    segment = perceptron_segment(arena, parse("gradient:5"))
    made: list[Move] = []

    def challenger(game: Game) -> Move | None:
        for old in made:
            with pytest.raises(Refused, match=r"WrongPhase|WrongPosition|NotPlayer"):
                old.send(arena.challenger)
        move = attack(game, segment.honest)
        assert move is not None
        made.append(move)
        return move

    game = segment.dispute(challenger)
    assert overturned(game)
    assert game.phase is Phase.OVER
    assert len(made) == segment.transactions // 2
