"""Dishonest challengers against a solver's process on anvil: each loses the bond, and the work is paid."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crowdtrain._errors import Refused
from crowdtrain.chain import GameId, Phase, Reason, SegmentKey, SegmentState
from crowdtrain.game import CHALLENGER_PHASES, Move, attack
from crowdtrain.game.sabotage import parse
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine.trace import Machine, Replay
from town import CLOCK, MONEY, PAY, STAKE, WINDOW, Town

STEPS, INTERVAL = 4, 2
ENDS = {
    "forward": Reason.RIGHT_WORD,
    "gradient": Reason.RIGHT_WORD,
    "optimizer": Reason.RIGHT_WORD,
    "garbage": Reason.RIGHT_WORD,
    "learning-rate": Reason.RIGHT_WORD,
    "next-state": Reason.BINDING_HOLDS,
    "skip": Reason.BINDING_HOLDS,
    "input": Reason.BINDING_HOLDS,
    "order": Reason.TIMEOUT,
}
"""What a challenger says is right though it is not, so that it picks what is right as wrong, at other places
each time; and how its dispute ends. Other data cannot be proved, so that challenger gets stuck."""
NO_GAME = GameId(0)
SILENCES = (Phase.PICK_CHECKPOINT, Phase.PICK_CHILD, Phase.PICK_PARTIAL, Phase.PROVE)


@dataclass
class Attacker:
    """A challenger who makes the moves that its lie demands, and none from ``silence`` on."""

    chain: Web3Chain
    lie: Replay
    silence: Phase = Phase.OVER
    game: GameId = NO_GAME
    stuck: bool = False

    def move(self) -> bool:
        """Makes a move if it is its turn; whether anything is still to be expected of it."""
        game = self.chain.game(self.game)
        if game.phase is Phase.OVER or self.stuck:
            return False
        if game.phase in CHALLENGER_PHASES:
            self.stuck = game.phase >= self.silence or not self._send(attack(game, self.lie))
        return True

    def _send(self, move: Move | None) -> bool:
        with suppress(Refused):
            return move is not None and bool(move.send(self.chain))
        return False


def move_all(attackers: Iterable[Attacker]) -> bool:
    """Lets each of them move; whether anything is still to be expected of one."""
    return max([attacker.move() for attacker in attackers])


def lie_of(town: Town, mode: str) -> Replay:
    """What a challenger says is the right run."""
    machine = Machine(town.program, town.data, backend="reference", deviation=parse(f"{mode}:2"))
    return Replay.run(machine, town.state, steps=STEPS, interval=INTERVAL)


def test_dishonest_challengers_lose(tmp_path: Path) -> None:
    with Town(tmp_path, people=len(ENDS) + len(SILENCES) + 2) as town:
        job = town.post(steps=STEPS, interval=INTERVAL)
        town.start("solver", "ada", job=job)
        town.wait(lambda: town.segment(job).state is SegmentState.COMMITTED, 60, "the work")
        attackers = {mode: Attacker(town.account(mode), lie_of(town, mode)) for mode in ENDS}
        honest_lie = lie_of(town, "gradient")
        attackers |= {phase.name: Attacker(town.account(phase.name), honest_lie, phase) for phase in SILENCES}
        for attacker in attackers.values():
            attacker.chain.deposit(STAKE)
            sealed = town.segment(job).seal
            attacker.game, _ = attacker.chain.challenge(
                SegmentKey(job, 0), town.plans[job].segments[0], sealed
            )
        town.devnet.advance(WINDOW // 2 + 1)
        town.wait(lambda: not move_all(attackers.values()), 300, "the attackers' last moves")
        town.devnet.advance(CLOCK + 1)
        town.wait(lambda: town.segment(job).games == 0, 60, "the end of all disputes")
        ends = {name: attacker.chain.game(attacker.game).reason for name, attacker in attackers.items()}
        assert ends == {name: ENDS.get(name, Reason.TIMEOUT) for name in attackers}
        assert all(town.worth(name) == MONEY - STAKE for name in attackers)
        town.devnet.advance(WINDOW + 1)
        town.wait(lambda: town.segment(job).state is SegmentState.SETTLED, 60, "the pay")
        assert town.worth("ada") == MONEY + PAY + len(attackers) * (STAKE // 2)
