"""A training step small enough for the reference interpreter and a whole dispute in seconds, nest by nest.

A two-layer perceptron with ReLU and squared error, trained by SGD with momentum on a dataset whose ``order``
says which samples each step reads. Its first weights take two pages, and its folds need a level of partials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from crowdtrain_engine import (
    Axis,
    Dataset,
    DType,
    Instruction,
    Labels,
    Mode,
    Nest,
    Program,
    Read,
    State,
    TensorType,
)
from crowdtrain_engine.ops import BY_NAME
from crowdtrain_engine.program import Operand

__all__ = ["NESTS", "perceptron", "perceptron_data", "perceptron_state"]

INPUTS, HIDDEN, BATCH, SAMPLES = 20, 16, 20, 48
BETA, LEARNING_RATE = 0.9, 0.01

_STATE = (("weight1", (INPUTS, HIDDEN)), ("weight2", (HIDDEN,)))
_W1, _W2, _M1, _M2, _STEP, _X, _Y, _ORDER = range(8)
_FIRST = 8
NESTS = (
    "row", "x", "y", "hidden", "relu", "prediction", "error", "loss",
    "weight2 gradient", "hidden gradient", "weight1 gradient",
    "weight1 momentum", "weight2 momentum", "weight1 update", "weight2 update", "step update",
)  # fmt: skip
_NEXT = ("weight1 update", "weight2 update", "weight1 momentum", "weight2 momentum", "step update")


def _word(number: float) -> int:
    return int(np.float32(number).view(np.uint32))


def _value(name: str) -> int:
    return _FIRST + NESTS.index(name)


def _read(value: int, *axes: tuple[int, int]) -> Read:
    """Reads the tensor whose dimensions are (size, loop)."""
    return Read(value, tuple(Axis(size, ((loop, 1),)) for size, loop in axes))


def _nest(
    shape: tuple[int, ...],
    operands: Sequence[Operand],
    *body: tuple[str, int, int, int],
    fold: int = 0,
    immediates: tuple[int, ...] = (),
    dtype: DType = DType.f32,
) -> Nest:
    instructions = tuple(Instruction(BY_NAME[name].code, a, b, c) for name, a, b, c in body)
    result = len(operands) + len(immediates) + len(body)
    return Nest(dtype, shape, tuple(operands), instructions, result, (fold,) if fold else (), 0, immediates)


def perceptron(rows: int, *, samples: int = SAMPLES) -> Program:
    """The step, for data of ``samples`` samples and an order of ``rows`` steps."""
    batch, hidden = (BATCH, 0), (HIDDEN, 1)
    step = Read(_STEP, ())
    row = Read(_ORDER, (Axis(rows, mode=Mode.GATHER, operand=0), Axis(BATCH, ((0, 1),))))
    sample = Axis(samples, mode=Mode.GATHER, operand=0)
    weight1 = (INPUTS, 0), (HIDDEN, 1)
    ffma = ("ffma", 1, 2, 0)  # acc ← operand 1 · operand 2 + acc

    def momentum(shape: tuple[int, ...], axes: tuple[tuple[int, int], ...], old: int, gradient: str) -> Nest:
        operands = [_read(old, *axes), _read(_value(gradient), *axes)]
        return _nest(shape, operands, ("ffma", 1, 3, 2), immediates=(_word(BETA),))

    def update(shape: tuple[int, ...], axes: tuple[tuple[int, int], ...], old: int, name: str) -> Nest:
        operands = [_read(_value(name), *axes), _read(old, *axes)]
        return _nest(shape, operands, ("ffma", 1, 3, 2), immediates=(_word(-LEARNING_RATE / BATCH),))

    nests = (
        _nest((BATCH,), [step, row], ("ior", 2, 2, 0), dtype=DType.u32),
        _nest(
            (BATCH, INPUTS),
            [_read(_value("row"), batch), Read(_X, (sample, Axis(INPUTS, ((1, 1),))))],
            ("ior", 2, 2, 0),
        ),
        _nest((BATCH,), [_read(_value("row"), batch), Read(_Y, (sample,))], ("ior", 2, 2, 0)),
        _nest(
            (BATCH, HIDDEN),
            [_read(_value("x"), batch, (INPUTS, 2)), _read(_W1, (INPUTS, 2), hidden)],
            ffma,
            fold=INPUTS,
        ),
        _nest(
            (BATCH, HIDDEN),
            [_read(_value("hidden"), batch, hidden)],
            ("flt", 2, 1, 0),
            ("select", 3, 1, 2),
            immediates=(0,),
        ),
        _nest(
            (BATCH,), [_read(_value("relu"), batch, (HIDDEN, 1)), _read(_W2, (HIDDEN, 1))], ffma, fold=HIDDEN
        ),
        _nest((BATCH,), [_read(_value("prediction"), batch), _read(_value("y"), batch)], ("fsub", 1, 2, 0)),
        _nest((), [_read(_value("error"), batch), _read(_value("error"), batch)], ffma, fold=BATCH),
        _nest(
            (HIDDEN,),
            [_read(_value("error"), (BATCH, 1)), _read(_value("relu"), (BATCH, 1), (HIDDEN, 0))],
            ffma,
            fold=BATCH,
        ),
        _nest(
            (BATCH, HIDDEN),
            [_read(_value("error"), batch), _read(_W2, hidden), _read(_value("hidden"), batch, hidden)],
            ("fmul", 1, 2, 0),
            ("flt", 4, 3, 0),
            ("select", 6, 5, 4),
            immediates=(0,),
        ),
        _nest(
            (INPUTS, HIDDEN),
            [
                _read(_value("x"), (BATCH, 2), (INPUTS, 0)),
                _read(_value("hidden gradient"), (BATCH, 2), hidden),
            ],
            ffma,
            fold=BATCH,
        ),
        momentum((INPUTS, HIDDEN), weight1, _M1, "weight1 gradient"),
        momentum((HIDDEN,), ((HIDDEN, 0),), _M2, "weight2 gradient"),
        update((INPUTS, HIDDEN), weight1, _W1, "weight1 momentum"),
        update((HIDDEN,), ((HIDDEN, 0),), _W2, "weight2 momentum"),
        _nest((), [step], ("iadd", 1, 2, 0), immediates=(1,), dtype=DType.u32),
    )
    program = Program(
        groups=(2, 2, 1),
        state=(
            *(TensorType(DType.f32, shape) for _, shape in _STATE * 2),
            TensorType(DType.u32, ()),
        ),
        data=(
            TensorType(DType.f32, (samples, INPUTS)),
            TensorType(DType.f32, (samples,)),
            TensorType(DType.u32, (rows, BATCH)),
        ),
        nests=nests,
        next=tuple(map(_value, _NEXT)),
        logs=(_value("loss"),),
        labels=Labels(
            ("parameters", "momentum", "counters"),
            ("weight1", "weight2", "weight1", "weight2", "step"),
            ("inputs", "targets", "order"),
            ("loss",),
            NESTS,
        ),
    )
    program.validate()
    return program


def perceptron_state(seed: int = 0) -> State:
    """A random initial state of the perceptron."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in _STATE}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in _STATE}
    return State({"parameters": weights, "momentum": zeros, "counters": {"step": np.uint32(0)}})


def perceptron_data(rows: int, *, samples: int = SAMPLES, seed: int = 0) -> Dataset:
    """Random inputs whose target is the sine of their sum, and a random order for ``rows`` steps."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(0, 1, (samples, INPUTS)).astype(np.float32)
    targets = np.sin(inputs.sum(axis=1)).astype(np.float32)
    return Dataset(inputs, targets, order=rng.integers(0, samples, (rows, BATCH)))
