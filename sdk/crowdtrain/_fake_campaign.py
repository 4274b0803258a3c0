"""Rules of campaigns, for the fake chain. Each function is one call of ``contracts/Campaign.sol`` or
``contracts/Crowdfund.sol``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256

from eth_utils.address import to_checksum_address

from crowdtrain import _fake_emission as emission
from crowdtrain import _fake_market as market
from crowdtrain._fake_world import RevertedError, World, require, revert
from crowdtrain.chain import WHOLE, Address, JobId, SegmentKey, SegmentSpec, SegmentState
from crowdtrain.crowdfund import GRACE, SHARES, Campaign, CampaignTerms, Holding, Stage, shares_of
from crowdtrain.plan import leaf

__all__ = [
    "claim_income", "claim_return", "claim_rewards", "claim_shares", "collect_rewards", "create", "credit", "finish",
    "holding_of", "launch", "pay_income", "pledge", "record_of", "refund", "view_of",
]  # fmt: skip

_SCALE = 10**30
_YEAR = 365 * 24 * 3600
Amounts = Mapping[Address, int]


@dataclass(frozen=True)
class Pool:
    """Income of one token (``contracts/libraries/Income.sol``)."""

    per_share: int = 0
    remainder: int = 0
    seen: Amounts = field(default_factory=dict)
    due: Amounts = field(default_factory=dict)

    def add(self, amount: int, supply: int) -> Pool:
        """Shares an amount among all shares that there are now."""
        require(supply > 0, "NoShares")
        each, remainder = divmod(amount * _SCALE + self.remainder, supply)
        return replace(self, per_share=self.per_share + each, remainder=remainder)

    def update(self, account: Address, balance: int, endowed: int = 0) -> Pool:
        """Before a balance changes; ``endowed`` shares were kept for the account since the launch."""
        due = self.due_of(account, balance) + endowed * self.per_share
        seen = {**self.seen, account: self.per_share}
        return replace(self, seen=seen, due={**self.due, account: due})

    def due_of(self, account: Address, balance: int) -> int:
        """What an account is due, in parts of a unit."""
        return self.due.get(account, 0) + balance * (self.per_share - self.seen.get(account, 0))

    def units(self, account: Address, balance: int) -> int:
        """Whole units of that."""
        return self.due_of(account, balance) // _SCALE

    def take(self, account: Address, balance: int) -> tuple[int, Pool]:
        """Takes whole units out."""
        amount, updated = self.units(account, balance), self.update(account, balance)
        rest = updated.due[account] - amount * _SCALE
        return amount, replace(updated, due={**updated.due, account: rest})


@dataclass(frozen=True)
class Record:
    """A campaign. Backers' shares that are not claimed are its own."""

    address: Address
    terms: CampaignTerms
    manifest: str
    job: JobId | None = None
    raised: int = 0
    returned: int = 0
    credited_steps: int = 0
    credited: frozenset[int] = frozenset()
    pledges: Amounts = field(default_factory=dict)
    claimed: frozenset[Address] = frozenset()
    taken: Amounts = field(default_factory=dict)
    balances: Amounts = field(default_factory=dict)
    income: Pool = field(default_factory=Pool)
    rewards: Pool = field(default_factory=Pool)
    rewards_held: int = 0

    @property
    def supply(self) -> int:
        """All shares that there are."""
        return sum(self.balances.values())

    def balance(self, account: Address) -> int:
        """An account's shares."""
        return self.balances.get(account, 0)

    def stage(self, time: int) -> Stage:
        """Where the campaign stands."""
        if self.job is not None:
            return Stage.LAUNCHED
        funded = self.raised == self.terms.goal
        if time > self.terms.pledge_deadline + (GRACE if funded else 0):
            return Stage.FAILED
        return Stage.FUNDED if funded else Stage.PLEDGING

    def give(self, account: Address, shares: int, *, kept: bool = False) -> Record:
        """Gives shares to an account: new ones, or those kept for a backer."""
        endowed = shares if kept else 0
        balances = {**self.balances, account: self.balance(account) + shares}
        if kept:
            balances[self.address] -= shares
        return replace(
            self,
            balances=balances,
            income=self.income.update(account, self.balance(account), endowed),
            rewards=self.rewards.update(account, self.balance(account), endowed),
        )


# ------------------------------------------------------------------ views


def record_of(world: World, address: Address) -> Record:
    """A campaign; refused if there is none."""
    record = world.campaigns.get(address)
    if not isinstance(record, Record):
        revert("UnknownCampaign", campaign=address)
    return record


def view_of(world: World, address: Address) -> Campaign:
    """The campaign as others see it."""
    c = record_of(world, address)
    return Campaign(
        address,
        c.terms,
        c.manifest,
        c.stage(world.time),
        c.raised,
        c.job,
        c.credited_steps,
        c.returned,
        c.supply,
    )


def holding_of(world: World, address: Address, account: Address) -> Holding:
    """What an account has in a campaign."""
    c = record_of(world, address)
    pledged = c.pledges.get(account, 0)
    return Holding(
        pledged=pledged,
        shares=c.balance(account),
        has_unclaimed_shares=c.job is not None and pledged > 0 and account not in c.claimed,
        returns=_return_of(c, account),
        income=c.income.units(account, c.balance(account)),
        rewards=c.rewards.units(account, c.balance(account)),
    )


def _return_of(c: Record, account: Address) -> int:
    if c.terms.goal == 0:
        return 0
    return c.returned * c.pledges.get(account, 0) // c.terms.goal - c.taken.get(account, 0)


def _in_stage(world: World, address: Address, needed: Stage) -> Record:
    c = record_of(world, address)
    actual = c.stage(world.time)
    require(actual is needed, "WrongStage", actual=actual, needed=needed)
    return c


# ------------------------------------------------------------------ pledges


def create(world: World, sender: Address, terms: CampaignTerms, manifest: str) -> Address:
    digest = sha256(repr((sender, terms, manifest)).encode()).hexdigest()
    address = Address(to_checksum_address("0x" + digest[:40]))
    require(0 < len(terms.name.encode()) <= 64, "InvalidCampaign", what="name")
    require(0 < len(terms.symbol.encode()) <= 16, "InvalidCampaign", what="symbol")
    pledging = terms.pledge_deadline - world.time
    require(0 < pledging <= _YEAR, "InvalidCampaign", what="pledgeDeadline")
    require(terms.steps > 0, "InvalidCampaign", what="steps")
    require(terms.backers + terms.solvers + terms.auditors == WHOLE, "InvalidCampaign", what="parts")
    require(terms.goal > 0 or terms.backers == 0, "InvalidCampaign", what="backers")
    market.validate(world, replace(terms.job, deadline=world.time + terms.job.deadline))
    require(address not in world.campaigns, "AlreadyMade", campaign=address)
    world.campaigns[address] = Record(address, terms, manifest)
    world.emit("Crowdfund", "Created", campaign=address, creator=sender)
    return address


def pledge(world: World, sender: Address, address: Address, amount: int) -> int:
    c = _in_stage(world, address, Stage.PLEDGING)
    taken = min(amount, c.terms.goal - c.raised)
    require(taken > 0, "NothingPledged")
    raised = c.raised + taken
    pledges = {**c.pledges, sender: c.pledges.get(sender, 0) + taken}
    world.campaigns[address] = replace(c, raised=raised, pledges=pledges)
    world.emit("Campaign", "Pledged", campaign=address, backer=sender, amount=taken, raised=raised)
    world.pay(sender, address, taken)
    return taken


def refund(world: World, sender: Address, address: Address, backer: Address) -> None:
    c = _in_stage(world, address, Stage.FAILED)
    amount = c.pledges.get(backer, 0)
    require(amount > 0, "NothingDue", account=backer)
    world.campaigns[address] = replace(c, pledges={**c.pledges, backer: 0})
    world.emit("Campaign", "PledgeRefunded", campaign=address, backer=backer, amount=amount)
    world.pay(address, backer, amount)


def launch(world: World, sender: Address, address: Address) -> JobId:
    c = _in_stage(world, address, Stage.FUNDED)
    terms = replace(c.terms.job, deadline=world.time + c.terms.job.deadline)
    job = market.post(world, address, terms, c.manifest)
    launched = replace(c, job=job)
    if c.terms.backers:
        launched = launched.give(address, SHARES * c.terms.backers // WHOLE)
    world.campaigns[address] = launched
    world.emit(
        "Campaign", "Launched", campaign=address, job=job, escrow=terms.escrow, deadline=terms.deadline
    )
    return job


# ------------------------------------------------------------------ shares


def claim_shares(world: World, sender: Address, address: Address, backer: Address) -> None:
    c = _in_stage(world, address, Stage.LAUNCHED)
    pledged = c.pledges.get(backer, 0)
    require(pledged > 0 and backer not in c.claimed, "NothingDue", account=backer)
    shares = shares_of(c.terms, pledged)
    world.campaigns[address] = replace(c.give(backer, shares, kept=True), claimed=c.claimed | {backer})
    world.emit("Campaign", "SharesClaimed", campaign=address, backer=backer, shares=shares)


def credit(world: World, sender: Address, address: Address, index: int, spec: SegmentSpec) -> None:
    c = record_of(world, address)
    key = SegmentKey(c.job or JobId(0), index)
    segment = world.segments.get(key)
    if segment is None or segment.state is not SegmentState.SETTLED:
        revert("NotSettled", segment=index)
    require(leaf(spec) == segment.leaf, "WrongLeaf", expected=segment.leaf, actual=leaf(spec))
    require(index not in c.credited, "AlreadyCredited", segment=index)
    steps = min(spec.steps, c.terms.steps - c.credited_steps)
    auditors = _right(world, key, segment.attempt)
    solver_shares = SHARES * c.terms.solvers // WHOLE * steps // c.terms.steps
    pot = SHARES * c.terms.auditors // WHOLE * steps // c.terms.steps
    auditor_shares = pot // len(auditors) if auditors else 0
    c = replace(c, credited=c.credited | {index}, credited_steps=c.credited_steps + steps)
    c = c.give(segment.solver, solver_shares)
    for auditor in auditors:
        c = c.give(auditor, auditor_shares)
    world.campaigns[address] = c
    world.emit(
        "Campaign", "Credited", campaign=address, segment=index, solver=segment.solver, steps=steps,
        solverShares=solver_shares, auditorShares=auditor_shares, auditors=auditors,
    )  # fmt: skip


def _right(world: World, key: SegmentKey, attempt: int) -> tuple[Address, ...]:
    root = world.rounds[key, attempt].trace_root
    attested = world.attestations.get((key, attempt), {})
    return tuple(
        account
        for account, attestation in attested.items()
        if attestation == sha256(root + bytes.fromhex(account[2:])).digest()
    )


# ------------------------------------------------------------------ money


def finish(world: World, sender: Address, address: Address) -> None:
    c = _in_stage(world, address, Stage.LAUNCHED)
    assert c.job is not None
    with suppress(RevertedError):  # where nothing is to be refunded, something may be owed all the same
        market.refund(world, address, c.job)
    owed, free = world.owed.get(address, 0), world.free.get(address, 0)
    require(owed + free > 0, "NothingReturned")
    if c.terms.goal == 0:
        c = replace(c, income=c.income.add(owed + free, c.supply))
    else:
        c = replace(c, returned=c.returned + owed + free)
    world.campaigns[address] = c
    world.emit("Campaign", "Returned", campaign=address, amount=owed + free)
    if owed:
        market.withdraw(world, address)
    if free:
        world.withdraw_stake(address, free)


def claim_return(world: World, sender: Address, address: Address, backer: Address) -> None:
    c = record_of(world, address)
    amount = _return_of(c, backer)
    require(amount > 0, "NothingDue", account=backer)
    world.campaigns[address] = replace(c, taken={**c.taken, backer: c.taken.get(backer, 0) + amount})
    world.emit("Campaign", "ReturnClaimed", campaign=address, backer=backer, amount=amount)
    world.pay(address, backer, amount)


def pay_income(world: World, sender: Address, address: Address, amount: int) -> None:
    c = record_of(world, address)
    world.campaigns[address] = replace(c, income=c.income.add(amount, c.supply))
    world.emit("Campaign", "IncomePaid", campaign=address, payer=sender, amount=amount)
    world.pay(sender, address, amount)


def claim_income(world: World, sender: Address, address: Address) -> None:
    c = record_of(world, address)
    amount, income = c.income.take(sender, c.balance(sender))
    require(amount > 0, "NothingDue", account=sender)
    world.campaigns[address] = replace(c, income=income)
    world.emit("Campaign", "IncomeClaimed", campaign=address, holder=sender, amount=amount)
    world.pay(address, sender, amount)


def collect_rewards(world: World, sender: Address, address: Address, epoch: int) -> None:
    c = record_of(world, address)
    if emission.claimable(world, epoch, address) > 0:
        emission.collect(world, address, epoch, address)
    amount = world.rewards.get(address, 0) - c.rewards_held
    require(amount > 0, "NothingDue", account=address)
    rewards = c.rewards.add(amount, c.supply)
    world.campaigns[address] = replace(c, rewards=rewards, rewards_held=c.rewards_held + amount)
    world.emit("Campaign", "RewardsCollected", campaign=address, amount=amount)


def claim_rewards(world: World, sender: Address, address: Address) -> None:
    c = record_of(world, address)
    amount, rewards = c.rewards.take(sender, c.balance(sender))
    require(amount > 0, "NothingDue", account=sender)
    world.campaigns[address] = replace(c, rewards=rewards, rewards_held=c.rewards_held - amount)
    world.rewards[address] -= amount
    world.rewards[sender] = world.rewards.get(sender, 0) + amount
    world.emit("Campaign", "RewardsClaimed", campaign=address, holder=sender, amount=amount)
