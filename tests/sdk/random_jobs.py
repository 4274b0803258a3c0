"""Hypothesis strategy: small jobs whose steps change every tensor of the state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from crowdtrain_engine import Dataset, DType, Program, State, TensorType
from crowdtrain_engine.program import Nest
from engine.strategies import Case, cases, nests, shapes
from hypothesis import strategies as st

__all__ = ["RandomJob", "random_jobs"]


@dataclass(frozen=True)
class RandomJob:
    """A program with a state and data that fit it."""

    program: Program
    state: State
    data: Dataset

    @classmethod
    def of(cls, case: Case) -> RandomJob:
        program = case.program
        shaped = [
            words.view(kind.dtype.numpy).reshape(kind.shape)
            for words, kind in zip((*case.state, *case.data), program.types, strict=False)
        ]
        count = len(program.state)
        named = dict(zip(program.labels.data, shaped[count:], strict=True))
        return cls(program, State.from_tensors(program, shaped[:count]), Dataset.from_tensors(named))


@st.composite
def _programs(draw: st.DrawFn) -> Program:
    """A few nests in the middle, then one for each state tensor."""
    types = st.builds(TensorType, st.sampled_from(DType), shapes(300))
    state = draw(st.lists(types, min_size=1, max_size=4))
    data = draw(st.lists(types, max_size=2))
    cuts = draw(st.sets(st.integers(1, len(state) - 1))) if len(state) > 1 else set()
    shapes_so_far = [kind.shape for kind in (*state, *data)]
    made: list[Nest] = []
    for kind in [None] * draw(st.integers(0, 3)) + state:
        nest = draw(nests(shapes_so_far, draw(shapes(300)) if kind is None else kind.shape))
        made.append(nest if kind is None else replace(nest, dtype=kind.dtype))
        shapes_so_far.append(nest.outer)
    values = len(shapes_so_far)
    return Program(
        groups=tuple(b - a for a, b in pairwise([0, *sorted(cuts), len(state)])),
        state=tuple(state),
        data=tuple(data),
        nests=tuple(made),
        next=tuple(range(values - len(state), values)),
    )


def random_jobs() -> st.SearchStrategy[RandomJob]:
    """Jobs with one or more groups, nests of every kind, and any words."""
    return cases(_programs()).map(RandomJob.of)
