"""Segments: checkpoints, their roots, and a segment taken apart again."""

from __future__ import annotations

import dataclasses
from hashlib import sha256

import numpy as np
import pytest
from crowdtrain_engine import Dataset, Program, State, execute, merkle, reference
from crowdtrain_engine.execution import words
from crowdtrain_engine.trace import (
    Deviation,
    Machine,
    Replay,
    RunNest,
    StateTrees,
    Words,
    accumulators,
    checkpoint_count,
    run_segment,
    seal,
    trace_root,
)  # fmt: skip
from engine.strategies import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import perceptron, perceptron_data, perceptron_state

STEPS = 7
BACKENDS = ["reference", "native"]


def machine(backend: str = "reference", deviation: Deviation | None = None) -> Machine:
    return Machine(perceptron(STEPS), perceptron_data(STEPS), backend=backend, deviation=deviation)


def after(steps: int) -> State:
    state = perceptron_state()
    return execute(perceptron(STEPS), state, perceptron_data(STEPS), steps=steps, backend="reference")[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("interval", [1, 2, 3, 7, 20])
def test_a_checkpoint_every_interval_and_at_the_end(backend: str, interval: int) -> None:
    segment = run_segment(machine(backend), perceptron_state(), steps=STEPS, interval=interval)
    checkpoints = list(segment)
    assert [c.step for c in checkpoints] == [*range(0, STEPS, interval), STEPS]
    assert [c.number for c in checkpoints] == list(range(checkpoint_count(STEPS, interval) + 1))
    assert [c.root for c in checkpoints] == [after(c.step).root for c in checkpoints]
    assert all(c.root == c.state.root for c in checkpoints)


def test_checkpoints_carry_the_logs_since_the_one_before() -> None:
    segment = run_segment(machine(), perceptron_state(), steps=STEPS, interval=3)
    losses = [checkpoint.logs["loss"] for checkpoint in segment if checkpoint.logs]
    assert [len(loss) for loss in losses] == [3, 3, 1]
    _, logs = execute(
        perceptron(STEPS), perceptron_state(), perceptron_data(STEPS), steps=STEPS, backend="reference"
    )
    assert np.array_equal(np.concatenate(losses), logs["loss"])


@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_segment_goes_on_from_any_checkpoint(start: int) -> None:
    whole = list(run_segment(machine(), perceptron_state(), steps=STEPS, interval=2))
    state = whole[start].state
    rest = list(run_segment(machine(), state, steps=STEPS, interval=2, start=start))
    assert [c.number for c in rest] == list(range(start + 1, len(whole)))
    assert [(c.step, c.root) for c in rest] == [(c.step, c.root) for c in whole[start + 1 :]]


def test_seal() -> None:
    roots = [bytes([i]) * 32 for i in range(3)]
    solver = bytes(range(20))
    assert trace_root(roots) == merkle.root(roots)
    assert seal(trace_root(roots), solver) == sha256(trace_root(roots) + solver).digest()


def test_replay_gives_the_states_inside_an_interval() -> None:
    replay = Replay.run(machine(), perceptron_state(), steps=STEPS, interval=3)
    for checkpoint in range(1, len(replay.trace)):
        first = (checkpoint - 1) * 3
        last = min(first + 3, STEPS)
        assert replay.states(checkpoint) == tuple(after(step).root for step in range(first, last + 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_takes_a_step_apart(backend: str) -> None:
    replay = Replay.run(machine(backend), perceptron_state(), steps=STEPS, interval=3)
    program = replay.program
    for number in (0, 4, 6):
        step = replay.step(number)
        values = reference.run_step(
            program,
            [words(tensor) for tensor in (*after(number).tensors, *replay.machine.data.tensors.values())],
        )
        assert all(map(np.array_equal, step.values, values))
        assert step.before.groups.root == after(number).root
        assert step.after.groups.root == after(number + 1).root
        assert step.outputs.root == merkle.root([merkle.tensor_root(v) for v in values[program.first_nest :]])


def test_every_value_of_a_step_is_proved() -> None:
    replay = Replay.run(machine(), perceptron_state(), steps=STEPS, interval=3)
    step, program = replay.step(2), replay.program
    state, first = len(program.state), program.first_nest
    for value in range(len(program.types)):
        root, proof = step.value_root(value)
        assert root == merkle.tensor_root(step.values[value])
        assert step.pages(value).root == root
        if value >= first:
            assert merkle.verify(step.outputs.root, root, value - first, proof)
        elif value >= state:
            assert merkle.verify(replay.machine.data.root, root, value - state, proof)
        else:
            group = next(g for g in range(len(program.groups)) if value < program.bounds[g + 1])
            inside = merkle.height(program.groups[group])
            tree = step.before.tensors[group]
            assert merkle.verify(tree.root, root, value - program.bounds[group], proof[:inside])
            assert merkle.verify(step.before.groups.root, tree.root, group, proof[inside:])


def test_state_trees_are_those_of_the_state() -> None:
    state = perceptron_state()
    trees = StateTrees(perceptron(STEPS), state)
    assert trees.groups.root == state.root
    assert tuple(tree.root for tree in trees.tensors) == state.group_roots


@given(cases(), st.data())
@settings(deadline=None, max_examples=40)
def test_accumulators_are_the_folds_words(case: Case, data: st.DataObject) -> None:
    values = reference.run_step(case.program, [*case.state, *case.data])
    number = data.draw(st.integers(0, len(case.program.nests) - 1))
    nest = case.program.nests[number]
    word = data.draw(st.integers(0, nest.type.size - 1))
    stops = sorted(data.draw(st.sets(st.integers(0, nest.fold_length), max_size=4)) | {nest.fold_length})
    found = accumulators(nest, values, word, stops)
    here = np.array([word])
    assert found == [int(reference.fold(nest, values, here, 0, stop)[0]) for stop in stops]
    assert found[-1] == values[case.program.first_nest + number][word]
    again = accumulators(nest, values, word, stops[1:], stops[0], found[0])
    assert again == found[1:]


class _Spy(Deviation):
    """Acts in one step, in which it changes the first word of the first nest."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls: list[int] = []

    def acts(self, step: int) -> bool:
        return step == self.number

    def step(
        self, step: int, program: Program, values: list[Words], nest: RunNest
    ) -> tuple[list[Words], list[Words]]:
        self.calls.append(step)
        changed = [*values[: program.first_nest], values[program.first_nest] ^ np.uint32(1)]
        for number in range(1, len(program.nests)):
            changed.append(nest(number, changed))
        return changed, [changed[value] for value in program.next]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_deviation_is_asked_in_its_step_alone_and_stays_consistent(backend: str, number: int) -> None:
    spy = _Spy(number)
    replay = Replay.run(machine(backend, spy), perceptron_state(), steps=STEPS, interval=3)
    assert spy.calls == [number]
    honest = Replay.run(machine(), perceptron_state(), steps=STEPS, interval=3)
    wrong = number // 3 + 1
    assert replay.trace[:wrong] == honest.trace[:wrong]
    assert replay.trace[wrong] != honest.trace[wrong]
    states = replay.states(wrong)
    assert (states[0], states[-1]) == (replay.trace[wrong - 1], replay.trace[wrong])
    step = replay.step(number)
    assert step.before.groups.root == states[number % 3]
    assert step.after.groups.root == states[number % 3 + 1]
    assert step.outputs.levels[0][0] != honest.step(number).outputs.levels[0][0]


def test_logs_of_a_deviating_step_are_what_it_claims() -> None:
    replay = machine(deviation=_Spy(1))
    _, logs = replay.run(perceptron_state(), 0, 3)
    value = replay.program.logs[0]
    claimed = replay.step(after(1), 1).values[value].view(np.float32)
    assert logs["loss"].shape == (3,)
    assert logs["loss"][1] == claimed[0]


class _Elsewhere(Deviation):
    """Runs on other data, with another constant, and tells of another beginning."""

    def data(self, data: Dataset) -> Dataset:
        return Dataset.from_tensors({**data.tensors, "targets": data.tensors["targets"] + 1})

    def program(self, program: Program) -> Program:
        nests = [dataclasses.replace(n, immediates=tuple(i ^ 1 for i in n.immediates)) for n in program.nests]
        return dataclasses.replace(program, nests=tuple(nests))

    def root(self, checkpoint: int, root: bytes) -> bytes:
        return merkle.leaf(root) if checkpoint == 0 else root


def test_another_program_or_data_may_be_run_under_the_claimed_ones_name() -> None:
    replay = Replay.run(machine(deviation=_Elsewhere()), perceptron_state(), steps=2, interval=1)
    honest = Replay.run(machine(), perceptron_state(), steps=2, interval=1)
    assert replay.program.root == honest.program.root
    assert replay.trace[0] == merkle.leaf(honest.trace[0])
    assert replay.trace[1] != honest.trace[1]
    step = replay.step(0)
    assert step.after.groups.root == replay.trace[1]
    value = replay.program.first_nest + replay.program.labels.nests.index("weight1 update")
    assert step.accumulators(value, 5, [1]) == [step.values[value][5]]
