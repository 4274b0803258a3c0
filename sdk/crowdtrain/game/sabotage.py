"""Ways to cheat, for tests and demonstrations: ``parse("gradient:12")`` is a solver's dishonesty.

Each does its work wrongly, commits to the wrong result consistently, and defends it as well as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from crowdtrain_engine import Dataset, Program
from crowdtrain_engine.merkle import leaf
from crowdtrain_engine.program import Nest
from crowdtrain_engine.trace import Deviation, RunNest, Words

from crowdtrain._errors import ConfigError
from crowdtrain.chain import Game, Phase
from crowdtrain.game.moves import Move, RevealChildren, RevealPage, RevealPartials, RevealStates, RevealStep

__all__ = ["MODES", "Sabotage", "WrongWord", "parse"]

_HIGH_MANTISSA_BIT = 22
_TRIES = 16


class Sabotage(Deviation):
    """A :class:`Deviation` that may also depart from the game. This base class plays as well as it can."""

    def answer(self, game: Game, move: Move | None) -> Move | None:
        """What is played where :func:`crowdtrain.game.defend` would play ``move``."""
        return move


@dataclass(frozen=True)
class WrongWord(Sabotage):
    """One bit of one word of a nest's output is flipped in one step; everything after follows from it.

    ``nest`` picks the number of the nest. Without ``word``, it is the largest whose change reaches the next
    state.
    """

    step_number: int
    nest: Callable[[Program], int]
    word: int | None = None
    bit: int = _HIGH_MANTISSA_BIT

    def acts(self, step: int) -> bool:
        return step == self.step_number

    def step(
        self, step: int, program: Program, values: list[Words], nest: RunNest
    ) -> tuple[list[Words], list[Words]]:
        number = self.nest(program)
        right = [values[value] for value in program.next]
        for word in self._candidates(program.nests[number], values[program.first_nest + number]):
            altered = self._altered(program, values, nest, number, word)
            following = [altered[value] for value in program.next]
            if any(not np.array_equal(a, b) for a, b in zip(right, following, strict=True)):
                break
        return altered, following

    def _candidates(self, nest: Nest, output: Words) -> list[int]:
        if self.word is not None:
            return [self.word]
        size = np.abs(output.view(nest.dtype.numpy).astype(np.float64))
        return [int(word) for word in np.argsort(-np.nan_to_num(size), kind="stable")[:_TRIES]]

    def _altered(
        self, program: Program, values: Sequence[Words], nest: RunNest, number: int, word: int
    ) -> list[Words]:
        """All values after ``word`` of nest ``number`` is changed; only nests after it are run again."""
        first = program.first_nest + number
        output = values[first].copy()
        output[word] ^= np.uint32(1 << self.bit)
        altered = [*values[:first], output]
        for later in range(number + 1, len(program.nests)):
            altered.append(nest(later, altered))
        return altered


@dataclass(frozen=True)
class OtherConstant(Sabotage):
    """The optimizer runs with another constant: the first of each nest that ends in a new parameter is
    doubled.
    """

    def program(self, program: Program) -> Program:
        nests = list(program.nests)
        for value in program.next[: program.groups[0]]:
            number = _constant_behind(program, value)
            if number is not None:
                nests[number] = _doubled(program.nests[number])
        return replace(program, nests=tuple(nests))


def _constant_behind(program: Program, value: int) -> int | None:
    """The last nest with an f32 constant on the way to ``value``."""
    number = value - program.first_nest
    while number >= 0:
        nest = program.nests[number]
        if any(map(_is_ordinary, nest.immediates)):
            return number
        number = max((read.value for read in nest.reads), default=0) - program.first_nest
    return None


def _is_ordinary(word: int) -> bool:
    """Whether a word is an f32 of ordinary size other than 1: a rate or a factor, not a flag or an index."""
    number = abs(float(np.uint32(word).view(np.float32)))
    return 1e-9 < number < 1e9 and number != 1


def _doubled(nest: Nest) -> Nest:
    words = list(nest.immediates)
    place = next(i for i, word in enumerate(words) if _is_ordinary(word))
    words[place] = int((np.uint32(words[place]).view(np.float32) * np.float32(2)).view(np.uint32))
    return replace(nest, immediates=tuple(words))


@dataclass(frozen=True)
class OtherOrder(Sabotage):
    """Every step reads the batch of the step before; the first reads the last one."""

    def data(self, data: Dataset) -> Dataset:
        name = "order" if "order" in data.tensors else list(data.tensors)[-1]
        return Dataset.from_tensors({**data.tensors, name: np.roll(data.tensors[name], 1, axis=0)})


@dataclass(frozen=True)
class Skip(Sabotage):
    """A step (or, without a number, every step) leaves the state as it is."""

    step_number: int | None

    def acts(self, step: int) -> bool:
        return self.step_number is None or step == self.step_number

    def step(
        self, step: int, program: Program, values: list[Words], nest: RunNest
    ) -> tuple[list[Words], list[Words]]:
        return values, values[: len(program.state)]


@dataclass(frozen=True)
class Garbage(Sabotage):
    """From a step on, every nest gives random words."""

    step_number: int

    def acts(self, step: int) -> bool:
        return step >= self.step_number

    def step(
        self, step: int, program: Program, values: list[Words], nest: RunNest
    ) -> tuple[list[Words], list[Words]]:
        rng = np.random.default_rng(step)
        first = program.first_nest
        noise = [rng.integers(0, 2**32, words.size, np.uint32) for words in values[first:]]
        values = [*values[:first], *noise]
        return values, [values[value] for value in program.next]


@dataclass(frozen=True)
class UnboundNext(Sabotage):
    """All nests of a step are right, but one word of the next state is not what they gave."""

    step_number: int

    def acts(self, step: int) -> bool:
        return step == self.step_number

    def step(
        self, step: int, program: Program, values: list[Words], nest: RunNest
    ) -> tuple[list[Words], list[Words]]:
        following = [values[value].copy() for value in program.next]
        following[0][-1] ^= np.uint32(1 << _HIGH_MANTISSA_BIT)
        return values, following


@dataclass(frozen=True)
class UnboundTrace(Sabotage):
    """The committed trace does not begin with the input."""

    def root(self, checkpoint: int, root: bytes) -> bytes:
        return leaf(root) if checkpoint == 0 else root


@dataclass(frozen=True)
class UnboundStates(WrongWord):
    """As the wrong word, but the states shown of the disputed interval do not end as was claimed."""

    def answer(self, game: Game, move: Move | None) -> Move | None:
        if isinstance(move, RevealStates):
            return replace(move, states=(*move.states[:-1], leaf(move.states[-1])))
        return move


@dataclass(frozen=True)
class Mismatch(WrongWord):
    """As the wrong word, but in ``phase`` something is shown that does not hash to what it should."""

    phase: Phase = Phase.REVEAL_CHILDREN

    def answer(self, game: Game, move: Move | None) -> Move | None:
        if game.phase is not self.phase:
            return move
        if isinstance(move, RevealChildren | RevealStep):
            return replace(move, children=tuple(map(leaf, move.children)))
        if isinstance(move, RevealPage):
            return replace(move, words=bytes(word ^ 1 for word in move.words))
        if isinstance(move, RevealPartials):
            return replace(move, partials=bytes(word ^ 1 for word in move.partials))
        return move


@dataclass(frozen=True)
class Silence(WrongWord):
    """As the wrong word, but from the first move in ``phase`` on nothing is answered."""

    phase: Phase = Phase.REVEAL_TRACE

    def answer(self, game: Game, move: Move | None) -> Move | None:
        return None if game.phase >= self.phase else move


def _loss(program: Program) -> int:
    """The nest that gives the first logged value, or else the middle one."""
    nests = [value - program.first_nest for value in program.logs if value >= program.first_nest]
    return nests[0] if nests else len(program.nests) // 2


def forward(program: Program) -> int:
    """A nest on the way to the loss: half way from the last one that reads the data."""
    state = len(program.state)
    loss = _loss(program)
    reading = [
        i
        for i, nest in enumerate(program.nests[: loss + 1])
        if any(state <= read.value < program.first_nest for read in nest.reads)
    ]
    start = reading[-1] if reading else 0
    chain = _behind(program, loss, start)
    return chain[len(chain) // 2]


def gradient(program: Program) -> int:
    """The gradient of the first parameter: a nest of its size, after the loss, on which its next value
    depends.

    The earliest that sums something; if none does, the earliest.
    """
    kind = program.state[0]
    following = program.next[0] - program.first_nest
    found = [
        i
        for i in _behind(program, following, 0)
        if program.nests[i].type.size == kind.size and program.nests[i].dtype is kind.dtype
    ]
    found = [i for i in found if i > _loss(program)] or found or [max(following, 0)]
    return next((i for i in found if program.nests[i].fold), found[0])


def optimizer(program: Program) -> int:
    """The nest that gives the first parameter's next value."""
    return max(program.next[0] - program.first_nest, 0)


def _behind(program: Program, nest: int, start: int) -> list[int]:
    """Nests from ``start`` on upon which ``nest`` depends, and itself, ascending."""
    needed = {nest}
    for i in range(nest, start - 1, -1):
        if i in needed:
            needed |= {read.value - program.first_nest for read in program.nests[i].reads}
    return sorted(i for i in needed if i >= max(start, 0)) or [max(nest, 0)]


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to cheat: what makes it, given a step from 0, and what it does in one line."""

    make: Callable[[int], Sabotage]
    description: str


MODES: Mapping[str, Mode] = {
    "forward": Mode(lambda step: WrongWord(step, forward), "one wrong word in a forward value"),
    "gradient": Mode(lambda step: WrongWord(step, gradient), "one wrong word in a gradient"),
    "optimizer": Mode(lambda step: WrongWord(step, optimizer), "one wrong word in the optimizer's result"),
    "learning-rate": Mode(lambda step: OtherConstant(), "the optimizer runs with another constant"),
    "skip": Mode(lambda step: Skip(step), "one step is skipped"),
    "order": Mode(lambda step: OtherOrder(), "steps read other batches"),
    "input": Mode(lambda step: Skip(None), "the input is returned as output"),
    "garbage": Mode(lambda step: Garbage(step), "random words instead of work"),
    "trace-ends": Mode(lambda step: UnboundTrace(), "the trace does not begin with the input"),
    "state-ends": Mode(lambda step: UnboundStates(step, gradient), "the states of an interval end elsewhere"),
    "next-state": Mode(lambda step: UnboundNext(step), "the next state is not what the step computed"),
    "mismatch": Mode(lambda step: Mismatch(step, gradient), "children that do not hash to their node"),
} | {
    f"silent-{phase.name.removeprefix('REVEAL_').lower()}": Mode(
        lambda step, phase=phase: Silence(step, gradient, phase=phase),  # type: ignore[misc]
        f"one wrong word, and silence instead of showing the {phase.name.removeprefix('REVEAL_').lower()}",
    )
    for phase in (
        Phase.REVEAL_TRACE,
        Phase.REVEAL_STATES,
        Phase.REVEAL_STEP,
        Phase.REVEAL_CHILDREN,
        Phase.REVEAL_PAGE,
        Phase.REVEAL_PARTIALS,
    )
}
"""Every way to cheat, by name."""


def parse(text: str) -> Sabotage:
    """The sabotage that ``NAME`` or ``NAME:STEP`` names; steps are counted from 1, and 1 is the default.

    Raises ConfigError for a name that is not in ``MODES``, or a step that is not a positive number.
    """
    name, colon, step = text.partition(":")
    if name not in MODES:
        raise ConfigError(f"there is no sabotage {name!r}; there are {', '.join(MODES)}")
    if colon and not (step.isascii() and step.isdigit() and int(step) > 0):
        raise ConfigError(f"{step!r} in sabotage {text!r} must be the number of a step, from 1")
    return MODES[name].make(int(step) - 1 if colon else 0)
