"""Every model of the zoo lowers, trains as eager PyTorch trains it, and gives the same words wherever it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crowdtrain_engine import Executor, State
from crowdtrain_engine.execution import BACKENDS
from crowdtrain_engine.native import isas
from crowdtrain_engine.validation import cost
from lowering_support import check_losses
from zoo import ZOO
from zoo.lowered import STEPS, lowered


@pytest.mark.parametrize("name", ZOO)
def test_losses_follow_eager_pytorch(name: str) -> None:
    check_losses(ZOO[name])


WAYS: list[dict[str, Any]] = [
    *({"backend": "native", "isa": isa, "threads": threads} for isa in isas() for threads in (1, 2)),
    *({"backend": backend} for backend in BACKENDS if backend not in ("native", "reference")),
]
"""to run a program, besides the reference"""

DEAR = 2_000_000
"""operations of a step that takes the reference about a second"""


@pytest.mark.parametrize("name", ZOO)
def test_every_backend_gives_the_same_roots(name: str) -> None:
    _check_every_backend(name, 1 if cost(lowered(name).program).operations > DEAR else 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_every_backend_gives_the_same_roots_after_more_steps(name: str) -> None:
    _check_every_backend(name, STEPS)


def _check_every_backend(name: str, steps: int) -> None:
    """Compares the roots before the last step, every value of it, and the root after it."""
    program, state, data = lowered(name)
    expected = Executor(program, state, data, backend="reference")
    expected.run(steps - 1)
    before, values = expected.state.root, expected.values()
    following = [
        values[value].view(kind.dtype.numpy).reshape(kind.shape)
        for kind, value in zip(program.state, program.next, strict=True)
    ]
    after = State.from_tensors(program, following).root
    for way in WAYS:
        executor = Executor(program, state, data, **way)
        executor.run(steps - 1)
        assert executor.state.root == before, way
        for number, (mine, right) in enumerate(zip(executor.values(), values, strict=True)):
            assert np.array_equal(mine, right), (way, program.value_name(number))
        executor.run(1)
        assert executor.state.root == after != before, way
