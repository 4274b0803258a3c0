"""What the challenger answers: a pure function of the game and of the challenger's own run.

At each level the challenger picks the first thing that is wrong, so that everything before it is agreed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from crowdtrain_engine import merkle, reference
from crowdtrain_engine.program import Read
from crowdtrain_engine.trace import Replay, Step

from crowdtrain.chain import Game, PageOpening, Phase, Tree
from crowdtrain.game import moves
from crowdtrain.game.positions import depth, piece_ends
from crowdtrain.game.trees import (
    NO_LEAF,
    children,
    header_leaf,
    nest_leaf,
    pair,
    tree_in_dispute,
    value_proof,
)

__all__ = ["attack"]


def attack(game: Game, replay: Replay) -> moves.Move | None:
    """The challenger's next move, or None if it is not the challenger's turn, or nothing shown is wrong.

    ``replay`` is the challenger's own, honest run. The games that it wins are those that it has led from
    the start.
    """
    answer = _ANSWERS.get(game.phase)
    return answer(game, replay) if answer else None


def _first_difference(shown: Sequence[object], own: Sequence[object]) -> int | None:
    return next((i for i, (theirs, ours) in enumerate(zip(shown, own, strict=True)) if theirs != ours), None)


def _checkpoint(game: Game, replay: Replay) -> moves.Move | None:
    i = _first_difference(game.shown, replay.trace)
    return moves.PickCheckpoint(game.id, game.position, *pair(game, i)) if i else None


def _step(game: Game, replay: Replay) -> moves.Move | None:
    i = _first_difference(game.shown, replay.states(game.first // game.interval + 1))
    return moves.PickStep(game.id, game.position, *pair(game, i)) if i else None


def _child(game: Game, replay: Replay) -> moves.Move | None:
    program, step = replay.program, replay.step(game.first)
    own = tree_in_dispute(game, step)
    shown = game.shown
    if game.tree is Tree.GROUPS and game.height == 0:
        shown = (game.node,)
    child = _first_difference(shown, children(game, own))
    if child is None:
        at_root = game.tree is Tree.NESTS and game.height == own.height
        return moves.DisputeNext(game.id, game.position, header_leaf(program)) if at_root else None
    below = depth(game.height)
    index = (game.index << below) + child
    leaf = NO_LEAF
    if game.height == below and index < game.count:
        if game.tree is Tree.NESTS:
            leaf = nest_leaf(program, index)
        if game.tree is Tree.GROUPS:
            leaf = header_leaf(program)
    proof = tuple(merkle.Tree(shown).proof(child))
    return moves.PickChild(game.id, game.position, child, shown[child], proof, leaf)


def _word(game: Game, replay: Replay) -> moves.Move | None:
    own = replay.step(game.first).page(game.value, game.index)
    word = _first_difference(_words(game.page), _words(own))
    return None if word is None else moves.PickWord(game.id, game.position, word, game.page)


def _words(page: bytes) -> list[bytes]:
    return [page[i : i + 4] for i in range(0, len(page), 4)]


def _partial(game: Game, replay: Replay) -> moves.Move:
    inner = piece_ends(game.from_, game.to)[:-1]
    step = replay.step(game.first)
    own = step.accumulators(game.value, game.word, inner, game.from_, game.accumulator)
    piece = _first_difference(game.partials, own)
    partials = b"".join(word.to_bytes(4, "big") for word in game.partials)
    return moves.PickPartial(game.id, game.position, len(inner) if piece is None else piece, partials)


def _prove(game: Game, replay: Replay) -> moves.Move:
    program, step = replay.program, replay.step(game.first)
    number = game.value - program.first_nest
    pages = _pages_read(game, step, number)
    values = sorted(pages)
    return moves.Prove(
        game.id,
        game.position,
        header_leaf(program),
        nest_leaf(program, number),
        tuple(value_proof(game, step, value) for value in values),
        tuple(
            PageOpening(operand, index, step.page(value, index), tuple(step.pages(value).proof(index)))
            for operand, value in enumerate(values)
            for index in sorted(pages[value])
        ),
    )


def _pages_read(game: Game, step: Step, number: int) -> dict[int, set[int]]:
    """Pages that the stretch in dispute reads, of each value from which it reads any."""
    nest = step.program.nests[number]
    iterations = np.arange(game.from_, game.to)
    reads = reference.reads(nest, step.values, np.full_like(iterations, game.word), iterations)
    pages: dict[int, set[int]] = {}
    for operand, (_, positions) in zip(nest.operands, reads, strict=True):
        if isinstance(operand, Read):
            for position in positions[positions >= 0]:
                pages.setdefault(operand.value, set()).add(int(position) // merkle.PAGE_WORDS)
    return pages


def _prove_next(game: Game, replay: Replay) -> moves.Move:
    program, step = replay.program, replay.step(game.first)
    proof = value_proof(game, step, program.next[game.value])
    return moves.ProveNext(game.id, game.position, header_leaf(program), proof)


_ANSWERS: Mapping[Phase, Callable[[Game, Replay], moves.Move | None]] = {
    Phase.PICK_CHECKPOINT: _checkpoint,
    Phase.PICK_STEP: _step,
    Phase.PICK_CHILD: _child,
    Phase.PICK_WORD: _word,
    Phase.PICK_PARTIAL: _partial,
    Phase.PROVE: _prove,
    Phase.PROVE_NEXT: _prove_next,
}
