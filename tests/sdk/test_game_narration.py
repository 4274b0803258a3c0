"""Disputes in plain words."""

from __future__ import annotations

import pytest
from crowdtrain.chain import Game
from crowdtrain.game import narrate
from crowdtrain.game.sabotage import MODES, parse
from crowdtrain_engine import Program
from sdk.arena import Segment, fake_arena
from small_programs import perceptron, perceptron_data, perceptron_state

STEPS = 7


def dispute(sabotage: str) -> tuple[Game, Program]:
    program = perceptron(STEPS)
    segment = Segment.commit(
        fake_arena(), program, perceptron_state(), perceptron_data(STEPS),
        steps=STEPS, interval=3, sabotage=parse(sabotage),
    )  # fmt: skip
    return segment.dispute(), program


def test_a_dispute_about_a_sum() -> None:
    lines = narrate(*dispute("gradient:5"))
    assert lines[:6] == [
        "segment 0, attempt 1 is challenged",
        "the solver shows the roots of 3 checkpoints",
        "the challenger says that checkpoint 2 is wrong, after steps 4 to 6",
        "the solver shows the states after steps 4 to 6",
        "the challenger says that step 5 is the first wrong one",
        "step 5: the solver shows 16 hashes of the values",
    ]
    assert lines[6] == "step 5: the challenger says that weight1 gradient (nest 10) is wrong"
    assert lines[8] == "step 5: the challenger says that page 0 of weight1 gradient is wrong"
    word = "word 212 of weight1 gradient"
    assert lines[10] == f"the challenger says that {word} is wrong, which the solver says is -3.11817122"
    assert lines[-3:] == [
        "the challenger says that the solver is wrong to sum terms 16 to 19 from -1.9695096 to -3.11817122",
        f"checkpoint 2, step 5, {word}: the solver says -3.11817122, the contract computes -2.11817122",
        "the work is overturned: the contract computes another word than the solver",
    ]


def test_a_dispute_about_the_next_state() -> None:
    lines = narrate(*dispute("next-state:5"))
    assert lines[-6:] == [
        "step 5: every value is right, but the next state is not made of them",
        "step 5: the solver shows 4 hashes of the groups of the next state",
        "step 5: the challenger says that parameters (group 0 of the next state) is wrong",
        "step 5: the solver shows 2 hashes of the tensors of parameters",
        "step 5: the challenger says that weight1 (tensor 0 of the group) is wrong",
        "the work is overturned: what the solver showed does not begin or end with what was committed",
    ]


@pytest.mark.parametrize("name", MODES)
def test_every_event_has_a_sentence_with_and_without_the_program(name: str) -> None:
    game, program = dispute(f"{name}:5")
    for known in (program, None):
        lines = narrate(game, known)
        assert len(lines) == len(game.history)
        assert all(" " in line for line in lines), "the name of an event is not a sentence"
