"""The reference interpreter: the meaning of a nest, written to be read.

It works on many output elements at once, but on each of them exactly as if it were alone: a fold is strictly
sequential, every operation is applied to words by :mod:`crowdtrain_engine.arithmetic`, nothing is reordered. Every
backend, and the Referee contract, must give the words that this module gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crowdtrain_engine import arithmetic
from crowdtrain_engine.ops import BY_CODE
from crowdtrain_engine.program import Axis, Index, Mode, Nest, Program, Read

__all__ = ["body", "fold", "reads", "run_nest", "run_step"]

Words = NDArray[np.uint32]
Positions = NDArray[np.int64]

_BLOCK = 1 << 16


def run_step(program: Program, values: Sequence[Words]) -> list[Words]:
    """All values of one step, from ``values``: the words of the state and data tensors, in order, flat."""
    out = list(values)
    for nest in program.nests:
        out.append(run_nest(nest, out))
    return out


def run_nest(nest: Nest, values: Sequence[Words]) -> Words:
    """The words of a nest's output, flat and row-major; ``values[i]`` holds the words of value ``i``, flat."""
    out = np.empty(nest.type.size, np.uint32)
    for start in range(0, out.size, _BLOCK):
        outputs = np.arange(start, min(start + _BLOCK, out.size))
        out[outputs] = fold(nest, values, outputs)
    return out


def fold(
    nest: Nest,
    values: Sequence[Words],
    outputs: Positions,
    start: int = 0,
    stop: int | None = None,
    accumulator: Words | None = None,
) -> Words:
    """The accumulators of the output elements ``outputs`` after fold iterations ``start … stop - 1``.

    ``outputs`` are flat row-major positions; ``accumulator`` their words before ``start`` (default: ``init``);
    ``stop`` defaults to the end. A nest without fold has one iteration, which ignores the accumulator.
    """
    acc = np.full(outputs.shape, nest.init, np.uint32) if accumulator is None else accumulator
    for r in range(start, nest.fold_length if stop is None else stop):
        operands = [words for words, _ in reads(nest, values, outputs, np.full_like(outputs, r))]
        acc = body(nest, acc, operands)
    return acc


def reads(
    nest: Nest, values: Sequence[Words], outputs: Positions, iterations: Positions
) -> list[tuple[Words, Positions]]:
    """What every operand is for output element ``outputs[i]`` in fold iteration ``iterations[i]``.

    For each operand its words, and the flat positions that they are read from: -1 where nothing is read, because
    the operand is a loop's index, or out of range and so the fill word.
    """
    loops = [*_unravel(outputs, nest.outer), *_unravel(iterations, nest.fold)]
    found: list[tuple[Words, Positions]] = []
    for operand in nest.operands:
        if isinstance(operand, Index):
            found.append((loops[operand.loop].astype(np.uint32), np.full_like(outputs, -1)))
        else:
            earlier = [words for words, _ in found]
            found.append(_read(operand, values[operand.value], loops, earlier, outputs.shape))
    return found


def _unravel(flat: Positions, shape: tuple[int, ...]) -> list[Positions]:
    return list(np.unravel_index(flat, shape)) if shape else []


def _read(
    read: Read, tensor: Words, loops: list[Positions], operands: list[Words], count: tuple[int, ...]
) -> tuple[Words, Positions]:
    flat, inside = np.zeros(count, np.int64), np.ones(count, bool)
    for axis in read.axes:
        position, exact = _position(axis, loops, operands, count)
        here = exact & (position >= 0) & (position < axis.size)
        flat, inside = flat * axis.size + np.where(here, position, 0), inside & here
    return np.where(inside, tensor[flat], np.uint32(read.fill)), np.where(inside, flat, -1)


def _position(
    axis: Axis, loops: list[Positions], operands: list[Words], count: tuple[int, ...]
) -> tuple[Positions, NDArray[np.bool_]]:
    exact = np.ones(count, bool)
    if axis.mode is Mode.GATHER:
        return operands[axis.operand].astype(np.int64), exact
    position = np.full(count, axis.offset, np.int64)
    for loop, coefficient in axis.terms:
        position += coefficient * loops[loop]
    if axis.mode is Mode.EXACT:
        exact = position % axis.divisor == 0
    return position // axis.divisor, exact


def body(nest: Nest, accumulator: Words, operands: Sequence[Words]) -> Words:
    """The accumulators (without fold: the outputs) after one iteration with these operands."""
    words = [accumulator, *operands, *(np.asarray(word, np.uint32) for word in nest.immediates)]
    for ins in nest.body:
        op = BY_CODE[ins.code]
        words.append(arithmetic.evaluate(op.name, *(words[ref] for ref in (ins.a, ins.b, ins.c)[: op.arity])))
    return np.broadcast_to(words[nest.result], accumulator.shape)
