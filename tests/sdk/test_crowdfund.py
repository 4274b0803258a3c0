"""Campaigns: the same tests on the fake chain and on the contracts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from crowdtrain._errors import PlanError, Refused, RiskyTerms
from crowdtrain.chain import Address, Chain, JobId, SegmentKey
from crowdtrain.client import Client, Quote
from crowdtrain.crowdfund import GRACE, SHARES, Campaigns, Crowdfunding, Stage, shares_of, with_bonus
from crowdtrain.devnet import Devnet
from crowdtrain.economics import required_stake
from crowdtrain.fakes import FakeCampaigns, FakeChain
from crowdtrain.ledger import Kind
from crowdtrain.statement import statement
from crowdtrain.web3_chain import Web3Chain
from crowdtrain.web3_crowdfund import Web3Campaigns
from crowdtrain_engine.trace import seal, trace_root
from small_jobs import INTERVAL, SEGMENTS, STEPS, Sample, claim, commit, replay, sample

PRICE, STAKE, MONEY = 10_000, 1000, 10**9
WEEK = 7 * 24 * 3600
EPOCH = 30 * 24 * 3600
_NUMBERS = count()


@dataclass
class Crowd:
    """A chain as some people, and a job that they may fund."""

    people: dict[str, Campaigns]
    advance: Callable[[int], None]
    mine: Callable[[int], None]
    given: Sample = field(default_factory=sample)

    def chain(self, name: str) -> Chain:
        return self.people[name].chain

    def who(self, name: str) -> Address:
        return self.people[name].chain.address

    def of(self, name: str) -> Crowdfunding:
        """Somebody's view."""
        return Crowdfunding(self.people[name], self.given.store)

    def quote(self, price: int = PRICE, **options: float) -> Quote:
        client = Client(self.chain("organiser"), self.given.store)
        options = {"audits": 0.0, "audit_share": 0.5} | options
        offer = client.quote(
            self.given.program, self.given.data, STEPS, price=price, segments=SEGMENTS, interval=INTERVAL,
            stake=STAKE, lease=600, duration=2 * EPOCH, **({"window": 30, "clock": 120} | options),
        )  # fmt: skip
        self.given = replace(self.given, plan=offer.plan)
        return offer

    def create(self, quote: Quote | None = None, **parts: int) -> Address:
        name = f"Perceptron {next(_NUMBERS)}"
        offer = quote or self.quote()
        return self.of("organiser").create(
            offer, name, "PERC", pledging=WEEK, state=self.given.state, **parts
        )

    def fund(self, address: Address, **pledges: int) -> None:
        for name, amount in pledges.items():
            self.people[name].pledge(address, amount)

    def launch(self, address: Address) -> JobId:
        return self.people["stranger"].launch(address)[0]

    def train(self, job: JobId, *, auditor: str | None = None) -> None:
        """Lets the solver do all segments, and the auditor attest to them; settles them."""
        for index in range(SEGMENTS):
            key, done = SegmentKey(job, index), replay(self.given, index)
            claim(self.chain("solver"), self.given, key)
            commit(self.chain("solver"), self.given, key, done)
            if auditor:
                self.attest(key, trace_root(done.trace), auditor)
            self.advance(31)
            self.chain("stranger").settle(key, self.given.plan.segments[index], trace_root(done.trace))

    def attest(self, key: SegmentKey, root: bytes, auditor: str) -> None:
        self.mine(2)
        chain = self.chain(auditor)
        sealed = self.chain("stranger").segment(key).seal
        chain.attest(key, 0, sealed, seal(root, bytes.fromhex(chain.address[2:])))


NAMES = ("organiser", "ada", "ben", "solver", "auditor", "stranger")


def fake_crowd() -> Crowd:
    chain = FakeChain()
    people: dict[str, Campaigns] = {}
    for number, name in enumerate(NAMES):
        someone = chain.as_account("0x" + f"{number + 1}" * 40)
        someone.mint(MONEY)
        people[name] = FakeCampaigns(someone)
    return Crowd(people, chain.advance, chain.mine)


@pytest.fixture(scope="module")
def real_crowd(devnet: Devnet) -> Crowd:
    chains = {
        name: Web3Chain(devnet.rpc, devnet.deployment, key)
        for name, key in zip(NAMES, devnet.keys, strict=False)
    }
    return Crowd({name: Web3Campaigns(chain) for name, chain in chains.items()}, devnet.advance, devnet.mine)


@pytest.fixture(params=["fake", "contracts"])
def crowd(request: pytest.FixtureRequest) -> Crowd:
    made: Crowd = fake_crowd() if request.param == "fake" else request.getfixturevalue("real_crowd")
    made.given = sample()
    for name in ("solver", "auditor"):
        made.chain(name).deposit(10 * STAKE)
    return made


def refused(error: str, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.error == error


def test_a_campaign_is_what_was_asked_for(crowd: Crowd) -> None:
    quote = crowd.quote(audits=1.0, audit_share=0.5)
    address = crowd.create(quote, backers=3000, solvers=6000, auditors=1000)
    campaigns = crowd.people["stranger"]
    assert campaigns.address_of(campaigns.count() - 1) == address
    seen = campaigns.campaign(address)
    assert seen.terms.symbol == "PERC"
    assert seen.terms.job == quote.terms(0, crowd.given.state)
    assert seen.terms.goal == quote.escrow == SEGMENTS * PRICE * 3 // 2
    assert (seen.terms.backers, seen.terms.solvers, seen.terms.auditors) == (3000, 6000, 1000)
    assert seen.terms.steps == STEPS
    assert (seen.stage, seen.raised, seen.job, seen.shares) == (Stage.PLEDGING, 0, None, 0)
    files = crowd.of("ada").check(address, risky=True)
    assert files.plan.root == quote.plan.root


def test_what_contracts_refuse(crowd: Crowd) -> None:
    address = crowd.create()
    ada = crowd.people["ada"]
    refused("WrongStage", ada.launch, address)
    refused("WrongStage", ada.refund, address, crowd.who("ada"))
    refused("WrongStage", ada.finish, address)
    refused("NothingPledged", ada.pledge, address, 0)
    refused("NoShares", ada.pay_income, address, 10)
    refused("NothingDue", ada.claim_income, address)
    refused("NothingDue", ada.claim_return, address, crowd.who("ada"))
    refused("NotSettled", ada.credit, address, 0, crowd.given.plan.segments[0])
    refused("UnknownCampaign", ada.campaign, crowd.who("ada"))
    refused("UnknownCampaign", ada.holding, crowd.who("ada"), crowd.who("ada"))
    refused("UnknownCampaign", ada.pledge, crowd.who("ada"), 10)
    terms, manifest = ada.campaign(address).terms, ada.campaign(address).manifest
    refused("AlreadyMade", crowd.people["organiser"].create, terms, manifest)
    refused("InvalidCampaign", ada.create, replace(terms, name=""), manifest)
    refused("InvalidCampaign", ada.create, replace(terms, backers=terms.backers + 1), manifest)
    refused("InvalidCampaign", ada.create, replace(terms, pledge_deadline=crowd.chain("ada").now()), manifest)
    refused("InvalidTerms", ada.create, replace(terms, job=replace(terms.job, lease=0)), manifest)


def test_a_campaign_that_fails_gives_everything_back(crowd: Crowd) -> None:
    address = crowd.create()
    before = crowd.chain("ada").tokens(crowd.who("ada"))
    crowd.fund(address, ada=700, ben=300)
    assert crowd.chain("ada").tokens(crowd.who("ada")) == before - 700
    crowd.advance(WEEK + 2)
    stranger = crowd.people["stranger"]
    assert stranger.campaign(address).stage is Stage.FAILED
    refused("WrongStage", stranger.pledge, address, 1)
    stranger.refund(address, crowd.who("ada"))
    assert crowd.chain("ada").tokens(crowd.who("ada")) == before
    refused("NothingDue", stranger.refund, address, crowd.who("ada"))
    assert stranger.holding(address, crowd.who("ada")).pledged == 0
    assert stranger.holding(address, crowd.who("ben")).pledged == 300


def test_nobody_launches_and_everybody_gets_back(crowd: Crowd) -> None:
    address = crowd.create()
    crowd.fund(address, ada=3 * PRICE)
    assert crowd.people["ada"].campaign(address).stage is Stage.FUNDED
    crowd.advance(WEEK + GRACE + 2)
    refused("WrongStage", crowd.people["ada"].launch, address)
    crowd.people["ada"].refund(address, crowd.who("ada"))


def test_backers_solver_and_auditor_own_the_model(crowd: Crowd) -> None:
    address = crowd.create(crowd.quote(audits=4.0, audit_share=0.5))
    goal = crowd.people["ada"].campaign(address).terms.goal
    ada, ben, solver, auditor = (crowd.people[name] for name in ("ada", "ben", "solver", "auditor"))
    assert ada.pledge(address, goal - 1000)[0] == goal - 1000
    assert ben.pledge(address, 5000)[0] == 1000, "no more than is missing"
    auditor.chain.enroll(1000)
    crowd.mine(2)
    job = crowd.launch(address)
    seen = ada.campaign(address)
    assert (seen.stage, seen.job, seen.shares) == (Stage.LAUNCHED, job, SHARES // 2)
    assert ada.chain.job(job).buyer == address
    assert crowd.of("ada").credit(address) == []
    crowd.train(job, auditor="auditor")
    assert crowd.of("stranger").credit(address) == [0, 1]
    assert crowd.of("stranger").credit(address) == []
    refused("AlreadyCredited", ada.credit, address, 0, crowd.given.plan.segments[0])
    assert ada.campaign(address).credited_steps == STEPS
    crowd.of("ben").claim(address)
    holdings = {name: ada.holding(address, crowd.who(name)) for name in ("ada", "ben", "solver", "auditor")}
    assert holdings["ada"].has_unclaimed_shares
    assert holdings["ben"].shares == shares_of(seen.terms, 1000)
    # each part is of 10¹⁸ and more, so that rounding shows at the end alone
    assert abs(holdings["solver"].shares - SHARES * 4 // 10) < 10
    assert abs(holdings["auditor"].shares - SHARES // 10) < 10
    for name in ("ben", "solver", "auditor"):
        assert holdings[name].income == 0

    # income, before one has claimed shares or after
    crowd.people["stranger"].pay_income(address, 10_000)
    crowd.of("ada").claim(address)
    assert abs(solver.holding(address, crowd.who("solver")).income - 4000) <= 1
    tokens = ada.chain.tokens(crowd.who("solver"))
    crowd.of("solver").claim(address)
    assert abs(ada.chain.tokens(crowd.who("solver")) - tokens - 4000) <= 1
    refused("NothingDue", solver.claim_income, address)

    # rewards of the buyer, who is all of them
    crowd.advance(EPOCH + 1)
    epoch = ada.chain.epoch() - 1
    points = ada.chain.rewards(epoch, address)
    assert points > 0
    crowd.of("solver").claim(address)
    assert abs(ada.chain.reward_tokens(crowd.who("solver")) - points * 4 // 10) <= 1
    assert ada.holding(address, crowd.who("ada")).rewards > 0


def test_what_the_job_does_not_need_comes_back(crowd: Crowd) -> None:
    address = crowd.create(crowd.quote(audits=0.0, audit_share=0.5))
    ada, ben = crowd.people["ada"], crowd.people["ben"]
    crowd.fund(address, ada=PRICE, ben=2 * PRICE)
    job = crowd.launch(address)
    refused("NothingReturned", ada.finish, address)
    crowd.train(job)
    ada.finish(address)
    assert ada.campaign(address).returned == PRICE, "nobody audited"
    assert ben.holding(address, crowd.who("ben")).returns == 2 * PRICE // 3
    before = ben.chain.tokens(crowd.who("ben"))
    crowd.of("ben").claim(address)
    assert ben.chain.tokens(crowd.who("ben")) == before + 2 * PRICE // 3
    refused("NothingDue", ben.claim_return, address, crowd.who("ben"))
    refused("NothingReturned", ada.finish, address)


def test_volunteers_own_what_they_trained(crowd: Crowd) -> None:
    address = crowd.create(crowd.quote(price=0))
    seen = crowd.people["ada"].campaign(address)
    assert (seen.terms.goal, seen.terms.backers, seen.terms.solvers) == (0, 0, 9000)
    assert seen.stage is Stage.FUNDED
    refused("WrongStage", crowd.people["ada"].pledge, address, 1)
    job = crowd.launch(address)
    crowd.train(job)
    crowd.of("stranger").credit(address)
    solver = crowd.people["solver"]
    assert abs(solver.holding(address, crowd.who("solver")).shares - SHARES * 9 // 10) < 10
    crowd.people["stranger"].pay_income(address, 500)
    # what does not divide waits for the next income
    assert solver.holding(address, crowd.who("solver")).income in (499, 500)
    crowd.of("solver").claim(address)


def test_files_that_contradict_the_terms_are_found(crowd: Crowd) -> None:
    organiser = crowd.people["organiser"]
    good = organiser.campaign(crowd.create())
    name = f"Other {next(_NUMBERS)}"
    other, _ = organiser.create(replace(good.terms, name=name, steps=good.terms.steps + 1), good.manifest)
    with pytest.raises(PlanError, match="steps"):
        crowd.of("ada").check(other)
    job = replace(good.terms.job, escrow=good.terms.goal - 1)
    poor, _ = organiser.create(replace(good.terms, name=name, job=job), good.manifest)
    with pytest.raises(PlanError, match="raises only"):
        crowd.of("ada").check(poor)
    job = replace(good.terms.job, plan_root=bytes(32))
    wrong, _ = organiser.create(replace(good.terms, name=name, job=job), good.manifest)
    with pytest.raises(PlanError, match="plan root"):
        crowd.of("ada").check(wrong)


def test_terms_under_which_cheating_pays_are_refused(crowd: Crowd) -> None:
    fair = {"audits": 0.1, "audit_share": 1.0, "window": 600, "clock": 600}
    good = crowd.quote(**fair)
    risk = with_bonus(good, 5000, 5000).risk
    enough = math.ceil(required_stake(risk.offer, risk.given)) + 1
    assert crowd.of("ada").check(crowd.create(replace(good, stake=enough))).plan.root == good.plan.root
    for what, poor in (
        ("raise the stake above", replace(good, stake=enough - 2)),
        ("raise the stake above", replace(good, stake=0)),
        ("challenged for 599 s", replace(good, stake=enough, window=599)),
        ("599 s to answer", replace(good, stake=enough, clock=599)),
        ("GAINS", replace(good, stake=enough, audit_share=0)),
    ):
        address = crowd.create(poor)
        with pytest.raises(RiskyTerms, match=f"(?s){what}.*--unchecked"):
            crowd.of("ada").check(address)
        crowd.of("ada").check(address, risky=True)
    volunteers = crowd.quote(price=0, **fair)
    crowd.of("ada").check(crowd.create(replace(volunteers, stake=1)))
    with pytest.raises(RiskyTerms, match="risks nothing"):
        crowd.of("ada").check(crowd.create(replace(volunteers, stake=0)))


def test_every_unit_has_a_cause(crowd: Crowd) -> None:
    before = {name: crowd.chain("ada").head()[0] for name in NAMES}
    failed = crowd.create()
    crowd.fund(failed, ada=500)
    crowd.advance(WEEK + 2)
    crowd.people["stranger"].refund(failed, crowd.who("ada"))
    address = crowd.create()
    crowd.fund(address, ada=2 * PRICE, ben=PRICE)
    crowd.train(crowd.launch(address))
    crowd.of("stranger").credit(address)
    crowd.people["ada"].finish(address)
    crowd.people["stranger"].pay_income(address, 9000)
    crowd.advance(EPOCH + 1)
    for name in ("ada", "solver"):
        crowd.of(name).claim(address)

    told = statement(crowd.chain("stranger"), crowd.who("ada"))
    told.check()
    lines = [line.entry for line in told.lines if line.entry.block > before["ada"]]
    income = 9000 * 5 // 9  # of half of the shares, as nobody audited
    assert [(entry.kind, entry.tokens) for entry in lines if entry.tokens] == [
        (Kind.PLEDGE, -500),
        (Kind.REFUND, 500),
        (Kind.PLEDGE, -2 * PRICE),
        (Kind.REFUND, 2 * PRICE // 3),
        (Kind.INCOME, income * 2 // 3),
    ]
    assert [entry.rewards > 0 for entry in lines if entry.rewards] == [True]
    assert all(failed in entry.cause or address in entry.cause for entry in lines)

    # the campaign itself: what it took in, its escrow, and what it gave out
    told = statement(crowd.chain("stranger"), address)
    told.check()
    kinds = [line.entry.kind for line in told.lines if line.entry.amount]
    assert kinds.count(Kind.PLEDGE) == 2
    assert kinds.count(Kind.ESCROW) == 1
    assert kinds.count(Kind.TRANSFER) == 0
