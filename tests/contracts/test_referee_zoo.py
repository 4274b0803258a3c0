"""The Referee judges the nests of every model of the zoo: stretches of folds, as the last move of a dispute
opens them, against the words of the engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from contracts.openings import Words, arguments
from contracts.referee import Call, Referee
from crowdtrain_engine import Executor, Index, Nest, reference
from crowdtrain_engine.program import Operand
from crowdtrain_engine.trace import accumulators
from numpy.typing import NDArray
from zoo import ZOO
from zoo.lowered import lowered

STRETCH = 4
"""iterations that the Referee is given at most"""
MOST_GAS = 1_000_000
"""of any such call in the zoo; docs/PROPERTIES.md says so. A transaction may take 2^24 (EIP-7825)."""
BATCH = 40


# --------------------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Question:
    """A call of the Referee, the word that it must give, and what it is about, for people."""

    call: Call
    expected: int
    about: str


def structure(nest: Nest) -> Hashable:
    """What the Referee sees of a nest besides extents, coefficients, and which values it reads."""
    length = nest.fold_length
    fold = (len(nest.fold), length > 1, length > STRETCH, length % STRETCH != 0, nest.init)
    operands = tuple(map(_operand, nest.operands))
    return len(nest.outer), fold, operands, nest.immediates, nest.body, nest.result


def _operand(operand: Operand) -> Hashable:
    if isinstance(operand, Index):
        return operand
    axes = tuple((axis.mode, axis.operand, axis.offset != 0, len(axis.terms)) for axis in operand.axes)
    return operand.fill, axes


def questions(
    nest: Nest, values: Sequence[Words], right: Words, most: int, rng: random.Random, about: str
) -> Iterator[Question]:
    """Stretches of the fold of at most ``most`` words. ``right`` is what the engine gave for the nest."""
    for output, iteration in _places(nest, values, most, rng):
        start = iteration - iteration % STRETCH
        stop = min(start + STRETCH, nest.fold_length)
        before, after = accumulators(nest, values, output, [start, stop])
        expected = int(right[output]) if stop == nest.fold_length else after
        call = "evaluate", arguments(nest, values, output, start, stop, before)
        yield Question(call, expected, f"{about}: word {output}, iterations {start} to {stop}")


def _places(nest: Nest, values: Sequence[Words], most: int, rng: random.Random) -> list[tuple[int, int]]:
    """Output words, each with a fold iteration: the ends, then those whose operands are special in a way that
    those before are not, then any.
    """
    word, last = nest.type.size - 1, nest.fold_length - 1
    candidates = [(0, 0), (word, last), (0, last), (word, 0)]
    candidates += [(rng.randint(0, word), rng.choice([0, last, rng.randint(0, last)])) for _ in range(60)]
    outputs, iterations = (np.array(column) for column in zip(*candidates, strict=True))
    reads = reference.reads(nest, values, outputs, iterations)
    kinds = np.array([_kinds(*read) for read in reads]).reshape(len(reads), len(candidates))
    news = first_of_each(kinds.T, lambda column: tuple(column.tolist()))
    order = [0, 1, *news, *range(len(candidates))]
    return list(dict.fromkeys(candidates[number] for number in order))[:most]


def _kinds(read: Words, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is special about each word of an operand: filled in, zero, subnormal, huge, no number."""
    exponent = read >> 23 & 0xFF
    return np.select(
        [positions < 0, read << 1 == 0, exponent == 0, exponent == 0xFF, read >> 31 == 1], [1, 2, 3, 4, 5], 0
    )


def first_of_each(items: Iterable[Any], key: Callable[[Any], Hashable]) -> list[int]:
    """Numbers of the items whose key no earlier one has."""
    first: dict[Hashable, int] = {}
    for number, item in enumerate(items):
        first.setdefault(key(item), number)
    return list(first.values())


# --------------------------------------------------------------------------- tests


def _judge(referee: Referee, name: str, numbers: Iterable[int], most: int) -> None:
    """Compares words, and sends what takes the most gas in a transaction."""
    program, state, data = lowered(name)
    executor = Executor(program, state, data)
    executor.run(2)  # moments of the optimizer, running statistics and counters are no longer zero
    values = executor.values()
    rng = random.Random(name)
    asked = [
        question
        for number in numbers
        for question in questions(
            program.nests[number], values, values[program.first_nest + number], most, rng,
            f"{name}, nest {number} ({program.labels.nests[number]})",
        )
    ]  # fmt: skip
    answers = [
        answer
        for start in range(0, len(asked), BATCH)
        for answer in referee.answers([question.call for question in asked[start : start + BATCH]])
    ]
    for question, answer in zip(asked, answers, strict=True):
        assert answer.result == (question.expected,), question.about
    dearest, _ = max(zip(asked, answers, strict=True), key=lambda pair: pair[1].gas)
    gas = _send(referee, dearest.call)
    print(f"{len(asked)} words of {name}, at most {gas:,} gas ({dearest.about})")


def _send(referee: Referee, call: Call) -> int:
    """Gas of a transaction that makes this call."""
    web3, (name, args) = referee.contract.w3, call
    sent = referee.contract.functions[name](*args).transact({"from": web3.eth.accounts[0], "gas": MOST_GAS})
    receipt = web3.eth.wait_for_transaction_receipt(sent)
    assert receipt["status"] == 1
    return receipt["gasUsed"]


@pytest.mark.parametrize("name", ZOO)
def test_every_structure_of_a_nest(referee: Referee, name: str) -> None:
    _judge(referee, name, first_of_each(lowered(name).program.nests, structure), most=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_every_nest(referee: Referee, name: str) -> None:
    _judge(referee, name, range(len(lowered(name).program.nests)), most=40)
