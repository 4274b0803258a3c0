"""The valid nests, and the valid program around them, that make the moves of a dispute dearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from contracts.openings import Words
from crowdtrain_engine import Axis, DType, Instruction, Mode, Nest, Program, Read, State, TensorType
from crowdtrain_engine.ops import BY_NAME
from crowdtrain_engine.program import MAX_GROUPS, MAX_HEADER, MAX_TENSORS

__all__ = [
    "DEEPER_PROOFS",
    "dearest_nest",
    "dearest_program",
    "dearest_state",
    "dearest_tensors",
    "longest_nest",
]

_WORDS = 1 << 18
_STRIDE = 70_001
DEEPER_PROOFS = 64 * (23 - 10) * 900
"""gas: a tensor may have 2^23 pages, those of :func:`dearest_tensors` have 2^10"""


def dearest_nest(values: Sequence[int]) -> Nest:
    """32 sines and 96 products, over 4 iterations, each of which reads another page of each of the 16 ``values``, at
    positions along 8 axes that depend on 16 loops.
    """
    unit = tuple((loop, 1) for loop in range(16))
    axes = (
        *(Axis(1, unit, mode=Mode.FLOOR, divisor=2**31 - 1) for _ in range(7)),
        Axis(_WORDS, (*unit[:15], (15, 2 * _STRIDE)), mode=Mode.FLOOR, divisor=2),
    )
    operands = tuple(Read(value, axes) for value in values)
    body = [Instruction(BY_NAME["sin"].code, 1 + i % 16) for i in range(32)]
    body += [Instruction(BY_NAME["fmul"].code, 1 + i % 16, 1) for i in range(95)]
    body.append(Instruction(BY_NAME["ffma"].code, 1 + 16 + 64, 1, 0))
    result = 16 + 64 + len(body)
    return Nest(DType.f32, (1,) * 8, operands, tuple(body), result, (*[1] * 7, 4), 0, (2**32 - 1,) * 64)


def dearest_tensors() -> list[Words]:
    """The 16 tensors for :func:`dearest_nest`: of the word whose sine is the dearest of some thousand tried."""
    return [np.full(_WORDS, 0x2B86187C, np.uint32) for _ in range(16)]


def longest_nest(value: int) -> Nest:
    """The longest encoding of a nest, of one word, that reads ``value``, of one word."""
    axis = Axis(1, tuple((loop, 2**31 - 1) for loop in range(16)), 2**31 - 1, Mode.FLOOR, 2**32 - 1)
    body = (Instruction(BY_NAME["iadd"].code, 1, 1),) * 128
    read = Read(value, (axis,) * 8)
    return Nest(DType.f32, (1,) * 8, (read,) * 16, body, 1, (1,) * 8, 0, (2**32 - 1,) * 64)


def dearest_program() -> Program:
    """A program at every bound: bytes, groups and tensors, with more nests than are shown at once.

    Nest 0 is :func:`dearest_nest` of the last 16 tensors, whose proofs are the longest; nests 1 and 2 are
    :func:`longest_nest` of what the nest before gave. The first tensor becomes nest 0's output, the last before those
    16 nest 1's.
    """
    word, large = TensorType(DType.f32, (1,)), TensorType(DType.f32, (_WORDS,))
    scalar = TensorType(DType.u32, ())
    few = MAX_TENSORS - 17
    groups = (*[1] * (MAX_GROUPS - 1), MAX_TENSORS - MAX_GROUPS + 1)
    used = 16 + 2 * MAX_GROUPS + 6 * MAX_TENSORS + 4 * 17
    spare = (MAX_HEADER - used) // 4 - 1
    kinds = [word, *[TensorType(DType.u32, (255,))] * spare, *[scalar] * (few - spare - 1), word]
    first = MAX_TENSORS
    following = [*range(first)]
    following[0], following[few] = first, first + 1
    copy = Nest(DType.f32, (1,), (Read(first, (Axis(1),)),), (), 1)
    return Program(
        groups,
        (*kinds, *[large] * 16),
        (),
        (dearest_nest(range(first - 16, first)), longest_nest(first), longest_nest(first + 1), *[copy] * 300),
        tuple(following),
    )


def dearest_state(program: Program) -> State:
    """The state from which its step is run: :func:`dearest_tensors` at the end, zeros before."""
    zeros = [np.zeros(kind.shape, kind.dtype.numpy) for kind in program.state[:-16]]
    given = zip(dearest_tensors(), program.state[-16:], strict=True)
    return State.from_tensors(program, [*zeros, *(words.view(kind.dtype.numpy) for words, kind in given)])
