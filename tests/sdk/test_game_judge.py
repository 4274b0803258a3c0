"""The last step judged off chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crowdtrain.chain import Address, Game, Phase
from crowdtrain.game import Move, attack, judge_locally, spot_check, worth_challenging
from crowdtrain.game.judge import MissingPageError, evaluate
from crowdtrain.game.moves import Prove
from crowdtrain.game.sabotage import parse
from crowdtrain_engine import merkle, reference
from crowdtrain_engine.trace import Machine, Replay, accumulators, seal, trace_root
from engine.strategies import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk.arena import SOLVER, Segment, fake_arena
from small_programs import perceptron, perceptron_data, perceptron_state

STEPS = 3


def segment(sabotage: str) -> Segment:
    return Segment.commit(
        fake_arena(), perceptron(STEPS), perceptron_state(), perceptron_data(STEPS),
        steps=STEPS, interval=2, sabotage=parse(sabotage),
    )  # fmt: skip


@given(cases(), st.data())
@settings(deadline=None, max_examples=40)
def test_opened_pages_are_enough_to_judge_a_word(case: Case, data: st.DataObject) -> None:
    values = reference.run_step(case.program, [*case.state, *case.data])
    nest = case.program.nests[data.draw(st.integers(0, len(case.program.nests) - 1))]
    word = data.draw(st.integers(0, nest.type.size - 1))
    start = data.draw(st.integers(0, nest.fold_length - 1))
    stop = min(start + 4, nest.fold_length)
    accumulator, expected = accumulators(nest, values, word, [start, stop])
    iterations = np.arange(start, stop)
    reads = reference.reads(nest, values, np.full_like(iterations, word), iterations)
    opened: dict[int, dict[int, bytes]] = {}
    for operand, (_, positions) in zip(nest.operands, reads, strict=True):
        for position in positions[positions >= 0]:
            value, page = operand.value, int(position) // merkle.PAGE_WORDS  # type: ignore[union-attr]
            opened.setdefault(value, {})[page] = merkle.page(values[value], page)
    assert evaluate(nest, opened, word, start, stop, accumulator) == expected
    for value, pages in opened.items():
        for page in pages:
            less = {**opened, value: {index: data for index, data in pages.items() if index != page}}
            with pytest.raises(MissingPageError):
                evaluate(nest, less, word, start, stop, accumulator)


def test_the_challenger_knows_the_verdict_before_it_is_spoken() -> None:
    play = segment("gradient:2")
    verdicts = []

    def challenger(game: Game) -> Move | None:
        move = attack(game, play.honest)
        if game.phase is Phase.PROVE:
            assert isinstance(move, Prove)
            verdicts.append(judge_locally(game, move))
            computed = evaluate_move(game, move)
            verdicts.append(judge_locally(replace(game, claimed=computed), move))
        return move

    play.dispute(challenger)
    assert verdicts == [True, False]


def evaluate_move(game: Game, move: Prove) -> int:
    from crowdtrain_engine import Nest

    opened: dict[int, dict[int, bytes]] = {}
    for page in move.pages:
        opened.setdefault(move.values[page.operand].value, {})[page.index] = page.words
    return evaluate(Nest.decode(move.nest.data), opened, game.word, game.from_, game.to, game.accumulator)


def test_another_output_or_another_seal_is_worth_a_challenge() -> None:
    machine = Machine(perceptron(STEPS), perceptron_data(STEPS), backend="reference")
    run = Replay.run(machine, perceptron_state(), steps=STEPS, interval=2)
    output = run.state_at(len(run.trace) - 1)
    solver = Address(SOLVER)
    sealed = seal(trace_root(run.trace), bytes.fromhex(SOLVER[2:]))
    assert not worth_challenging(run, solver, output.group_roots, sealed)
    assert worth_challenging(run, solver, output.group_roots[::-1], sealed)
    assert worth_challenging(run, solver, output.group_roots, bytes(32))
    assert worth_challenging(run, Address("0x" + "77" * 20), output.group_roots, sealed)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_machine_without_fault_passes_the_spot_check(backend: str) -> None:
    machine = Machine(perceptron(STEPS), perceptron_data(STEPS), backend=backend)
    run = Replay.run(machine, perceptron_state(), steps=STEPS, interval=2)
    assert spot_check(run, STEPS - 1) == []


def test_a_machine_that_computes_wrongly_does_not() -> None:
    play = segment("garbage:3")
    wrong = spot_check(play.solvers, STEPS - 1)
    assert len(wrong) > len(play.solvers.program.nests) // 2
    assert spot_check(play.solvers, STEPS - 1, iterations=0) == []
