"""The last step judged off chain: what the Referee would compute, and whether a challenge is worth its
bond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from crowdtrain_engine import merkle, reference
from crowdtrain_engine.program import Nest, Read
from crowdtrain_engine.trace import Replay, Step, seal, trace_root
from numpy.typing import NDArray

from crowdtrain._errors import CrowdtrainError
from crowdtrain.chain import Address, Game
from crowdtrain.game.moves import Prove

__all__ = ["MissingPageError", "evaluate", "judge_locally", "spot_check", "worth_challenging"]

Words = NDArray[np.uint32]
Pages = Mapping[int, bytes]
"""Opened pages of a tensor, by number."""


class MissingPageError(CrowdtrainError):
    """A word is read from page ``page`` of value ``value``, which is not opened."""

    def __init__(self, value: int, page: int) -> None:
        super().__init__(f"page {page} of value {value} is read and not opened")
        self.value = value
        self.page = page


class _Opened:
    """A tensor of which only some pages are known; the words of others read as 0."""

    def __init__(self, pages: Pages) -> None:
        self._pages = {index: np.frombuffer(words, "<u4") for index, words in pages.items()}

    def __getitem__(self, positions: NDArray[np.int64]) -> Words:
        zeros = np.zeros(merkle.PAGE_WORDS, np.uint32)
        pairs = (divmod(int(position), merkle.PAGE_WORDS) for position in positions)
        return np.array([self._pages.get(page, zeros)[word] for page, word in pairs], np.uint32)


def evaluate(
    nest: Nest, opened: Mapping[int, Pages], word: int, start: int, stop: int, accumulator: int
) -> int:
    """Output ``word`` after fold iterations ``start … stop - 1`` from ``accumulator``, from opened pages by
    value.

    Raises MissingPageError if a page that is read is not opened.
    """
    values = cast("Sequence[Words]", _Values({value: _Opened(pages) for value, pages in opened.items()}))
    iterations = np.arange(start, stop)
    reads = reference.reads(nest, values, np.full_like(iterations, word), iterations)
    for operand, (_, positions) in zip(nest.operands, reads, strict=True):
        if isinstance(operand, Read):
            for page in {int(position) // merkle.PAGE_WORDS for position in positions if position >= 0}:
                if page not in opened.get(operand.value, {}):
                    raise MissingPageError(operand.value, page)
    output, first = np.array([word]), np.array([accumulator], np.uint32)
    return int(reference.fold(nest, values, output, start, stop, first)[0])


class _Values:
    """Values by number; one that is not there has no pages."""

    def __init__(self, tensors: Mapping[int, _Opened]) -> None:
        self._tensors = tensors

    def __getitem__(self, value: int) -> _Opened:
        return self._tensors.get(value, _Opened({}))


def judge_locally(game: Game, move: Prove) -> bool:
    """Whether the Referee would find for the challenger, from nothing but what ``move`` opens."""
    opened: dict[int, dict[int, bytes]] = {proof.value: {} for proof in move.values}
    for page in move.pages:
        opened[move.values[page.operand].value][page.index] = page.words
    computed = evaluate(Nest.decode(move.nest.data), opened, game.word, game.from_, game.to, game.accumulator)
    return computed != game.claimed


def worth_challenging(replay: Replay, solver: Address, group_roots: Sequence[bytes], sealed: bytes) -> bool:
    """Whether a commitment differs from one's own run: in the output, or in the trace behind the seal."""
    own = seal(trace_root(replay.trace), bytes.fromhex(solver[2:]))
    return merkle.root(group_roots) != replay.trace[-1] or sealed != own


def spot_check(replay: Replay, step: int, *, iterations: int = 20_000) -> list[int]:
    """Nests of step ``step`` in which one's own run is wrong: one word of each, computed as the Referee
    would.

    To be done before a bond is paid, so that a fault of one's own machine does not cost it. The word is
    chosen by the step's commitment; shorter folds come first, until ``iterations`` fold iterations are
    spent.
    """
    own = replay.step(step)
    wrong = []
    for number in sorted(range(len(own.nests)), key=lambda i: own.nests[i].fold_length):
        nest = own.nests[number]
        iterations -= nest.fold_length
        if iterations < 0:
            break
        word = int.from_bytes(own.outputs.root, "big") % nest.type.size
        if _word(own, number, word) != int(own.values[replay.program.first_nest + number][word]):
            wrong.append(number)
    return wrong


def _word(step: Step, number: int, word: int) -> int:
    nest = step.nests[number]
    return step.accumulators(step.program.first_nest + number, word, [nest.fold_length])[0]
