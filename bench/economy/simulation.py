"""Rounds of work in the town: jobs are posted, taken, audited, disputed, settled; in the end everybody leaves.

Nothing is decided here: agents decide, the contracts pay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import cast

from crowdtrain._errors import Refused
from crowdtrain.chain import Address, ChainEvent, SegmentState
from crowdtrain.economics import Assumptions

from bench.economy.agents import (
    Abandoner,
    Agent,
    Audited,
    Auditor,
    Copier,
    Hider,
    Liar,
    Reporter,
    Ring,
    Silent,
    Slanderer,
    Solver,
    Splitter,
    Sybil,
)
from bench.economy.town import Account, Job, Terms, Town, open_town

__all__ = ["HONEST", "Cast", "Outcome", "Result", "simulate"]

DAY = 24 * 3600
EPOCH = 30 * DAY
DEAD = Address("0x000000000000000000000000000000000000dEaD")
STAKES = 60
"""stakes that a solver brings along"""
BONDS = 20
"""stakes that an auditor has left for disputes"""
ROLES = (Solver.role, Auditor.role)
HONEST = (Agent.kind, Splitter.kind, Reporter.kind)
"""kinds that do what the protocol asks for"""


@dataclass(frozen=True, kw_only=True)
class Cast:
    """How many segments each kind takes in a round, and how many hundredths of the auditors' weight it has."""

    honest: int = 20
    lazy: int = 8
    colluding: int = 10
    sybil: int = 16
    abandoning: int = 2
    hiding: int = 1
    slandering: int = 2
    """right segments that are challenged"""
    weights: tuple[tuple[str, int], ...] = (
        ("honest", 40), ("split weight", 10), ("colluding", 40), ("silent", 5), ("copying", 5),
    )  # fmt: skip

    @property
    def segments(self) -> int:
        """Segments of a round."""
        return self.honest + self.lazy + self.colluding + self.sybil + self.abandoning + self.hiding


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one kind of agent did and earned, in prices of a segment."""

    kind: str
    role: str
    accounts: int
    segments: int
    """taken; challenged, by who slanders"""
    draws: int
    caught: int
    expected_caught: float
    """lies that the model expects to be caught"""
    deviation: float
    """its standard deviation"""
    money: float
    bounties: float
    """of it, from what others were slashed"""
    rewards: float
    computing: float
    gas: float
    honest: float
    """what honest agents earned with as many segments and draws; of solvers, without bounties, which those had
    whom somebody slandered"""

    @property
    def profit(self) -> float:
        """What is left."""
        return self.money + self.rewards - self.computing - self.gas


@dataclass(frozen=True, kw_only=True)
class Result:
    """A whole run. Money in prices of a segment, but for ``sums``."""

    seed: int
    rounds: int
    terms: Terms
    cast: Cast
    given: Assumptions
    segments: int
    commitments: int
    settled: int
    wrong: int
    """settled, though wrong"""
    overturned: int
    blocks: int
    buyer_paid: float
    """by the buyer who is nobody's accomplice"""
    fees: float
    farmed: float
    """fees paid for records, of all fees"""
    slashed: float
    """burned stakes, bonds and penalties"""
    outcomes: tuple[Outcome, ...]
    rates: dict[str, list[float]] = field(default_factory=dict)
    """auditors expected for each commitment of each kind"""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """profit of each kind after each round, without rewards"""
    left: int = 0
    """token units left in the contracts when everybody had gone"""
    unexplained: int = 0
    """token units minted that are neither in a wallet, nor burned, nor in the contracts"""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        fields = asdict(self)
        fields["outcomes"] = [asdict(of) | {"profit": of.profit} for of in self.outcomes]
        return fields


class Simulation:
    """One run; see :func:`simulate`."""

    def __init__(self, town: Town, cast: Cast, terms: Terms, given: Assumptions) -> None:
        self.town, self.cast, self.terms, self.given = town, cast, terms, given
        self.weights = {kind: hundredths for kind, hundredths in cast.weights if hundredths}
        self.buyer = Agent(town, [self._account(3000 * cast.segments)])
        self.reporter = Reporter(town, [self._account(0)])
        self.agents = [*self._solvers(), *self._auditors(), *self._griefers(), self.reporter]
        self.jobs: list[Job] = []
        self.works: list[Audited] = []
        self.curves: dict[str, list[float]] = {agent.kind_of_role: [] for agent in self.agents}
        self.rates: dict[str, list[float]] = {}

    # ---------------------------------------------------------------- people

    def _account(self, wallet: float, stake: float = 0, weight: float = 0) -> Account:
        """An account with tokens in its wallet, free as stake, and as weight in draws; in prices."""
        tokens, staked, enrolled = (round(amount * self.terms.price) for amount in (wallet, stake, weight))
        account = self.town.account(tokens + staked + enrolled)
        if staked + enrolled:
            account.deposit(staked + enrolled)
        if enrolled:
            account.enroll(enrolled)
        return account

    def _solvers(self) -> list[Agent]:
        cast, stake = self.cast, STAKES * self.terms.stake
        agents: list[Agent] = []
        for kind, count in ((Solver, min(4, cast.honest)), (Liar, min(2, cast.lazy))):
            agents += [kind(self.town, [self._account(0, stake)]) for _ in range(count)]
        if cast.sybil:
            agents.append(Sybil(self.town, [self._account(0, stake), self._account(stake, stake)]))
        return agents

    def _auditors(self) -> list[Agent]:
        bond = BONDS * self.terms.stake

        def accounts(kind: str, count: int) -> list[Account]:
            each = self.weights[kind] * self.terms.stake / count
            return [self._account(0, bond, each) for _ in range(count)]

        agents: list[Agent] = []
        for kind, count in ((Auditor, 4), (Silent, 1), (Copier, 1)):
            if kind.kind in self.weights:
                agents += [kind(self.town, [account]) for account in accounts(kind.kind, count)]
        if Splitter.kind in self.weights:
            agents.append(Splitter(self.town, accounts(Splitter.kind, 5)))
        if Ring.kind in self.weights:
            solvers = [self._account(0, STAKES * self.terms.stake) for _ in range(Ring.SOLVERS)]
            agents.append(Ring(self.town, [*solvers, *accounts(Ring.kind, 4), self._account(0, bond)]))
        return agents

    def _griefers(self) -> list[Agent]:
        wanted: Sequence[tuple[type[Agent], int]] = (
            (Abandoner, self.cast.abandoning), (Hider, self.cast.hiding), (Slanderer, self.cast.slandering),
        )  # fmt: skip
        return [
            kind(self.town, [self._account(0, STAKES * self.terms.stake)]) for kind, count in wanted if count
        ]

    def _of(self, kind: type[Agent]) -> list[Agent]:
        return [agent for agent in self.agents if type(agent) is kind]

    # ---------------------------------------------------------------- a round

    def round(self) -> None:
        """Posts a job for everybody, and sees it through."""
        for agent in self.agents:
            if isinstance(agent, Sybil):
                agent.farm(self.terms)
        job = self.town.post(self.buyer.accounts[0], self.terms, self.cast.segments)
        self.jobs.append(job)
        works = self._take(job)
        self._audit(works)
        self._slander(works)
        self.town.advance_to(max(work.attest_until for work in works) + 1)
        self._dispute(works)
        self.town.advance_to(max(work.until for work in works) + 1)
        self._settle(works)
        self._punish(works)
        # by now each game has stood still for a clock, and what was not revealed is forfeited
        self.town.advance_to(self.town.now() + 2 * self.terms.clock)
        self._time_out(works)
        self._settle(works)
        self._open_again(job)
        self.works += works
        for agent in self.agents:
            agent.worth = self._worth(agent)
        for kind, curve in self.curves.items():
            curve.append(round(sum(agent.worth for agent in self.agents if agent.kind_of_role == kind), 3))

    def _take(self, job: Job) -> list[Audited]:
        """Everybody takes their segments, in a random order."""
        cast = self.cast
        takers: list[tuple[Agent, Account]] = []
        wanted: Sequence[tuple[type[Agent], int, int]] = (
            (Solver, cast.honest, 1), (Liar, cast.lazy, 1), (Ring, cast.colluding, Ring.SOLVERS),
            (Sybil, cast.sybil, 1), (Abandoner, cast.abandoning, 1), (Hider, cast.hiding, 1),
        )  # fmt: skip
        for kind, count, solvers in wanted:
            pairs = [(agent, account) for agent in self._of(kind) for account in agent.accounts[:solvers]]
            takers += [pairs[i % len(pairs)] for i in range(count)]
        self.town.rng.shuffle(takers)
        taken = (agent.take(account, job, index) for index, (agent, account) in enumerate(takers))
        works = [work for work in taken if work is not None]
        for _ in range(2):
            self.town.devnet.advance(1)  # the block of the last draw, and one that can look at its hash
        for work in works:
            segment = work.solver.segment(work.key)
            work.until, work.attest_until = segment.until, job.terms.attest_until(segment.until)
            work.rate = work.solver.round(work.key, work.attempt).rate / 10_000
            self.rates.setdefault(work.agent.kind_of_role, []).append(work.rate)
            if not work.honest:
                work.agent.chances.append(self._chance(work))
        return works

    def _chance(self, work: Audited) -> float:
        """That somebody who replays is drawn: weights and accounts are those at the beginning."""
        unseen = 1.0
        total = sum(self.weights.values())
        replaying: Sequence[tuple[type[Agent], int]] = ((Auditor, 4), (Splitter, 5), (Ring, 4))
        for kind, accounts in replaying:
            if type(work.agent) is not kind:
                weight = self.weights.get(kind.kind, 0) / total / accounts
                unseen *= (1 - min(1.0, work.rate * weight)) ** accounts
        return 1 - unseen

    def _audit(self, works: Sequence[Audited]) -> None:
        """Auditors who are drawn act, in a random order, those who copy after the others."""
        reporter = self.reporter.accounts[0]
        for work in works:
            work.drawn = [
                (agent, account)
                for agent in self.agents
                if isinstance(agent, Auditor | Ring)
                for account in agent.accounts
                if account.is_drawn(work.key, work.attempt, account.address)
            ]
            self.town.rng.shuffle(work.drawn)
            work.drawn.sort(key=lambda pair: isinstance(pair[0], Copier))
            for agent, account in work.drawn:
                agent.draws += 1
                agent.audit(account, work)
            if work.drawn and not work.copied and not work.games:
                reporter.draw(work.key, work.attempt)

    def _slander(self, works: Sequence[Audited]) -> None:
        right = [work for work in works if work.honest]
        for agent in self._of(Slanderer):
            for work in self.town.rng.sample(right, min(self.cast.slandering, len(right))):
                agent.segments += 1
                agent.caught += 1
                agent.challenge(agent.accounts[0], work)

    def _dispute(self, works: Sequence[Audited]) -> None:
        for work in works:
            if work.games:
                work.agent.dispute(work)
                work.overturned = work.solver.segment(work.key).attempt != work.attempt
                work.agent.caught += work.overturned

    def _settle(self, works: Sequence[Audited]) -> None:
        """Solvers settle what can be settled."""
        for work in works:
            if work.overturned or work.settled or not work.agent.settles:
                continue
            if work.games and work.solver.segment(work.key).games:
                continue
            work.solver.settle(work.key, work.spec, work.root)
            work.settled = True

    def _punish(self, works: Sequence[Audited]) -> None:
        """Reports who was silent, or attested something else."""
        reporter = self.reporter.accounts[0]
        for work in works:
            for agent, account in work.drawn if work.settled else []:
                try:
                    reporter.punish(work.key, work.attempt, account.address)
                except Refused as refused:
                    if refused.error != "NotAtFault":
                        raise
                else:
                    agent.caught += 1

    def _time_out(self, works: Sequence[Audited]) -> None:
        for work in works:
            for _, _, number in [] if work.overturned else work.games:
                work.solver.timeout(number)

    def _open_again(self, job: Job) -> None:
        """What was hidden or abandoned is opened again, for nobody any more."""
        buyer = self.buyer.accounts[0]
        for key, spec in zip(job.keys, job.plan.segments, strict=True):
            state = buyer.segment(key).state
            if state is SegmentState.CLAIMED:
                buyer.expire(key)
            elif state is SegmentState.COMMITTED:
                buyer.forfeit(key, spec)
                for agent in self._of(Hider):
                    agent.caught += 1

    # ---------------------------------------------------------------- the end

    def leave(self) -> None:
        """Everybody takes out what is theirs, the buyer after the deadlines."""
        people = list(self.town.accounts.values())
        self.town.advance_to(self.jobs[-1].terms.deadline + 1)
        for job in self.jobs:
            self.buyer.accounts[0].refund(job.number)
        enrolled = [account for account in people if account.weight(account.address)]
        for account in enrolled:
            account.leave(account.weight(account.address))
        # rewards of an epoch can be claimed when it is over
        self.town.advance_to(self.town.now() + max(people[0].rules().unbonding, EPOCH) + 1)
        for account in enrolled:
            account.finish_leaving(account.address)
        for account in people:
            free, _ = account.stake(account.address)
            if free:
                account.withdraw_stake(free)
            if account.owed(account.address):
                account.withdraw()
            for epoch in range(account.epoch()):
                if account.rewards(epoch, account.address):
                    account.collect_rewards(epoch, account.address)

    def _costs(self, agent: Agent) -> tuple[float, float]:
        computing = self.given.cost * sum(account.computed for account in agent.accounts)
        return computing, self.given.gas_price * sum(
            account.gas for account in agent.accounts
        ) / self.terms.price

    def _worth(self, agent: Agent) -> float:
        """Profit so far, without rewards."""
        return agent.earned / self.terms.price - sum(self._costs(agent))

    def result(self, seed: int) -> Result:
        """What came of it, after everybody left."""
        outcomes = self._outcomes()
        held, burned = self._held()
        settled = [work for work in self.works if work.settled]
        price = self.terms.price
        fees = sum(price * self.buyer.accounts[0].rules().fee_rate // 10_000 for _ in settled)
        farmed = sum(agent.fees for agent in self.agents if isinstance(agent, Sybil))
        wallets = sum(account.tokens(account.address) for account in self.town.accounts.values())
        return Result(
            seed=seed,
            rounds=len(self.jobs),
            terms=self.terms,
            cast=self.cast,
            given=self.given,
            segments=sum(job.terms.segments for job in self.jobs),
            commitments=len(self.works),
            settled=len(settled),
            wrong=sum(not work.honest for work in settled),
            overturned=sum(work.overturned for work in self.works),
            blocks=self.buyer.accounts[0].head()[0],
            buyer_paid=-self.buyer.earned / price,
            fees=(fees + farmed) / price,
            farmed=farmed / price,
            slashed=(burned - fees - farmed) / price,
            outcomes=outcomes,
            rates=self.rates,
            curves=self.curves,
            left=held - burned,
            unexplained=self.town.minted - wallets - held,
        )

    def _held(self) -> tuple[int, int]:
        """Token units in Market and Stake, and what of them is burned."""
        account = self.buyer.accounts[0]
        deployment = self.town.devnet.deployment
        held = sum(
            account.tokens(Address(address)) for address in (deployment.market, deployment.stake, DEAD)
        )
        return held, account.burned()

    def _outcomes(self) -> tuple[Outcome, ...]:
        kinds: dict[str, list[Agent]] = {}
        for agent in self.agents:
            kinds.setdefault(agent.kind_of_role, []).append(agent)
        slashed = [event.fields for event in self._events() if event.name == "Slashed"]
        made = [self._outcome(agents, slashed) for agents in kinds.values()]
        solver, auditor = (
            next(of for of in made if (of.kind, of.role) == (Agent.kind, role)) for role in ROLES
        )
        by_segment = (solver.profit - solver.bounties) / max(1, solver.segments)
        by_draw = auditor.profit / max(1, auditor.draws)
        return tuple(
            # who has nothing to challenge earns nothing by not doing it
            replace(of, honest=of.draws * by_draw + (of.kind != Slanderer.kind) * of.segments * by_segment)
            for of in made
        )

    def _events(self) -> list[ChainEvent]:
        chain = self.buyer.accounts[0]
        return chain.events(self.town.devnet.deployment.block, chain.head()[0])

    def _outcome(self, agents: Sequence[Agent], slashed: Sequence[Mapping[str, object]]) -> Outcome:
        own = {account.address for agent in agents for account in agent.accounts}
        bounties = [
            cast(int, event["bounty"])
            for event in slashed
            if event["winner"] in own and event["account"] not in own
        ]
        chances = [chance for agent in agents for chance in agent.chances]
        costs = [self._costs(agent) for agent in agents]
        rewards = sum(
            account.reward_tokens(account.address) for agent in agents for account in agent.accounts
        )

        def total(of: Callable[[Agent], int]) -> int:
            return sum(map(of, agents))

        return Outcome(
            kind=agents[0].kind,
            role=agents[0].role,
            accounts=total(lambda agent: len(agent.accounts)),
            segments=total(lambda agent: agent.segments),
            draws=total(lambda agent: agent.draws),
            caught=total(lambda agent: agent.caught),
            expected_caught=sum(chances),
            deviation=math.sqrt(sum(chance * (1 - chance) for chance in chances)),
            money=total(lambda agent: agent.earned) / self.terms.price,
            bounties=sum(bounties) / self.terms.price,
            rewards=self.given.reward * rewards / self.terms.price,
            computing=sum(computing for computing, _ in costs),
            gas=sum(gas for _, gas in costs),
            honest=0.0,
        )


def simulate(
    rounds: int,
    *,
    cast: Cast | None = None,
    terms: Terms | None = None,
    given: Assumptions | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Plays so many rounds on a chain of its own. The same arguments give the same result."""
    with open_town(seed) as town:
        run = Simulation(town, cast or Cast(), terms or Terms(), given or Assumptions(gas_price=0.005))
        for done in range(rounds):
            run.round()
            progress(done + 1)
        run.leave()
        return run.result(seed)
