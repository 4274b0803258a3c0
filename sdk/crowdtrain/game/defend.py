"""What the defender answers: a pure function of the game and of the run that is defended."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crowdtrain_engine.trace import Replay

from crowdtrain.chain import Game, Phase
from crowdtrain.game import moves
from crowdtrain.game.positions import depth, piece_ends
from crowdtrain.game.trees import children, header_leaf, tree_in_dispute

__all__ = ["defend"]


def defend(game: Game, replay: Replay) -> moves.Move | None:
    """The defender's next move, or None if it is not their turn. ``replay`` is the run in dispute."""
    answer = _ANSWERS.get(game.phase)
    return answer(game, replay) if answer else None


def _trace(game: Game, replay: Replay) -> moves.Move:
    return moves.RevealTrace(game.id, game.position, replay.trace)


def _states(game: Game, replay: Replay) -> moves.Move:
    return moves.RevealStates(game.id, game.position, replay.states(game.first // game.interval + 1))


def _step(game: Game, replay: Replay) -> moves.Move:
    outputs = replay.step(game.first).outputs
    shown = outputs.children(outputs.height, 0, depth(outputs.height))
    return moves.RevealStep(game.id, game.position, header_leaf(replay.program), tuple(shown))


def _children(game: Game, replay: Replay) -> moves.Move:
    tree = tree_in_dispute(game, replay.step(game.first))
    return moves.RevealChildren(game.id, game.position, tuple(children(game, tree)))


def _page(game: Game, replay: Replay) -> moves.Move:
    return moves.RevealPage(game.id, game.position, replay.step(game.first).page(game.value, game.index))


def _partials(game: Game, replay: Replay) -> moves.Move:
    inner = piece_ends(game.from_, game.to)[:-1]
    step = replay.step(game.first)
    words = step.accumulators(game.value, game.word, inner, game.from_, game.accumulator)
    return moves.RevealPartials(game.id, game.position, b"".join(word.to_bytes(4, "big") for word in words))


_ANSWERS: Mapping[Phase, Callable[[Game, Replay], moves.Move]] = {
    Phase.REVEAL_TRACE: _trace,
    Phase.REVEAL_STATES: _states,
    Phase.REVEAL_STEP: _step,
    Phase.REVEAL_CHILDREN: _children,
    Phase.REVEAL_PAGE: _page,
    Phase.REVEAL_PARTIALS: _partials,
}
