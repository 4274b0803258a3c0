"""Ways to cheat: what they are called, and what each of them does."""

from __future__ import annotations

import numpy as np
import pytest
from crowdtrain._errors import ConfigError
from crowdtrain.game.sabotage import (
    MODES,
    OtherConstant,
    OtherOrder,
    Sabotage,
    WrongWord,
    forward,
    gradient,
    optimizer,
    parse,
)  # fmt: skip
from crowdtrain_engine import execute
from crowdtrain_engine.trace import Machine, Replay
from small_programs import NESTS, perceptron, perceptron_data, perceptron_state

STEPS = 4


def replay(sabotage: Sabotage | None = None) -> Replay:
    machine = Machine(perceptron(STEPS), perceptron_data(STEPS), backend="reference", deviation=sabotage)
    return Replay.run(machine, perceptron_state(), steps=STEPS, interval=2)


@pytest.mark.parametrize("name", MODES)
def test_every_mode_has_a_name_and_a_description(name: str) -> None:
    assert isinstance(parse(name), Sabotage)
    assert MODES[name].description


BAD_NAMES = ["", "nothing", "gradient:", "gradient:0", "gradient:-1", "gradient:x", "gradient:²"]


@pytest.mark.parametrize("text", BAD_NAMES)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_steps_are_counted_from_1() -> None:
    for text, step in (("gradient", 0), ("gradient:1", 0), ("gradient:12", 11)):
        sabotage = parse(text)
        assert isinstance(sabotage, WrongWord)
        assert sabotage.acts(step)
        assert not sabotage.acts(step + 1)


def test_nests_are_found_by_what_they_do() -> None:
    program = perceptron(STEPS)
    found = [NESTS[choose(program)] for choose in (forward, gradient, optimizer)]
    assert found == ["prediction", "weight1 gradient", "weight1 update"]


@pytest.mark.parametrize("name", ["forward", "gradient", "optimizer"])
def test_one_word_is_wrong_and_the_rest_follows(name: str) -> None:
    wrong, right = replay(parse(f"{name}:2")).step(1), replay().step(1)
    program = perceptron(STEPS)
    differs = [not np.array_equal(a, b) for a, b in zip(wrong.values, right.values, strict=True)]
    first = differs.index(True)
    number = {"forward": forward, "gradient": gradient, "optimizer": optimizer}[name](program)
    assert first == program.first_nest + number
    assert np.count_nonzero(wrong.values[first] != right.values[first]) == 1
    assert wrong.after.groups.root != right.after.groups.root


def test_the_step_before_and_the_segments_length_stay() -> None:
    wrong, right = replay(parse("gradient:4")), replay()
    assert wrong.trace[:2] == right.trace[:2]
    assert wrong.states(2)[:2] == right.states(2)[:2]
    assert wrong.states(2)[2] != right.states(2)[2]


def test_another_learning_rate_is_another_constant_in_the_update() -> None:
    program = perceptron(STEPS)
    altered = OtherConstant().program(program)
    changed = [NESTS[i] for i, nest in enumerate(program.nests) if altered.nests[i] != nest]
    assert changed == ["weight1 update", "weight2 update"]
    before, after = (
        np.array(p.nests[NESTS.index("weight1 update")].immediates, np.uint32).view(np.float32)
        for p in (program, altered)
    )
    assert after == 2 * before


def test_another_order_is_the_same_samples_in_other_steps() -> None:
    data = perceptron_data(STEPS)
    order = OtherOrder().data(data).tensors["order"]
    assert np.array_equal(order, data.tensors["order"][[3, 0, 1, 2]])


def test_skipping_a_step_is_running_one_less_in_its_place() -> None:
    skipped = replay(parse("skip:2"))
    program, data = perceptron(STEPS), perceptron_data(STEPS)
    one, _ = execute(program, perceptron_state(), data, steps=1, backend="reference")
    assert skipped.states(1)[1:] == (one.root, one.root)


def test_the_input_as_output() -> None:
    assert set(replay(parse("input")).trace) == {perceptron_state().root}


def test_garbage_is_the_same_each_time_it_is_asked_for() -> None:
    garbage = replay(parse("garbage"))
    assert garbage.states(2)[-1] == garbage.trace[-1]
    assert garbage.step(3).after.groups.root == garbage.trace[-1]
