"""The fake chain and the contracts on anvil are one: whatever five accounts do, in any order, comes to the same.

The contracts are the specification, the fake chain is the model that Hypothesis compares them with. What is refused,
the events, and all money are compared after every call, everything that can be read at the end; nothing is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import pytest
from crowdtrain._errors import Refused
from crowdtrain._fake_world import MARKET, STAKE, World
from crowdtrain.chain import (
    INITIAL,
    NONE,
    Address,
    Chain,
    GameId,
    GroupProof,
    JobId,
    JobTerms,
    Receipt,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    Source,
)  # fmt: skip
from crowdtrain.devnet import Devnet
from crowdtrain.fakes import FakeChain
from crowdtrain.plan import Plan
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine import merkle
from crowdtrain_engine.trace import seal
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sdk.arena import CID

ACTORS = 5
PURSE = 10**6
BOND, PRICE = 1001, 1000
"""stake and price; the stake is odd, so that halves are rounded"""
LEASE, WINDOW, CLOCK, LIFE = 600, 200, 100, 20_000
EPOCH, UNBONDING = 30 * 24 * 3600, 14 * 24 * 3600
TIMES = (
    0,
    1,
    30,
    LEASE // 10,
    WINDOW // 2,
    WINDOW // 2 + 1,
    CLOCK + 1,
    WINDOW + 1,
    WINDOW + CLOCK + 1,
    LEASE + 1,
)
LONG = (LIFE, UNBONDING, EPOCH)
GROUPS = tuple(merkle.leaf(bytes([group])) for group in range(3))
TRACE = (merkle.leaf(b"before"), merkle.leaf(b"middle"), merkle.leaf(b"after"))
ROOT = merkle.root(TRACE)

actors = st.integers(0, ACTORS - 1)
slots = st.integers(0, 31)
care = st.integers(0, 7)
"""nought of it does what cannot be right"""


def _plan() -> Plan:
    """Four segments: one from the initial state, one on it, one on both, and one on whichever of those there is."""

    def spec(*inputs: Source, fallbacks: tuple[Source, ...] = (), quorum: int = 0) -> SegmentSpec:
        return SegmentSpec(bytes(32), bytes(32), 4, 2, PRICE, inputs, fallbacks, quorum)

    first, second = Source(INITIAL, 0), Source(INITIAL, 1)
    return Plan(
        (
            spec(first, second),
            spec(Source(0, 0), second),
            spec(Source(0, 1), Source(1, 0), second),
            spec(Source(1, 1), Source(0, 0), first, fallbacks=(Source(0, 1), second, first), quorum=1),
        )
    )


PLAN = _plan()


class Mirror(World):
    """The fake chain's state, on a chain whose blocks have the hashes of anvil's."""

    devnet: Devnet

    def hash_of(self, block: int) -> bytes:
        if not 0 < self.block - block <= 256:
            return NONE
        return bytes.fromhex(self.devnet.node.block(block).hash[2:])


DEEDS: list[st.SearchStrategy[tuple[str, dict[str, object]]]] = []
Method = TypeVar("Method", bound=Callable[..., None])


def deed(weight: int, **arguments: st.SearchStrategy[object]) -> Callable[[Method], Method]:
    """Makes a method one of what may be done, this often."""

    def register(method: Method) -> Method:
        DEEDS.extend(
            st.tuples(st.just(method.__name__), st.fixed_dictionaries(arguments)) for _ in range(weight)
        )
        return method

    return register


@dataclass(frozen=True)
class Outcome:
    """What a call comes to: a value and, if it was a transaction, its block and events; or why it was refused."""

    value: object = None
    block: int = 0
    events: tuple[tuple[str, str, dict[str, object]], ...] = ()
    refusal: str = ""
    reasons: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, chain: Chain, call: Callable[[Chain], object]) -> Outcome:
        try:
            value = call(chain)
        except Refused as reason:
            return cls(refusal=reason.error, reasons=reason.values)
        if isinstance(value, Receipt):
            value = (None, value)
        if not (isinstance(value, tuple) and value and isinstance(value[-1], Receipt)):
            return cls(value)
        events = tuple(
            (event.contract, event.name, {k: v for k, v in event.fields.items() if k != "position"})
            for event in value[1].events
            if event.contract != "Money"
        )
        return cls(value[0], value[1].block, events)


class Twins:
    """Both chains, and what five accounts do on them."""

    devnet: Devnet
    snapshot: object
    did: Counter[str]
    checked = False

    def begin(self, stakes: list[int]) -> None:
        devnet = self.devnet
        devnet.node.request("evm_revert", type(self).snapshot)
        type(self).snapshot = devnet.node.request("evm_snapshot")
        self.real = [Web3Chain(devnet.rpc, devnet.deployment, key) for key in devnet.keys]
        for chain in self.real:
            assert chain._sender is not None
            chain._sender._poll = 0.002  # a block is there as soon as its transaction
        self.accounts = [chain.address for chain in self.real]
        reader = self.real[0]
        start = reader.number("Emission", "start")
        tokens = dict.fromkeys(self.accounts, PURSE)
        world = Mirror(time=reader.now(), block=reader.head()[0], start=start, tokens=tokens)
        world.devnet = devnet
        self.fake = [FakeChain(account, world=world) for account in self.accounts]
        self.refunded: Counter[JobId] = Counter()
        for actor, stake in enumerate(stakes):
            self.do(actor, "deposit", lambda chain, amount=stake * BOND: chain.deposit(amount))
        self.post(0, 5, 40_000, 10)

    @property
    def jobs(self) -> int:
        return self.fake[0].job_count()

    # ------------------------------------------------------------ both do it

    def do(self, actor: int, name: str, call: Callable[[Chain], object]) -> None:
        """Does the same on both."""
        self.checked = False
        real, fake = Outcome.of(self.real[actor], call), Outcome.of(self.fake[actor], call)
        assert real == fake, f"{name}: {real} on the contracts, {fake} on the fake chain"
        self.did[f"{name}: {real.refusal}" if real.refusal else name] += 1
        for _, event, fields in real.events:
            if event == "Refunded":
                self.refunded[cast(JobId, fields["job"])] += cast(int, fields["amount"])
        if not real.refusal:
            self.check_money()
        self.checked = True

    def check_money(self) -> None:
        """Every balance is the same, and the contracts hold what they owe, to the unit."""
        real, fake = self.real[0], self.fake[0]
        staked = owed = 0
        for account in self.accounts:
            money = [(c.tokens(account), c.stake(account), c.owed(account)) for c in (real, fake)]
            assert money[0] == money[1], account
            staked += sum(money[0][1])
            owed += money[0][2]
        burned = [real.number(contract, "burned") for contract in ("Stake", "Market")]
        assert sum(burned) == fake.burned()
        held = [real.tokens(Address(getattr(self.devnet.deployment, name))) for name in ("stake", "market")]
        assert held == [fake.tokens(STAKE), fake.tokens(MARKET)]
        escrow = 0
        for job in map(JobId, range(1, self.jobs + 1)):
            buyer, terms, reserved, spent, _ = real.read("Market", "jobs", job)
            assert buyer
            assert reserved + spent + self.refunded[job] <= terms["escrow"]
            escrow += terms["escrow"] - spent - self.refunded[job]
        assert held == [staked + burned[0], escrow + owed + burned[1]]

    def check_everything(self) -> None:
        reader = [cast(Chain, self.real[0]), cast(Chain, self.fake[0])]

        def same(name: str, view: Callable[[Chain], object]) -> None:
            real, fake = (Outcome.of(chain, view) for chain in reader)
            assert real == fake, f"{name}: {real} on the contracts, {fake} on the fake chain"

        for name in ("now", "job_count", "game_count", "total_weight", "epoch", "auditors", "rules"):
            same(name, lambda chain, name=name: getattr(chain, name)())
        same("head", lambda chain: chain.head()[0])
        for a in self.accounts:
            for name in ("weight", "leaving", "record", "reward_tokens"):
                same(name, lambda chain, name=name, a=a: getattr(chain, name)(a))
            same("rewards", lambda chain, a=a: chain.rewards(chain.epoch(), a))
            same("rate", lambda chain, a=a: chain.rate_of(a, PRICE, 0))
        for job in map(JobId, range(1, self.jobs + 2)):
            same("job", lambda chain, job=job: chain.job(job))
            for a in self.accounts:
                same("barred", lambda chain, job=job, a=a: chain.barred(job, a))
            for key in (SegmentKey(job, index) for index in range(len(PLAN.segments) + 1)):
                same("segment", lambda chain, key=key: chain.segment(key))
                for attempt in range(self.fake[0].segment(key).attempt + 1):
                    same("round", lambda chain, key=key, n=attempt: chain.round(key, n))
                    same("attestors", lambda chain, key=key, n=attempt: chain.attestors(key, n))
                    for a in self.accounts:
                        same("drawn", lambda chain, key=key, n=attempt, a=a: chain.is_drawn(key, n, a))
                        same("attested", lambda chain, key=key, n=attempt, a=a: chain.attestation(key, n, a))
        for game in map(GameId, range(1, self.real[0].game_count() + 2)):
            same("game", lambda chain, game=game: replace(chain.game(game), position=b"", history=()))

    def teardown(self) -> None:
        if self.checked:
            self.check_everything()

    # ------------------------------------------------------------ which segment

    def key(self, slot: int, care: int, *wanted: SegmentState) -> SegmentKey:
        """One of all segments; with care, of those in a state that is wanted, if there is any."""
        size = len(PLAN.segments)
        keys = [SegmentKey(JobId(1 + job), index) for job in range(self.jobs) for index in range(size)]
        fitting = [key for key in keys if self.at(key).state in wanted]
        if care == 0:
            keys.append(SegmentKey(JobId(self.jobs), size))
        elif fitting:
            keys = fitting
        return keys[slot % len(keys)]

    def at(self, key: SegmentKey) -> Segment:
        return self.fake[0].segment(key)

    def spec(self, key: SegmentKey, care: int = 1) -> SegmentSpec:
        spec = PLAN.segments[min(key.index, len(PLAN.segments) - 1)]
        return spec if care else replace(spec, steps=5)

    def proofs(self, key: SegmentKey) -> list[GroupProof]:
        """The groups that a claim starts from now."""
        sources = self.spec(key).chosen(key.index, lambda index: self.at(SegmentKey(key.job, index)))
        proofs = []
        for source in sources or self.spec(key).inputs:
            roots: tuple[bytes, ...] = GROUPS
            if source.segment != INITIAL:
                roots = self.at(SegmentKey(key.job, source.segment)).group_roots or GROUPS[:2]
            tree = merkle.Tree(roots)
            proofs.append(GroupProof(roots[source.group], tuple(tree.proof(source.group))))
        return proofs

    # ------------------------------------------------------------ time

    @deed(4, time=st.sampled_from(TIMES), long=st.integers(0, 60))
    def advance(self, time: int, long: int) -> None:
        seconds = LONG[long] if long < len(LONG) else time
        self.devnet.advance(seconds)
        self.fake[0].advance(seconds)

    @deed(2, blocks=st.sampled_from([1, 1, 1, 2, 2, 257]))
    def mine(self, blocks: int) -> None:
        self.devnet.mine(blocks)
        self.fake[0].mine(blocks)

    # ------------------------------------------------------------ money

    @deed(1, actor=actors, amount=st.integers(0, 5 * BOND))
    def deposit(self, actor: int, amount: int) -> None:
        self.do(actor, "deposit", lambda chain: chain.deposit(amount))

    @deed(1, actor=actors, amount=st.integers(0, 5 * BOND))
    def withdraw_stake(self, actor: int, amount: int) -> None:
        self.do(actor, "withdraw stake", lambda chain: chain.withdraw_stake(amount))

    @deed(2, actor=actors)
    def withdraw(self, actor: int) -> None:
        self.do(actor, "withdraw", lambda chain: chain.withdraw())

    @deed(1, actor=actors, slot=slots)
    def refund(self, actor: int, slot: int) -> None:
        job = JobId(1 + slot % (self.jobs + 1))
        self.do(actor, "refund", lambda chain: chain.refund(job))

    @deed(2, actor=actors, account=actors, back=st.integers(0, 2))
    def collect_rewards(self, actor: int, account: int, back: int) -> None:
        epoch = max(0, self.fake[0].epoch() - back)
        whose = self.accounts[account]
        self.do(actor, "collect rewards", lambda chain: chain.collect_rewards(epoch, whose))

    # ------------------------------------------------------------ jobs

    @deed(
        2,
        actor=actors,
        prices=st.integers(0, 5),
        rate=st.sampled_from([0, 15_000, 40_000]),
        odd=st.integers(0, 20),
    )
    def post(self, actor: int, prices: int, rate: int, odd: int) -> None:
        terms = JobTerms(
            plan_root=PLAN.root,
            initial_root=merkle.root(GROUPS),
            initial_groups=3,
            segments=len(PLAN.segments),
            escrow=prices * 2 * PRICE,
            stake=BOND,
            lease=LEASE,
            window=WINDOW,
            clock=CLOCK,
            audit_rate=rate,
            audit_share=1501,
            deadline=self.fake[0].now() + LIFE,
        )
        wrong = [
            {"window": 1}, {"clock": 0}, {"lease": 0}, {"audit_rate": 40_001}, {"window": UNBONDING}, {"deadline": 1},
            {"deadline": 2**40}, {"escrow": 10**9},
        ]  # fmt: skip
        if odd < len(wrong):
            terms = replace(terms, **wrong[odd])  # type: ignore[arg-type]
        elif self.jobs == 3:
            return
        self.do(actor, "post", lambda chain: chain.post(terms, CID))

    @deed(3, actor=actors, slot=slots, care=care)
    def claim(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.OPEN)
        spec, proofs = self.spec(key, care), self.proofs(key)
        proof = PLAN.proof(min(key.index, len(PLAN.segments) - 1))
        self.do(actor, "claim", lambda chain: chain.claim(key, spec, proof, proofs))

    @deed(3, actor=actors, slot=slots, care=care, honest=care)
    def commit(self, actor: int, slot: int, care: int, honest: int) -> None:
        key = self.key(slot, care, SegmentState.CLAIMED)
        at = self.at(key)
        if care and at.solver in self.accounts:
            actor = self.accounts.index(at.solver)
        outputs = GROUPS[: len(self.spec(key).inputs)]
        sealed = seal(ROOT if honest else GROUPS[0], bytes.fromhex(self.accounts[actor][2:]))
        self.do(actor, "commit", lambda chain: chain.commit(key, at.input_root, outputs, sealed, CID))

    @deed(3, actor=actors, slot=slots, care=care)
    def settle(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.COMMITTED)
        spec, root = self.spec(key, care), ROOT if slot % 4 else NONE
        self.do(actor, "settle", lambda chain: chain.settle(key, spec, root))

    @deed(2, actor=actors, slot=slots, care=care)
    def forfeit(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.COMMITTED)
        spec = self.spec(key, care)
        self.do(actor, "forfeit", lambda chain: chain.forfeit(key, spec))

    @deed(2, actor=actors, slot=slots, care=care)
    def expire(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.CLAIMED)
        self.do(actor, "expire", lambda chain: chain.expire(key))

    @deed(2, actor=actors, slot=slots, care=care)
    def void(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.CLAIMED, SegmentState.COMMITTED)
        spec = self.spec(key, care)
        self.do(actor, "void", lambda chain: chain.void(key, spec))

    # ------------------------------------------------------------ audits

    @deed(1, actor=actors, amount=st.integers(0, 5 * BOND))
    def enroll(self, actor: int, amount: int) -> None:
        self.do(actor, "enroll", lambda chain: chain.enroll(amount))

    @deed(2, actor=actors, amount=st.integers(0, 5 * BOND))
    def leave(self, actor: int, amount: int) -> None:
        self.do(actor, "leave", lambda chain: chain.leave(amount))

    @deed(2, actor=actors, account=actors)
    def finish_leaving(self, actor: int, account: int) -> None:
        self.do(actor, "finish leaving", lambda chain: chain.finish_leaving(self.accounts[account]))

    @deed(2, actor=actors, slot=slots, care=care)
    def draw(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.COMMITTED)
        attempt = self.at(key).attempt
        self.do(actor, "draw", lambda chain: chain.draw(key, attempt))

    @deed(2, actor=actors, slot=slots, care=care, honest=care)
    def attest(self, actor: int, slot: int, care: int, honest: int) -> None:
        key = self.key(slot, care, SegmentState.COMMITTED)
        at = self.at(key)
        given = seal(ROOT, bytes.fromhex(self.accounts[actor][2:])) if honest > 1 else (at.seal, NONE)[honest]
        named = at.seal if care != 1 else GROUPS[0]
        self.do(actor, "attest", lambda chain: chain.attest(key, at.attempt, named, given))

    @deed(2, actor=actors, slot=slots, care=care)
    def reveal(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.COMMITTED)
        attempt, root = self.at(key).attempt, ROOT if care != 1 else NONE
        self.do(actor, "reveal", lambda chain: chain.reveal(key, attempt, root))

    @deed(2, actor=actors, account=actors, slot=slots, care=care)
    def punish(self, actor: int, account: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.SETTLED)
        attempt, auditor = self.at(key).attempt, self.accounts[account]
        self.do(actor, "punish", lambda chain: chain.punish(key, attempt, auditor))

    # ------------------------------------------------------------ disputes

    @deed(2, actor=actors, slot=slots, care=care)
    def challenge(self, actor: int, slot: int, care: int) -> None:
        key = self.key(slot, care, SegmentState.COMMITTED)
        sealed = self.at(key).seal if care != 1 else GROUPS[0]
        spec = self.spec(key, care)
        self.do(actor, "challenge", lambda chain: chain.challenge(key, spec, sealed))

    def game(self, slot: int) -> GameId:
        return GameId(1 + slot % (self.fake[0].game_count() + 1))

    @deed(2, actor=actors, slot=slots, honest=care)
    def reveal_trace(self, actor: int, slot: int, honest: int) -> None:
        """Whoever wants to; one of the game's own players mostly."""
        if self.fake[0].game_count() == 0:
            return
        id = GameId(1 + slot % self.fake[0].game_count())
        defender = self.fake[0].game(id).defender
        actor = self.accounts.index(defender) if slot % 4 else actor
        trace = TRACE if honest else GROUPS
        self.do(actor, "reveal trace", lambda chain: chain.reveal_trace(id, chain.game(id).position, trace))

    @deed(2, actor=actors, slot=slots)
    def timeout(self, actor: int, slot: int) -> None:
        self.do(actor, "timeout", lambda chain: chain.timeout(self.game(slot)))

    @deed(2, actor=actors, slot=slots)
    def close(self, actor: int, slot: int) -> None:
        self.do(actor, "close", lambda chain: chain.close(self.game(slot)))

    # ------------------------------------------------------------ longer stories

    @deed(6, actor=actors, slot=slots)
    def deliver(self, actor: int, slot: int) -> None:
        if self.account_needs(actor):
            self.deposit(actor, 2 * BOND)
        self.claim(actor, slot, 2)
        self.commit(actor, slot, 2, 7)

    def account_needs(self, actor: int) -> bool:
        return self.fake[0].stake(self.accounts[actor])[0] < BOND

    @deed(1, amounts=st.lists(st.integers(0, BOND), min_size=ACTORS, max_size=ACTORS))
    def enroll_all(self, amounts: list[int]) -> None:
        for actor, amount in enumerate(amounts):
            self.enroll(actor, amount)

    @deed(4, slot=slots, honesty=st.lists(care, min_size=ACTORS, max_size=ACTORS))
    def audit(self, slot: int, honesty: list[int]) -> None:
        self.mine(2)
        for actor, honest in enumerate(honesty):
            if honest != 2:
                self.attest(actor, slot, 2, honest)

    @deed(4, slot=slots)
    def finish(self, slot: int) -> None:
        """All that is committed is settled, if it can be, and everybody reported."""
        self.advance(WINDOW + 1, 60)
        for each in range(4):
            self.settle(0, 4 * (slot + each) + 1, 2)
        for account in range(ACTORS):
            self.punish(slot % ACTORS, account, slot, 2)

    @deed(4, actor=actors, slot=slots, answer=care)
    def dispute(self, actor: int, slot: int, answer: int) -> None:
        """A game to its end by the clock, with or without an answer."""
        self.challenge(actor, slot, 2)
        games = self.fake[0].game_count()
        if games == 0:
            return
        self.advance(WINDOW // 2 + 1, 60)
        if answer:
            self.reveal_trace(actor, 4 * games + games - 1, answer - 1)
        self.advance(CLOCK + 1, 60)
        for game in range(games):
            self.timeout(actor, game)
            self.close(actor, game)


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with Devnet(
        tmp_path_factory.mktemp("devnet"), accounts=ACTORS, tokens=PURSE, timestamp=World.time
    ) as devnet:
        devnet.node.request("anvil_setBlockTimestampInterval", 0)
        for key in devnet.keys:
            chain = Web3Chain(devnet.rpc, devnet.deployment, key)
            for spender in (devnet.deployment.stake, devnet.deployment.market):
                chain.approve(spender, 2**256 - 1)
        yield devnet


def explore(devnet: Devnet, examples: int, steps: int) -> Counter[str]:
    """Lets them act; how often each thing was done."""

    class Machine(Twins, RuleBasedStateMachine):
        """Deeds in any order. They are one rule, since Hypothesis leaves rules out of most runs."""

        @initialize(stakes=st.lists(st.integers(2, 20), min_size=ACTORS, max_size=ACTORS))
        def start(self, stakes: list[int]) -> None:
            self.begin(stakes)

        @rule(deed=st.one_of(DEEDS))
        def act(self, deed: tuple[str, dict[str, object]]) -> None:
            name, arguments = deed
            getattr(self, name)(**arguments)

    Machine.devnet, Machine.snapshot, Machine.did = devnet, devnet.node.request("evm_snapshot"), Counter()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Machine.did


def test_whatever_is_done_comes_to_the_same(devnet: Devnet) -> None:
    did = explore(devnet, examples=20, steps=40)
    missing = {"post", "claim", "commit", "settle", "attest", "challenge", "timeout", "enroll"} - set(did)
    assert not missing, f"never done: {missing}"


@pytest.mark.slow
def test_whatever_is_done_for_longer_comes_to_the_same(devnet: Devnet) -> None:
    did = explore(devnet, examples=400, steps=80)
    deeds = {
        "draw", "withdraw", "withdraw stake", "refund", "collect rewards", "forfeit", "expire", "void", "leave",
        "finish leaving", "reveal", "reveal trace", "punish", "close",
    }  # fmt: skip
    missing = deeds - set(did)
    assert not missing, f"never done: {missing}"
