"""Defenders who show trees of their own making: wrong words anywhere, something in the padding, wrong
partials.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from crowdtrain.chain import Game, Reason
from crowdtrain.game import Move, defend
from crowdtrain.game.moves import RevealPartials
from crowdtrain.game.sabotage import Garbage, Sabotage, UnboundNext
from crowdtrain_engine import Axis, Dataset, DType, Instruction, Nest, Program, Read, State, TensorType
from crowdtrain_engine.trace import StateTrees
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sdk.arena import Arena, Segment, fake_arena, overturned
from sdk.liars import Lies, LyingReplay, with_padding
from sdk.random_jobs import RandomJob, random_jobs

thorough = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def squares() -> RandomJob:
    """Five tensors in three groups, each squared by a nest of its own; the first takes three pages."""
    shapes = [(600,), (5,), (5,), (7,), ()]
    types = tuple(TensorType(DType.f32, shape) for shape in shapes)

    def square(value: int, shape: tuple[int, ...]) -> Nest:
        axes = tuple(Axis(size, ((loop, 1),)) for loop, size in enumerate(shape))
        return Nest(DType.f32, shape, (Read(value, axes),), (Instruction(0x03, 1, 1),), 2)

    nests = tuple(square(value, shape) for value, shape in enumerate(shapes))
    program = Program((3, 1, 1), types, (), nests, (5, 6, 7, 8, 9))
    rng = np.random.default_rng(0)
    tensors = [np.asarray(rng.normal(size=shape), np.float32) for shape in shapes]
    return RandomJob(program, State.from_tensors(program, tensors), Dataset.from_tensors({}))


def lying(
    job: RandomJob, lies: Lies, sabotage: Sabotage, steps: int = 1, arena: Arena | None = None
) -> Segment:
    """A commitment that ``sabotage`` makes wrong, defended with ``lies`` about what a step computed."""
    segment = Segment.commit(
        arena or fake_arena(),
        job.program,
        job.state,
        job.data,
        steps=steps,
        interval=1,
        sabotage=sabotage,
    )
    run = segment.solvers
    lying = LyingReplay(run.machine, steps=steps, interval=1, trace=run.trace, state_at=run.state_at)
    segment.solvers = lying.lie(lies)
    return segment


@st.composite
def any_lies(draw: st.DrawFn, program: Program) -> Lies:
    """Wrong words, also after a tensor's end, in outputs of nests, and junk in the padding of trees."""
    outputs = st.integers(program.first_nest, len(program.types) - 1)
    words: dict[tuple[int, int], int] = {}
    for value in draw(st.lists(outputs, max_size=3)):
        in_pages = -(-program.types[value].size // 256) * 256
        words[value, draw(st.integers(0, in_pages - 1))] = draw(st.integers(1, 2**32 - 1))
    return Lies(words, draw(st.booleans()), frozenset(draw(st.sets(outputs, max_size=2))))


@given(random_jobs(), st.data())
@thorough
def test_any_trees_are_overturned(job: RandomJob, data: st.DataObject) -> None:
    segment = lying(job, data.draw(any_lies(job.program)), UnboundNext(0))
    game = segment.dispute()
    assert overturned(game)
    assert game.reason in (Reason.WRONG_WORD, Reason.BAD_PADDING, Reason.BAD_BINDING)
    assert segment.transactions <= 20


PADDED = [
    (Lies({(5, 600): 1}), Reason.BAD_PADDING),
    (Lies({(6, 255): 1}), Reason.BAD_PADDING),
    (Lies(page_padding=frozenset({5})), Reason.BAD_PADDING),
    (Lies(nest_padding=True), Reason.BAD_PADDING),
    (Lies({(6, 4): 1, (7, 2): 5}, nest_padding=True), Reason.WRONG_WORD),
    (Lies({(9, 0): 1}), Reason.WRONG_WORD),
    (Lies({(9, 1): 1}), Reason.BAD_PADDING),
    (Lies(), Reason.BAD_BINDING),
]
"""Lies about the values of :func:`squares`, and what they end in."""


@pytest.mark.parametrize(("lies", "reason"), PADDED)
def test_padding_of_pages_and_nests(lies: Lies, reason: Reason) -> None:
    segment = lying(squares(), lies, UnboundNext(0))
    game = segment.dispute()
    assert overturned(game)
    assert game.reason is reason


@dataclass(frozen=True)
class PaddedCheckpoint(Sabotage):
    """The trace holds a root with junk in the padding of the state's trees; the states themselves are
    right.
    """

    forged: bytes

    def root(self, checkpoint: int, root: bytes) -> bytes:
        return self.forged if checkpoint == 1 else root


@pytest.mark.parametrize("lies", [Lies(group_padding=True), Lies(tensor_padding=True)])
def test_padding_of_groups_and_tensors(lies: Lies) -> None:
    job = squares()
    after = State.from_tensors(job.program, [np.square(tensor) for tensor in job.state.tensors])
    forged = with_padding(StateTrees(job.program, after), lies).groups.root
    segment = lying(job, lies, PaddedCheckpoint(forged), steps=2)
    assert segment.worth
    game = segment.dispute()
    assert overturned(game)
    assert (game.reason, game.first) == (Reason.BAD_PADDING, 0)


@given(random_jobs(), st.randoms(use_true_random=False))
@thorough
def test_any_partials_are_overturned(job: RandomJob, rng: random.Random) -> None:
    segment = lying(job, Lies(), Garbage(0))
    assume(segment.worth)

    def defender(game: Game) -> Move | None:
        move = defend(game, segment.solvers)
        if not isinstance(move, RevealPartials):
            return move
        words = [move.partials[i : i + 4] for i in range(0, len(move.partials), 4)]
        return replace(move, partials=b"".join(rng.choice([word, rng.randbytes(4)]) for word in words))

    assert overturned(segment.dispute(defender=defender))
