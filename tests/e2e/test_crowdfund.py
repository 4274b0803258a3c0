"""Models that crowds own, with solvers and auditors as processes, on anvil."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crowdtrain.client import Client
from crowdtrain.crowdfund import SHARES, Crowdfunding, Stage
from crowdtrain.web3_crowdfund import Web3Campaigns
from crowdtrain_engine import execute
from sdk.test_examples import load
from town import CLOCK, LEASE, MONEY, STAKE, WINDOW, Town


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town")) as town:
        yield town


def of(town: Town, name: str) -> Crowdfunding:
    """Campaigns as somebody without a process sees them."""
    return Crowdfunding(Web3Campaigns(town.account(name)), town.store)


def test_a_crowd_pays_strangers_train_and_check_and_all_own(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("crowdfunded_model")
    accuracy, owners = example.main()
    assert accuracy > 0.85
    parts = {"ben": 375, "cleo": 125, "solver": 400, "auditor": 100}
    for name, part in parts.items():
        assert owners[name] == {"shares": SHARES * part // 1000, "income": example.LICENCE * part // 1000}
    assert "unseen digits" in capsys.readouterr().out


def test_volunteers_train_for_shares_alone(town: Town) -> None:
    organiser = of(town, "organiser")
    quote = Client(organiser.campaigns.chain, town.store).quote(
        town.program, town.data, 8, price=0, segments=2, interval=2, stake=STAKE,
        lease=LEASE, window=WINDOW, clock=CLOCK,
    )  # fmt: skip
    address = organiser.create(quote, "Perceptron", "PERC", state=town.state)
    assert organiser.campaigns.campaign(address).stage is Stage.FUNDED
    job, _ = organiser.campaigns.launch(address)
    town.start("solver", "vic", job=job)
    town.wait(lambda: len(town.events("Committed", job=job)) == 2, 120, "the work of the volunteer")
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: town.buyer.job(job).settled == 2, 60, "the end of the job")
    right, _ = execute(town.program, town.state, town.data, steps=8, backend="reference")
    assert town.segment(job, 1).output_root == right.root
    assert town.stop("vic") == 0
    assert town.worth("vic") == MONEY

    assert organiser.credit(address) == [0, 1]
    vic = of(town, "vic")
    assert vic.campaigns.holding(address, town.address("vic")).shares == SHARES * 9 // 10
    organiser.campaigns.pay_income(address, 900)
    vic.claim(address)
    # the only owner has all of it, but for what does not divide
    assert MONEY + 899 <= town.worth("vic") <= MONEY + 900
    # with nothing paid there is no fee, and without a fee no reward
    assert town.buyer.rewards(town.buyer.epoch(), town.address("vic")) == 0


def test_whoever_backs_a_cheat_is_not_harmed(town: Town) -> None:
    """A solver's lie is overturned as in any job, and the honest one who does it again gets the shares."""
    organiser, backer = of(town, "organiser"), of(town, "backer")
    quote = Client(organiser.campaigns.chain, town.store).quote(
        town.program, town.data, 4, price=100, segments=1, interval=2, stake=STAKE, audit_share=0,
        lease=LEASE, window=WINDOW, clock=CLOCK,
    )  # fmt: skip
    address = organiser.create(quote, "Perceptron, paid", "PERC", state=town.state)
    backer.campaigns.pledge(address, 100)
    job, _ = backer.campaigns.launch(address)
    town.start("solver", "mallory", "--sabotage", "gradient:3", job=job)
    town.wait(lambda: bool(town.events("Committed", job=job)), 60, "the cheat's commitment")
    town.start("verifier", "vera", job=job)
    town.wait(lambda: bool(town.events("Challenged", job=job)), 60, "the challenge")
    town.devnet.advance(WINDOW // 2)
    town.wait(lambda: bool(town.events("Overturned", job=job)), 120, "the end of the cheat")
    town.stop("mallory")
    town.devnet.advance(LEASE // 10 + 1)  # the winner's own time to claim
    town.start("solver", "carl", job=job)
    town.wait(lambda: len(town.events("Committed", job=job)) == 2, 120, "the work of another")
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: town.buyer.job(job).settled == 1, 60, "the end of the job")
    assert organiser.credit(address) == [0]
    assert organiser.campaigns.holding(address, town.address("carl")).shares == SHARES * 4 // 10
    assert organiser.campaigns.holding(address, town.address("mallory")).shares == 0
    backer.claim(address)
    assert organiser.campaigns.holding(address, town.address("backer")).shares == SHARES // 2
