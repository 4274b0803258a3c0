"""Where in a claim the players stand: levels of trees, pieces of folds, and how long a dispute can be."""

from __future__ import annotations

from crowdtrain_engine import merkle
from crowdtrain_engine.program import Program

from crowdtrain.chain import Phase

__all__ = [
    "CHALLENGER_PHASES", "DEFENDER_PHASES", "PIECES", "REFEREE", "depth", "fan_out", "is_short", "piece_ends",
    "transactions",
]  # fmt: skip

LEVELS = 8
REFEREE = 4
PIECES = 4096

DEFENDER_PHASES = frozenset(
    {
        Phase.REVEAL_TRACE,
        Phase.REVEAL_STATES,
        Phase.REVEAL_STEP,
        Phase.REVEAL_CHILDREN,
        Phase.REVEAL_PAGE,
        Phase.REVEAL_PARTIALS,
    }
)
"""Phases in which the defender's move is awaited."""

CHALLENGER_PHASES = frozenset(Phase) - DEFENDER_PHASES - {Phase.NONE, Phase.OVER}
"""Phases in which the challenger's is."""


def depth(height: int) -> int:
    """How far below a node ``height`` levels above the leaves its shown children stand."""
    return min(LEVELS, height)


def fan_out(height: int) -> int:
    """How many children of such a node are shown at once."""
    return 1 << depth(height)


def piece_ends(start: int, stop: int) -> list[int]:
    """Where the pieces of the stretch ``start … stop - 1`` of a fold end: ascending, ``stop`` last.

    Pieces have 4 · 4096^k iterations, with the smallest k that makes at most 4,096 of them.
    """
    size = REFEREE
    while stop - start > size * PIECES:
        size *= PIECES
    return [*range(start + size, stop, size), stop]


def is_short(start: int, stop: int) -> bool:
    """Whether the Referee can compute this stretch of a fold at once."""
    return stop - start <= REFEREE


def transactions(program: Program, nest: int) -> int:
    """Transactions of the longest dispute that ends in a word of nest number ``nest``, the challenge
    included.
    """
    kind = program.nests[nest]
    levels = _levels(len(program.nests)) or 1
    levels += _levels(merkle.page_count(kind.type.size))
    length = kind.fold_length
    while not is_short(0, length):
        levels += 1
        length = piece_ends(0, length)[0]
    # challenge, trace, checkpoint, states, step, page, word, proof; and two for all that is shown and picked
    return 8 + 2 * levels


def _levels(leaves: int) -> int:
    return -(-merkle.height(leaves) // LEVELS)
