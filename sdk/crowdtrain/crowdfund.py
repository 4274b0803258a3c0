"""Campaigns that pool backers' money to train a model, which then belongs to those who paid and those who computed.

:class:`Campaigns` is the port: one method for each call of ``contracts/Campaign.sol`` and ``contracts/Crowdfund.sol``.
:class:`crowdtrain.web3_crowdfund.Web3Campaigns` speaks to an EVM node; :class:`crowdtrain.fakes.FakeCampaigns` is the
same in memory. :class:`Crowdfunding` does what takes more than a call: it checks a campaign's files before one pledges,
credits what has settled, and claims all that is due. docs/CROWDFUNDING.md says who gets what, and when.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from crowdtrain_engine import State

from crowdtrain._errors import PlanError, RiskyTerms
from crowdtrain.chain import (
    WHOLE,
    Address,
    Chain,
    Job,
    JobId,
    JobTerms,
    Receipt,
    SegmentKey,
    SegmentSpec,
    SegmentState,
)
from crowdtrain.client import Quote
from crowdtrain.economics import LEAST_TIME, Assumptions, Offer, proposed_stake
from crowdtrain.jobs import JobFiles, load_files
from crowdtrain.risk import Risk
from crowdtrain.stores import Store

__all__ = [
    "GRACE", "SHARES", "Campaign", "CampaignTerms", "Campaigns", "Crowdfunding", "Holding", "Stage",
    "doubts", "shares_bonus", "with_bonus",
]  # fmt: skip

SHARES = 10**24
"""all shares of a model that can ever be, in units of 10⁻¹⁸"""
GRACE = 7 * 24 * 3600
"""seconds after the pledge deadline in which a funded campaign may still be launched"""
PLEDGING = 30 * 24 * 3600
"""seconds for which pledges are taken, if nothing else is said"""


class Stage(enum.IntEnum):
    PLEDGING = 0
    FUNDED = 1
    LAUNCHED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class CampaignTerms:
    """What a campaign is for, and who will own the model.

    ``job`` is what will be posted: its escrow is the goal, its deadline is in seconds after the launch. ``steps`` are
    those of the whole plan. ``backers``, ``solvers`` and ``auditors`` are parts of all shares, in 1/10,000.
    """

    name: str
    symbol: str
    job: JobTerms
    pledge_deadline: int
    steps: int
    backers: int
    solvers: int
    auditors: int

    @property
    def goal(self) -> int:
        """Token units to be raised; 0 for a volunteers' job."""
        return self.job.escrow


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as it stands. ``shares`` are those in existence, ``returned`` what ever came back for backers."""

    address: Address
    terms: CampaignTerms
    manifest: str
    stage: Stage
    raised: int
    job: JobId | None
    credited_steps: int
    returned: int
    shares: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What an account has in a campaign: what it pledged, its shares, and what it can claim.

    Of shares that are not claimed yet, income and rewards show only once they are.
    """

    pledged: int = 0
    shares: int = 0
    has_unclaimed_shares: bool = False
    returns: int = 0
    income: int = 0
    rewards: int = 0


class Campaigns(Protocol):
    """All campaigns of a chain, as one account. Reads and moves raise what those of :class:`Chain` raise; a campaign
    that Crowdfund did not make is refused with UnknownCampaign."""

    @property
    def chain(self) -> Chain:
        """The chain and account."""

    # reads
    def count(self) -> int: ...
    def address_of(self, index: int) -> Address:
        """Campaign number ``index``, from 0."""

    def campaign(self, address: Address) -> Campaign: ...
    def holding(self, address: Address, account: Address) -> Holding: ...
    def is_credited(self, address: Address, segment: int) -> bool: ...

    # moves
    def create(self, terms: CampaignTerms, manifest: str) -> tuple[Address, Receipt]: ...
    def pledge(self, address: Address, amount: int) -> tuple[int, Receipt]:
        """Approves and pledges; what was taken is no more than was missing to the goal."""

    def refund(self, address: Address, backer: Address) -> Receipt: ...
    def launch(self, address: Address) -> tuple[JobId, Receipt]: ...
    def claim_shares(self, address: Address, backer: Address) -> Receipt: ...
    def credit(self, address: Address, segment: int, spec: SegmentSpec) -> Receipt: ...
    def finish(self, address: Address) -> Receipt: ...
    def claim_return(self, address: Address, backer: Address) -> Receipt: ...
    def pay_income(self, address: Address, amount: int) -> Receipt:
        """Approves and pays."""

    def claim_income(self, address: Address) -> Receipt: ...
    def collect_rewards(self, address: Address, epoch: int) -> Receipt: ...
    def claim_rewards(self, address: Address) -> Receipt: ...


class Crowdfunding:
    """What organisers, backers and owners do, over any chain and store."""

    def __init__(self, campaigns: Campaigns, store: Store) -> None:
        self.campaigns = campaigns
        self.store = store

    def create(
        self,
        quote: Quote,
        name: str,
        symbol: str,
        *,
        pledging: int = PLEDGING,
        backers: int = 5000,
        solvers: int = 4000,
        auditors: int = 1000,
        state: State | None = None,
    ) -> Address:
        """Stores the job's files and begins a campaign to fund it, open to pledges for ``pledging`` seconds.

        Where the quote's price is 0 nobody pledges, and the backers' part goes to the solvers. Raises what
        :meth:`crowdtrain.Client.post` raises, and Refused if the terms cannot be.
        """
        manifest, state = quote.publish(self.store, state)
        job = quote.terms(0, state)
        if job.escrow == 0:
            backers, solvers = 0, solvers + backers
        terms = CampaignTerms(
            name=name,
            symbol=symbol,
            job=job,
            pledge_deadline=self.campaigns.chain.now() + pledging,
            steps=sum(spec.steps for spec in quote.plan.segments),
            backers=backers,
            solvers=solvers,
            auditors=auditors,
        )
        return self.campaigns.create(terms, manifest)[0]

    def check(self, address: Address, *, risky: bool = False) -> JobFiles:
        """The campaign's files, found to be what the terms say: a plan of so many steps that the goal pays for; and,
        unless it may be ``risky``, the terms found to be such that garbage loses and others can object in time.

        What it trains, on what data, and at what price for each segment, is the backer's to judge. Raises PlanError,
        saying what is wrong, RiskyTerms, and what the store raises.
        """
        campaign = self.campaigns.campaign(address)
        terms = campaign.terms
        files = load_files(self.store, Job(JobId(0), address, terms.job, 0, 0, 0, campaign.manifest))
        steps = sum(spec.steps for spec in files.plan.segments)
        cost = sum(spec.price + terms.job.pot(spec.price) for spec in files.plan.segments)
        if steps != terms.steps:
            raise PlanError(f"the plan has {steps} steps, the campaign's shares are for {terms.steps}")
        if cost > terms.goal:
            raise PlanError(f"the plan costs {cost} with audits, the campaign raises only {terms.goal}")
        if not risky and (found := doubts(self.risk(terms, files.plan.segments))):
            raise RiskyTerms(
                f"{'; '.join(found)}; to pledge all the same: --unchecked, or risky=True in Python"
            )
        return files

    def risk(self, terms: CampaignTerms, specs: Sequence[SegmentSpec]) -> Risk:
        """The dearest segment with the eyes of a cheat, who gets the shares of the one with most steps."""
        dearest = max(spec.price for spec in specs)
        bonus = shares_bonus(specs, terms.goal, terms.backers, terms.solvers + terms.auditors)
        return Risk(Offer.of(terms.job, self.campaigns.chain.rules(), dearest), Assumptions(bonus=bonus))

    def credit(self, address: Address) -> list[int]:
        """Gives out the shares of all segments that have settled; returns their numbers."""
        campaign = self.campaigns.campaign(address)
        if campaign.job is None:
            return []
        specs = self.check(address, risky=True).plan.segments
        waiting = [i for i in range(len(specs)) if self._is_waiting(campaign.job, address, i)]
        for index in waiting:
            self.campaigns.credit(address, index, specs[index])
        return waiting

    def _is_waiting(self, job: JobId, address: Address, index: int) -> bool:
        segment = self.campaigns.chain.segment(SegmentKey(job, index))
        return segment.state is SegmentState.SETTLED and not self.campaigns.is_credited(address, index)

    def claim(self, address: Address) -> list[Receipt]:
        """Takes all that the account is due: shares, what came back, income, and rewards of epochs that are over."""
        campaigns, chain = self.campaigns, self.campaigns.chain
        if campaigns.campaign(address).job is None:
            return []
        receipts = [
            campaigns.collect_rewards(address, epoch)
            for epoch in range(chain.epoch())
            if chain.rewards(epoch, address) > 0 and campaigns.campaign(address).shares > 0
        ]
        if campaigns.holding(address, chain.address).has_unclaimed_shares:
            receipts.append(campaigns.claim_shares(address, chain.address))
        holding = campaigns.holding(address, chain.address)
        if holding.returns:
            receipts.append(campaigns.claim_return(address, chain.address))
        if holding.income:
            receipts.append(campaigns.claim_income(address))
        if holding.rewards:
            receipts.append(campaigns.claim_rewards(address))
        return receipts


def shares_of(terms: CampaignTerms, pledged: int) -> int:
    """The shares of a backer who pledged so much."""
    return SHARES * terms.backers // WHOLE * pledged // terms.goal if terms.goal else 0


def shares_bonus(specs: Sequence[SegmentSpec], goal: int, backers: int, others: int) -> float:
    """Worth of the shares that a segment brings its solver, and auditors who may be its accomplices: at most, of the
    segment with most steps. The model is taken to be worth what backers pay for their part of it.

    ``backers`` and ``others`` (solvers and auditors) are parts of all shares, in 1/10,000.
    """
    model = goal * WHOLE / backers if backers else goal
    steps = [spec.steps for spec in specs]
    return model * others / WHOLE * max(steps) / sum(steps)


def doubts(risk: Risk) -> list[str]:
    """Why a backer should not pay for a job: nobody has time to object, or garbage does not lose. Nothing if all is
    well."""
    offer, found = risk.offer, []
    if offer.window < LEAST_TIME:
        found.append(f"results can be challenged for {offer.window:g} s only, less than {LEAST_TIME}")
    if offer.clock < LEAST_TIME:
        found.append(f"players of a dispute have {offer.clock:g} s to answer, less than {LEAST_TIME}")
    if not risk.is_safe:
        found.append(risk.summary)
    return found


def with_bonus(quote: Quote, backers: int, others: int, *, propose_stake: bool = False) -> Quote:
    """The quote for a campaign: its risk counts the shares that a cheat would get (:func:`shares_bonus`), for which
    a stake is proposed if that is asked for."""
    quote = replace(quote, bonus=shares_bonus(quote.plan.segments, quote.escrow, backers, others))
    if not propose_stake:
        return quote
    return replace(quote, stake=round(proposed_stake(quote.risk.offer, quote.risk.given)))
