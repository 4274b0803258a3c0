"""Honest players against dishonest ones, on the fake chain: whoever is right wins, in at most 20
transactions.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from crowdtrain._errors import Refused
from crowdtrain.chain import Chain, Game, Phase, Reason
from crowdtrain.game import DEFENDER_PHASES, Move, attack, defend
from crowdtrain.game.moves import DisputeNext
from crowdtrain.game.sabotage import MODES, Garbage, Sabotage, Skip, UnboundNext, WrongWord, parse
from crowdtrain.game.trees import header_leaf
from crowdtrain_engine import Program
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sdk.arena import STAKE, Player, Segment, fake_arena, overturned
from sdk.liars import Troublemaker
from sdk.random_jobs import RandomJob, random_jobs
from small_programs import perceptron, perceptron_data, perceptron_state

STEPS = 7
thorough = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def perceptron_segment(sabotage: Sabotage | None = None, interval: int = 3) -> Segment:
    return Segment.commit(
        fake_arena(), perceptron(STEPS), perceptron_state(), perceptron_data(STEPS),
        steps=STEPS, interval=interval, sabotage=sabotage,
    )  # fmt: skip


def random_segment(job: RandomJob, steps: int, interval: int, sabotage: Sabotage | None = None) -> Segment:
    return Segment.commit(
        fake_arena(), job.program, job.state, job.data, steps=steps, interval=interval, sabotage=sabotage
    )


EXPECTED = {
    "skip": Reason.BAD_BINDING, "input": Reason.BAD_BINDING, "trace-ends": Reason.BAD_BINDING,
    "state-ends": Reason.BAD_BINDING, "next-state": Reason.BAD_BINDING, "mismatch": Reason.BAD_CHILDREN,
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_sabotage_is_overturned(name: str) -> None:
    segment = perceptron_segment(parse(f"{name}:5"))
    assert segment.worth
    game = segment.dispute()
    assert overturned(game)
    expected = Reason.TIMEOUT if name.startswith("silent") else EXPECTED.get(name, Reason.WRONG_WORD)
    assert game.reason is expected
    assert segment.transactions <= 20
    solver, challenger = segment.arena.solver, segment.arena.challenger
    assert solver.stake(solver.address) == (STAKE, 0)
    assert challenger.stake(challenger.address) == (2 * STAKE + STAKE // 2, 0)


@pytest.mark.parametrize("step", [1, 3, 4, 7])
@pytest.mark.parametrize("interval", [1, 2, 7, 50])
def test_a_lie_is_found_wherever_it_is(step: int, interval: int) -> None:
    segment = perceptron_segment(parse(f"gradient:{step}"), interval)
    game = segment.dispute()
    assert overturned(game)
    assert game.first == step - 1


def test_an_honest_commitment_is_not_worth_a_challenge() -> None:
    assert not perceptron_segment().worth


@st.composite
def sabotages(draw: st.DrawFn, program: Program, steps: int) -> Sabotage:
    step = draw(st.integers(0, steps - 1))
    nest = draw(st.integers(0, len(program.nests) - 1))
    word = draw(st.integers(0, program.nests[nest].type.size - 1))
    wrong_word = WrongWord(step, lambda program: nest, word, draw(st.integers(0, 31)))
    return draw(
        st.sampled_from([wrong_word, wrong_word, Skip(step), Skip(None), Garbage(step), UnboundNext(step)])
    )


@given(random_jobs(), st.integers(1, 4), st.integers(1, 3), st.data())
@thorough
def test_any_wrong_work_is_overturned(job: RandomJob, steps: int, interval: int, data: st.DataObject) -> None:
    sabotage = data.draw(sabotages(job.program, steps))
    segment = random_segment(job, steps, interval, sabotage)
    assume(segment.worth)
    assert overturned(segment.dispute())
    assert segment.transactions <= 20


@given(random_jobs(), st.integers(1, 4), st.integers(1, 3), st.randoms(use_true_random=False))
@thorough
def test_right_work_stands_whoever_challenges_it(
    job: RandomJob, steps: int, interval: int, rng: random.Random
) -> None:
    segment = random_segment(job, steps, interval)
    assert not segment.worth
    solver = segment.arena.solver
    for _ in range(2):
        challenger = Troublemaker(segment.honest, rng)
        assert not overturned(segment.dispute(challenger=challenger))
        assert segment.transactions <= 20
    assert solver.stake(solver.address) == (STAKE + 2 * (STAKE // 2), STAKE)


class Until:
    """Plays as one challenger until a turn, in which another plays."""

    def __init__(self, turn: int, before: Troublemaker, then: Troublemaker) -> None:
        self.turns = iter(range(1, 40))
        self.turn, self.before, self.then = turn, before, then

    def __call__(self, game: Game) -> Move | None:
        return (self.then if next(self.turns) == self.turn else self.before)(game)


def test_a_challengers_lie_at_any_turn_loses() -> None:
    """At each turn a false claim, or silence, from a challenger who picks at random until then."""
    segment = perceptron_segment()
    challenger = segment.arena.challenger
    reasons = set()
    for turn in range(1, 8):
        for claim in (0.0, 1.0):
            challenger.deposit(STAKE)
            patient = Troublemaker(segment.honest, random.Random(turn), give_up=0, claim=0)
            liar = Troublemaker(segment.honest, random.Random(turn), give_up=1 - claim, claim=claim)
            game = segment.dispute(challenger=Until(turn, patient, liar))
            assert not overturned(game)
            reasons.add(game.reason)
    assert reasons >= {Reason.VALID_PROGRAM, Reason.TIMEOUT, Reason.RIGHT_WORD}


class Forger(Troublemaker):
    """Tries every forgery of the last move, each of which must be refused, and then makes the right one."""

    def __init__(self, segment: Segment, *, next_state: bool) -> None:
        super().__init__(segment.honest, random.Random(2), give_up=0, claim=0)
        self.segment = segment
        self.next_state = next_state
        self.tried = 0

    def __call__(self, game: Game) -> Move | None:
        if game.phase is Phase.PICK_CHILD and game.node == game.nests_root and self.next_state:
            return DisputeNext(game.id, game.position, header_leaf(self.replay.program))
        if game.phase in (Phase.PROVE, Phase.PROVE_NEXT):
            for forged in self.forgeries(game):
                with pytest.raises(Refused):
                    forged.send(self.segment.arena.challenger)
                self.tried += 1
        return super().__call__(game)


@pytest.mark.parametrize("next_state", [False, True])
def test_forged_last_moves_are_refused(next_state: bool) -> None:
    segment = perceptron_segment()
    forger = Forger(segment, next_state=next_state)
    while not forger.tried:
        segment.arena.challenger.deposit(STAKE)
        game = segment.dispute(challenger=forger)
        assert not overturned(game)
    assert game.reason is (Reason.BINDING_HOLDS if next_state else Reason.RIGHT_WORD)


def test_a_move_answers_one_position() -> None:
    """Every move that was made once is refused when it comes again, and so is one that comes too early."""
    segment = perceptron_segment(parse("gradient:5"))
    made: list[Move] = []

    def keeping(player: Player) -> Player:
        def play(game: Game) -> Move | None:
            for old in made:
                for chain in (segment.arena.solver, segment.arena.challenger):
                    with pytest.raises(Refused, match=r"WrongPhase|WrongPosition|NotPlayer"):
                        old.send(chain)
            move = player(game)
            assert move is not None
            made.append(move)
            with pytest.raises(Refused, match="WrongPosition"):
                replace(move, position=bytes(32)).send(mover(game))
            return move

        return play

    def mover(game: Game) -> Chain:
        arena = segment.arena
        return arena.solver if game.phase in DEFENDER_PHASES else arena.challenger

    game = segment.dispute(challenger=keeping(segment.attack), defender=keeping(segment.defence))
    assert overturned(game)
    assert len(made) == segment.transactions - 1


def test_nobody_moves_for_another_or_out_of_turn() -> None:
    segment = perceptron_segment(parse("gradient:5"))
    arena = segment.arena

    def watched(player: Player, opponent: Chain) -> Player:
        def play(game: Game) -> Move | None:
            move = player(game)
            assert move is not None
            for chain in (opponent, arena.buyer):
                with pytest.raises(Refused, match="NotPlayer"):
                    move.send(chain)
            return move

        return play

    attacking, defending = watched(segment.attack, arena.solver), watched(segment.defence, arena.challenger)
    assert overturned(segment.dispute(attacking, defending))


def test_players_are_silent_when_it_is_not_their_turn() -> None:
    segment = perceptron_segment(parse("gradient:5"))

    def defender(game: Game) -> Move | None:
        assert attack(game, segment.honest) is None
        return segment.defence(game)

    def challenger(game: Game) -> Move | None:
        assert defend(game, segment.solvers) is None
        return segment.attack(game)

    game = segment.dispute(challenger, defender)
    assert attack(game, segment.honest) is None
    assert defend(game, segment.solvers) is None
