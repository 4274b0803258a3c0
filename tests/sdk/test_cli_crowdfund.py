"""``crowdtrain crowdfund`` and rewards, against a real chain and a real gateway."""

from __future__ import annotations

import pytest
from crowdtrain import cli
from crowdtrain._errors import ConfigError, CrowdtrainError, RiskyTerms
from crowdtrain._sender import account_of
from crowdtrain.chain import Address, JobId, SegmentKey
from crowdtrain.crowdfund import GRACE
from crowdtrain.devnet import Devnet
from crowdtrain.economics import LEAST_TIME
from crowdtrain.web3_chain import Web3Chain
from crowdtrain.web3_crowdfund import Web3Campaigns
from crowdtrain_engine.trace import trace_root
from sdk.test_cli import GIVEN, TERMS, bundle, environment, gateway, run
from small_jobs import claim, commit, replay
from typer.testing import CliRunner

__all__ = ["bundle", "environment", "gateway"]  # fixtures

EPOCH = 30 * 24 * 3600
pytestmark = pytest.mark.usefixtures("environment")


def words(text: str) -> str:
    return " ".join(text.split())


def without(terms: list[str], *names: str) -> list[str]:
    """Options, each with a value, without those."""
    pairs = zip(terms[::2], terms[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in names for word in pair]


def create(bundle: str, name: str, *more: str) -> str:
    return run("crowdfund", "create", bundle, "--name", name, "--symbol", "P", *TERMS, "--yes", *more).strip()


def test_a_model_is_funded_and_owned_from_the_command_line(devnet: Devnet, bundle: str) -> None:
    address = create(bundle, "[red]Per\x1b[2Jceptron", "--days", "1")
    assert address in run("crowdfund", "list").split()
    shown = run("crowdfund", "status", address)
    assert "[red]Per?[2Jceptron (P)" in shown
    assert "0 of 300 (0.0 %)" in shown
    assert "backers 50 %, solvers 40 %, auditors 10 %" in shown
    assert "pledged 200" in run("crowdfund", "pledge", address, "200", "--unchecked", "--yes")
    assert "200 of 300 (66.7 %)" in run("crowdfund", "status", address)
    with pytest.raises(CrowdtrainError, match="WrongStage"):
        run("crowdfund", "launch", address)
    assert "pledged 100" in run("crowdfund", "pledge", address, "1e3", "--unchecked", "--yes")
    job = JobId(int(run("crowdfund", "launch", address)))
    assert f"{job}: 0 of 2 segments settled" in run("crowdfund", "status", address)

    solver = Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[1])
    solver.deposit(1000)
    for index in range(2):
        key, done = SegmentKey(job, index), replay(GIVEN, index)
        claim(solver, GIVEN, key)
        commit(solver, GIVEN, key, done)
        devnet.advance(31)
        solver.settle(key, GIVEN.plan.segments[index], trace_root(done.trace))
    assert "segments credited: 0, 1" in run("crowdfund", "credit", address)
    assert "segments credited: none" in run("crowdfund", "credit", address)
    assert "Returned 100" in run("crowdfund", "finish", address)
    assert "IncomePaid 500000" in run("crowdfund", "income", address, "5e5")
    mine = words(run("crowdfund", "shares", address))
    assert "shares to claim │ 50.0000 % of the model" in mine
    assert "came back, to claim │ 100" in mine
    told = run("crowdfund", "claim", address)
    assert "SharesClaimed 500000000000000000000000" in told
    assert "ReturnClaimed 100" in told
    assert "IncomeClaimed 277777" in told  # five ninths: nobody audited
    assert "nothing is due" in run("crowdfund", "claim", address)
    other = words(run("crowdfund", "shares", address, solver.address))
    assert "income to claim │ 222,222" in other
    assert "40.0000 % of the model" in other


def test_a_failed_campaign_refunds_from_the_command_line(devnet: Devnet, bundle: str) -> None:
    address = create(bundle, "Nobody cares", "--days", "1")
    run("crowdfund", "pledge", address, "7", "--unchecked", "--yes")
    with pytest.raises(CrowdtrainError, match="WrongStage"):
        run("crowdfund", "refund", address)
    devnet.advance(GRACE)
    assert "PledgeRefunded 7" in run("crowdfund", "refund", address)
    assert "failed" in run("crowdfund", "status", address)


def test_rewards_from_the_command_line(devnet: Devnet, bundle: str) -> None:
    me = Address(account_of(devnet.keys[0]).address)
    number = run("job", "post", bundle, *TERMS, "--yes").strip()
    solver = Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[1])
    solver.deposit(1000)
    key, done = SegmentKey(JobId(int(number)), 0), replay(GIVEN, 0)
    claim(solver, GIVEN, key)
    commit(solver, GIVEN, key, done)
    devnet.advance(31)
    solver.settle(key, GIVEN.plan.segments[0], trace_root(done.trace))
    # the fee of 100 is 2: too little for the buyer's 15 percent of it, 1 for the solver
    assert "so far: it is running" in run("wallet", "rewards", solver.address)
    devnet.advance(EPOCH)
    assert f"epoch {solver.epoch() - 1}: " in run("wallet", "claim", solver.address)
    assert solver.reward_tokens(solver.address) > 0
    assert "nothing is due" in run("wallet", "claim", me)


def test_pledging_asks_first_and_checks(devnet: Devnet, bundle: str) -> None:
    fair = without(TERMS, "--stake", "--audits", "--audit-share", "--window")
    asked = ["crowdfund", "create", bundle, "--name", "Asked", "--symbol", "A", *fair, "--window", "600"]
    address = run(*asked, "--clock", "600", "--yes").strip()
    done = CliRunner().invoke(cli.app, ["crowdfund", "pledge", address, "5"], input="n\n")
    assert done.exit_code == 1
    assert "cheapest attack: " in done.stderr
    assert "Pledge 5?" in done.stderr
    campaigns = Web3Campaigns(Web3Chain(devnet.rpc, devnet.deployment))
    assert campaigns.campaign(Address(address)).raised == 0
    with pytest.raises(ConfigError, match="not an address"):
        run("crowdfund", "status", "0x12")
    with pytest.raises(CrowdtrainError, match="UnknownCampaign"):
        run("crowdfund", "status", devnet.deployment.market)


def test_terms_that_cheats_like_are_shown_and_refused(devnet: Devnet, bundle: str) -> None:
    # window 2 s, stake 0, nobody audits: who launches it takes the pledges for garbage two seconds later
    terms = [*without(TERMS, "--stake", "--window"), "--stake", "0", "--window", "2", "--clock", "3"]
    asked = ["crowdfund", "create", bundle, "--name", "Trap", "--symbol", "T", *terms, "--yes"]
    address = run(*asked).splitlines()[-1]
    shown = words(run("crowdfund", "status", address))
    for line in (
        "stake of a solver │ 0 for each segment, for which 150 are raised on average",
        "audits │ 0 auditors expected at least, who share 0.5 prices",
        "window, clock │ 2 s, 3 s",
    ):
        assert line in shown
    with pytest.raises(RiskyTerms, match="--unchecked"):
        run("crowdfund", "pledge", address, "5", "--yes")
    campaigns = Web3Campaigns(Web3Chain(devnet.rpc, devnet.deployment))
    assert campaigns.campaign(Address(address)).raised == 0
    assert "pledged 5" in run("crowdfund", "pledge", address, "5", "--unchecked", "--yes")


def test_a_volunteers_campaign_asks_for_a_stake(bundle: str) -> None:
    terms = [*without(TERMS, "--stake"), "--price", "0"]
    asked = ["crowdfund", "create", bundle, "--name", "Free", "--symbol", "F", *terms]
    with pytest.raises(ConfigError, match="name a --stake"):
        run(*asked)
    done = CliRunner().invoke(cli.app, [*asked, "--stake", "0", "--yes"])
    assert done.exit_code == 0
    assert "warning: garbage by solver risks nothing" in done.stderr
    done = CliRunner().invoke(cli.app, [*asked, "--stake", "0"], input="n\n", env={"COLUMNS": "200"})
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "risks nothing" in done.stderr


def test_a_cheat_gets_shares_too_and_the_stake_is_for_them(devnet: Devnet, bundle: str) -> None:
    terms = without(TERMS, "--stake", "--audits", "--audit-share", "--window")
    asked = ["crowdfund", "create", bundle, "--name", "Shared", "--symbol", "S", *terms, "--price", "1e6"]
    done = CliRunner().invoke(cli.app, [*asked, "--yes"])
    assert done.exit_code == 0, done.output
    assert "warning" not in done.stderr
    campaigns = Web3Campaigns(Web3Chain(devnet.rpc, devnet.deployment))
    assert campaigns.campaign(Address(done.stdout.strip())).terms.job.window == LEAST_TIME
    # backers pay four prices for half of the model, the other half is worth as much: 2.4 of it for three steps of five
    assert campaigns.campaign(Address(done.stdout.strip())).terms.job.stake == 165 * 10**6
    thin = CliRunner().invoke(cli.app, [*asked, "--stake", "5e7"], input="n\n", env={"COLUMNS": "200"})
    assert "GAINS" in thin.stderr
    assert "raise the stake above 1.34e8" in thin.stderr


def test_every_command_explains_itself() -> None:
    for name in [
        "create",
        "list",
        "status",
        "pledge",
        "launch",
        "refund",
        "credit",
        "finish",
        "income",
        "claim",
        "shares",
    ]:
        assert "Usage" in run("crowdfund", name, "--help")
    assert "Example" in run("crowdfund", "--help")
    for name in ("rewards", "claim"):
        assert "Usage" in run("wallet", name, "--help")
