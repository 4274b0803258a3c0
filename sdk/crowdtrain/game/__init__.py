"""The dispute game, for both players: positions, moves, and what to answer (docs/PROTOCOL.md, "The dispute
game").

move = defend(game, replay)      # or attack(game, replay)
if move is not None:
    move.send(chain)
"""

from crowdtrain.game.attack import attack
from crowdtrain.game.defend import defend
from crowdtrain.game.flaws import Flaw, find_flaw, split_leaves
from crowdtrain.game.judge import judge_locally, spot_check, worth_challenging
from crowdtrain.game.moves import Move
from crowdtrain.game.narration import narrate
from crowdtrain.game.positions import CHALLENGER_PHASES, DEFENDER_PHASES, transactions

__all__ = [
    "CHALLENGER_PHASES",
    "DEFENDER_PHASES",
    "Flaw",
    "Move",
    "attack",
    "defend",
    "find_flaw",
    "judge_locally",
    "narrate",
    "split_leaves",
    "spot_check",
    "transactions",
    "worth_challenging",
]
