"""Solver and verifier are killed at random moments, again and again: nothing is lost or sent twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowdtrain._rpc import Node
from crowdtrain.chain import Game, Phase, Reason, SegmentKey, SegmentState
from crowdtrain.game import attack
from crowdtrain.game.sabotage import parse
from crowdtrain.statement import statement
from crowdtrain_engine import execute
from crowdtrain_engine.trace import Machine, Replay
from town import MONEY, PAY, PRICE, STAKE, WINDOW, Town

SEED = 7
KILLS = 4
"""of each"""
STEPS, INTERVAL, SEGMENTS = 24, 3, 2


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as town:
        yield town


def calls(node: Node, sender: str) -> Counter[tuple[str, str]]:
    """How often an account made each call, by target and data; every one of them must have succeeded."""
    made: Counter[tuple[str, str]] = Counter()
    last = int(str(node.request("eth_blockNumber")), 16)
    for number in range(last + 1):
        block = node.request("eth_getBlockByNumber", hex(number), True)
        assert isinstance(block, dict)
        for transaction in block["transactions"]:
            if transaction["from"].lower() == sender.lower():
                receipt = node.request("eth_getTransactionReceipt", transaction["hash"])
                assert isinstance(receipt, dict)
                assert receipt["status"] == "0x1", transaction
                made[transaction["to"].lower(), transaction["input"]] += 1
    return made


def starts(town: Town, name: str) -> int:
    """How often a process of this name got as far as its first look at the chain."""
    return (town.folder / name / "output").read_text().count(" started")


class Victim:
    """A process that is killed at random moments, and started again with the same folder."""

    def __init__(self, town: Town, rng: random.Random, role: str, name: str, *arguments: str) -> None:
        self._town, self._rng = town, rng
        self._how = (role, name, *arguments)
        self.name, self.kills = name, 0
        self._start()

    def _start(self) -> None:
        self._seen = starts(self._town, self.name) if self.kills else 0
        self._town.start(*self._how)
        self._until: float | None = None

    def suffer(self) -> None:
        """Kills and starts the process if its time has come."""
        if self.kills == KILLS:
            return
        if self._until is None:
            if starts(self._town, self.name) > self._seen:
                self._until = time.monotonic() + self._rng.uniform(0, 2)
        elif time.monotonic() > self._until:
            self._town.kill(self.name)
            self.kills += 1
            self._start()


class Liar:
    """A dishonest challenger of honest work, moved by the test itself."""

    def __init__(self, town: Town, key: SegmentKey) -> None:
        self._chain = town.account("eve")
        self._chain.deposit(STAKE)
        sealed = self._chain.segment(key).seal
        self._id, _ = self._chain.challenge(key, town.plans[key.job].segments[key.index], sealed)
        machine = Machine(town.program, town.data, backend="reference", deviation=parse("gradient:5"))
        steps = town.plans[key.job].segments[key.index].steps
        self._lie = Replay.run(machine, town.state, steps=steps, interval=INTERVAL)

    @property
    def game(self) -> Game:
        """The dispute as it stands."""
        return self._chain.game(self._id)

    def move(self) -> None:
        """Moves if it is the challenger's turn."""
        move = attack(self.game, self._lie)
        if move is not None:
            move.send(self._chain)


def test_kills_at_random_moments_cost_nothing(town: Town) -> None:
    rng = random.Random(SEED)
    audits = {"audit_rate": 40_000, "audit_share": 10_000}
    honest = town.post(segments=SEGMENTS, steps=STEPS, interval=INTERVAL, **audits)
    cheated = town.post(steps=6, interval=INTERVAL)
    # what two settle at the same time, one of them would send for nothing
    vera = Victim(town, rng, "verifier", "vera", "--no-tidy", "--enroll", str(STAKE))
    town.wait(lambda: town.buyer.total_weight() == STAKE, 60, "the enrolment")
    # slow enough to be killed while it works
    ada = Victim(town, rng, "solver", "ada", "--job", str(honest), "--backend", "reference")
    town.start("solver", "mallory", "--sabotage", "gradient:4", job=cheated)

    def suffer_until_attested() -> bool:
        ada.suffer()
        vera.suffer()
        cheat_is_done = town.segment(cheated).state is SegmentState.COMMITTED
        return cheat_is_done and len(town.events("Attested", job=honest)) == SEGMENTS

    town.wait(suffer_until_attested, 300, "honest work and its audit under kills")
    liar = Liar(town, SegmentKey(honest, 0))
    town.devnet.advance(WINDOW // 2 + 1)  # games begin

    def suffer_until_decided() -> bool:
        ada.suffer()
        vera.suffer()
        liar.move()
        decided = liar.game.phase is Phase.OVER and bool(town.events("Overturned", job=cheated))
        return decided and ada.kills == vera.kills == KILLS

    town.wait(suffer_until_decided, 300, "two disputes under kills")
    town.wait(lambda: min(starts(town, v.name) - v.kills for v in (ada, vera)) > 0, 60, "the last start")
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: town.buyer.job(honest).settled == SEGMENTS, 60, "the pay")
    for name in ("ada", "vera"):
        town.wait(lambda: town.buyer.owed(town.address(name)) == 0, 60, "the withdrawal of the pay")  # noqa: B023
    assert ada.kills == vera.kills == KILLS
    town.stop("ada")
    town.stop("vera")

    assert liar.game.reason is Reason.RIGHT_WORD
    assert town.worth("ada") == MONEY + SEGMENTS * PAY + STAKE // 2
    assert town.worth("vera") == MONEY + STAKE // 2 + SEGMENTS * PRICE
    for name in ("ada", "vera", "mallory", "eve", "buyer"):
        statement(town.buyer, town.address(name)).check()
    right, _ = execute(town.program, town.state, town.data, steps=STEPS, backend="reference")
    assert town.segment(honest, SEGMENTS - 1).output_root == right.root
    for name in ("ada", "vera"):
        made = calls(town.devnet.node, town.address(name))
        # stake is approved and deposited once for each lock; nothing else is ever the same call
        again = {call for call, count in made.items() if count > 1}
        deployed = town.devnet.deployment
        assert {target for target, _ in again} <= {deployed.token.lower(), deployed.stake.lower()}
    own = [e for e in town.events("Claimed", "Committed") if e.fields["solver"] == town.address("ada")]
    assert len(own) == 2 * SEGMENTS
    deposits = [e for e in town.events("Deposited") if e.fields["account"] == town.address("ada")]
    assert len(deposits) == SEGMENTS
