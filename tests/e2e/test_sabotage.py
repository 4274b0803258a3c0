"""Every way to cheat, as processes on anvil, is overturned by the contracts; the honest lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from crowdtrain.chain import GameId, Phase, Reason
from crowdtrain.game.sabotage import MODES
from town import CLOCK, MONEY, STAKE, WINDOW, Town

BATCHES = [list(MODES)[0::2], list(MODES)[1::2]]
UNBOUND = ("skip", "input", "trace-ends", "state-ends", "next-state")


def expected_end(mode: str) -> Reason:
    """How the dispute of a cheat ends."""
    if mode.startswith("silent"):
        return Reason.TIMEOUT
    if mode == "mismatch":
        return Reason.BAD_CHILDREN
    return Reason.BAD_BINDING if mode in UNBOUND else Reason.WRONG_WORD


def is_silent(town: Town, number: int) -> bool:
    """Whether a dispute waits for what a silent solver will not show."""
    game = town.buyer.game(GameId(number))
    mode = next(name for name in MODES if town.address(name) == game.defender)
    return game.phase is Phase.OVER or mode == f"silent-{game.phase.name.removeprefix('REVEAL_').lower()}"


@pytest.mark.parametrize("modes", BATCHES, ids=["even", "odd"])
def test_every_cheat_loses_its_stake_and_nobody_else_does(tmp_path: Path, modes: list[str]) -> None:
    with Town(tmp_path, people=len(MODES) + 1) as town:
        jobs = {mode: town.post() for mode in modes}
        town.start("verifier", "vera")
        for mode in modes:
            town.start("solver", mode, "--sabotage", f"{mode}:2", job=jobs[mode])
        town.wait(lambda: town.buyer.game_count() == len(modes), 300, "a challenge of every cheat")
        town.devnet.advance(WINDOW // 2)
        games = range(1, len(modes) + 1)
        town.wait(lambda: all(is_silent(town, game) for game in games), 300, "the last move of every dispute")
        town.devnet.advance(CLOCK + 1)
        town.wait(lambda: len(town.events("Overturned")) == len(modes), 60, "the end of every cheat")
        ends = {event.fields["loser"]: event.fields["reason"] for event in town.events("Closed")}
        assert {mode: ends[town.address(mode)] for mode in modes} == {
            mode: expected_end(mode) for mode in modes
        }
        assert all(town.worth(mode) == MONEY - STAKE for mode in modes)
        assert town.worth("vera") == MONEY + len(modes) * (STAKE // 2)
