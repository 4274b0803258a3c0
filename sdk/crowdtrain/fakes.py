"""In-memory stand-ins for what the outside world provides, with the same rules. They ship, so that users
test with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from crowdtrain import _fake_audit as audit
from crowdtrain import _fake_campaign as campaigns
from crowdtrain import _fake_dispute as dispute
from crowdtrain import _fake_emission as emission
from crowdtrain import _fake_market as market
from crowdtrain._errors import Refused
from crowdtrain._fake_world import NOBODY, RULES, STAKE, RevertedError, World
from crowdtrain.chain import (
    NONE,
    Address,
    ChainEvent,
    Game,
    GameId,
    GroupProof,
    Job,
    JobId,
    JobTerms,
    PageOpening,
    ProgramLeaf,
    Receipt,
    Record,
    Round,
    Rules,
    Segment,
    SegmentKey,
    SegmentSpec,
    ValueProof,
)
from crowdtrain.crowdfund import Campaign, CampaignTerms, Holding

__all__ = ["FakeCampaigns", "FakeChain"]

T = TypeVar("T")
_APART = ("Crowdfund", "Campaign")
"""contracts whose events are given when they are asked for"""
_SHOWN = {"TraceRevealed": "checkpoints", "StatesRevealed": "states", "ChildrenRevealed": "children"}


class FakeChain:
    """The contracts in memory, as one account: a :class:`crowdtrain.chain.Chain`.

    Every transaction is a block of its own. Time stands still but for :meth:`advance`; gas is 0. Other
    accounts act through :meth:`as_account`.
    """

    def __init__(self, address: str = "0x" + "11" * 20, *, world: World | None = None) -> None:
        self._address = Address(address)
        self._world = world or World()

    def as_account(self, address: str) -> FakeChain:
        """The same chain as another account."""
        return FakeChain(address, world=self._world)

    def advance(self, seconds: int) -> None:
        """Lets time pass, in an empty block."""
        self._world.pass_block(seconds)

    def mine(self, blocks: int) -> None:
        """Makes empty blocks, in which no time passes."""
        for _ in range(blocks):
            self._world.pass_block()

    def mint(self, amount: int) -> None:
        """Gives this account tokens."""
        self._world.mint(self.address, amount)

    def _send(self, call: str, rule: Callable[..., T], *arguments: object) -> tuple[T, Receipt]:
        world = self._world
        with world.transaction(call):
            result = rule(world, self.address, *arguments)
        events = tuple(event for event in world.events[-32:] if event.block == world.block)
        return result, Receipt(world.transaction_hash, world.block, 0, events)

    def _move(self, name: str, *arguments: object) -> Receipt:
        return self._send(name, dispute.play, name, *arguments)[1]

    @property
    def address(self) -> Address:
        return self._address

    def now(self) -> int:
        return self._world.time

    def head(self) -> tuple[int, str]:
        return self._world.block, self._world.transaction_hash

    def time_of(self, block: int) -> int:
        return self._world.times[block]

    def gas_price(self) -> int:
        return 0

    def rules(self) -> Rules:
        return RULES

    def job_count(self) -> int:
        return len(self._world.jobs)

    def job(self, job: JobId) -> Job:
        """See :class:`crowdtrain.chain.Chain`. Refused with UnknownJob if there is none."""
        found = self._world.jobs.get(job)
        if found is None:
            raise Refused("job", "UnknownJob", {"job": job})
        return found

    def segment(self, key: SegmentKey) -> Segment:
        return market.view_of(self._world, key)

    def barred(self, job: JobId, solver: Address) -> bool:
        return (job, solver) in self._world.barred

    def game_count(self) -> int:
        return len(self._world.games)

    def game(self, game: GameId) -> Game:
        """The game with its history, and what was shown last of each kind. Refused with UnknownGame if there is
        none."""
        record = self._world.games.get(game)
        if record is None:
            raise Refused("game", "UnknownGame", {"game": game})
        history = tuple(event for event in self._world.events if event.fields.get("game") == game)
        for event in history:
            fields: dict[str, object] = event.fields
            if event.name in _SHOWN:
                record = replace(record, shown=tuple(fields[_SHOWN[event.name]]))  # type: ignore[arg-type]
            elif event.name == "PageRevealed":
                record = replace(record, page=fields["words"])  # type: ignore[arg-type]
            elif event.name == "PartialsRevealed":
                data = fields["partials"]
                assert isinstance(data, bytes)
                words = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4))
                record = replace(record, partials=words)
        return replace(record, history=history)

    def events(self, first_block: int, last_block: int) -> list[ChainEvent]:
        return [event for event in self._between(first_block, last_block) if event.contract not in _APART]

    def _between(self, first_block: int, last_block: int) -> list[ChainEvent]:
        return [event for event in self._world.events if first_block <= event.block <= last_block]

    def transfers(self, account: Address, first_block: int, last_block: int) -> list[ChainEvent]:
        return [
            event
            for event in self._world.transfers
            if first_block <= event.block <= last_block
            and account in (event.fields["from"], event.fields["to"])
        ]

    def campaign_events(self, account: Address, first_block: int, last_block: int) -> list[ChainEvent]:
        return [
            event
            for event in self._between(first_block, last_block)
            if event.contract == "Campaign" and account in event.fields.values()
        ]

    def stake(self, account: Address) -> tuple[int, int]:
        return self._world.free.get(account, 0), self._world.locked.get(account, 0)

    def owed(self, account: Address) -> int:
        return self._world.owed.get(account, 0)

    def tokens(self, account: Address) -> int:
        return self._world.tokens.get(account, 0)

    def tokens_before(self, account: Address) -> int:
        return 0

    def burned(self) -> int:
        return self._world.burned

    def round(self, key: SegmentKey, attempt: int) -> Round:
        return audit.round_of(self._world, key, attempt)

    def is_drawn(self, key: SegmentKey, attempt: int, auditor: Address) -> bool:
        return _asked("isDrawn", audit.is_drawn, self._world, key, attempt, auditor)

    def attestation(self, key: SegmentKey, attempt: int, auditor: Address) -> bytes:
        return self._world.attestations.get((key, attempt), {}).get(auditor, NONE)

    def attestors(self, key: SegmentKey, attempt: int) -> tuple[Address, ...]:
        return tuple(self._world.attestations.get((key, attempt), {}))

    def weight(self, auditor: Address) -> int:
        return audit.weight_at(self._world, auditor, self._world.block)

    def leaving(self, auditor: Address) -> tuple[int, int]:
        return self._world.leaving.get(auditor, (0, 0))

    def total_weight(self) -> int:
        return audit.weight_at(self._world, NOBODY, self._world.block)

    def auditors(self) -> tuple[Address, ...]:
        return tuple(account for account in self._world.weights if account != NOBODY)

    def record(self, account: Address) -> Record:
        return self._world.records.get(account, Record())

    def rate_of(self, solver: Address, price: int, asked: int) -> int:
        return audit.rate_of(self._world, solver, price, asked)

    def epoch(self) -> int:
        return emission.epoch(self._world)

    def rewards(self, epoch: int, account: Address) -> int:
        return emission.claimable(self._world, epoch, account)

    def reward_tokens(self, account: Address) -> int:
        return self._world.rewards.get(account, 0)

    def deposit(self, amount: int) -> Receipt:
        return self._send("deposit", _deposit, amount)[1]

    def withdraw_stake(self, amount: int) -> Receipt:
        return self._send("withdraw_stake", World.withdraw_stake, amount)[1]

    def withdraw(self) -> Receipt:
        return self._send("withdraw", market.withdraw)[1]

    def post(self, terms: JobTerms, manifest: str) -> tuple[JobId, Receipt]:
        return self._send("post", market.post, terms, manifest)

    def claim(
        self, key: SegmentKey, spec: SegmentSpec, plan_proof: Sequence[bytes], inputs: Sequence[GroupProof]
    ) -> Receipt:
        return self._send("claim", market.claim, key, spec, plan_proof, inputs)[1]

    def commit(
        self, key: SegmentKey, input_root: bytes, group_roots: Sequence[bytes], seal: bytes, cid: str
    ) -> Receipt:
        return self._send("commit", market.commit, key, input_root, group_roots, seal, cid)[1]

    def settle(self, key: SegmentKey, spec: SegmentSpec, trace_root: bytes = NONE) -> Receipt:
        return self._send("settle", market.settle, key, spec, trace_root)[1]

    def forfeit(self, key: SegmentKey, spec: SegmentSpec) -> Receipt:
        return self._send("forfeit", market.forfeit, key, spec)[1]

    def expire(self, key: SegmentKey) -> Receipt:
        return self._send("expire", market.expire, key)[1]

    def void(self, key: SegmentKey, spec: SegmentSpec) -> Receipt:
        return self._send("void", market.void, key, spec)[1]

    def refund(self, job: JobId) -> Receipt:
        return self._send("refund", market.refund, job)[1]

    def enroll(self, amount: int) -> Receipt:
        return self._send("enroll", audit.enroll, amount)[1]

    def leave(self, amount: int) -> Receipt:
        return self._send("leave", audit.leave, amount)[1]

    def finish_leaving(self, auditor: Address) -> Receipt:
        return self._send("finishLeaving", audit.finish_leaving, auditor)[1]

    def draw(self, key: SegmentKey, attempt: int) -> Receipt:
        return self._send("draw", audit.draw, key, attempt)[1]

    def attest(self, key: SegmentKey, attempt: int, seal: bytes, attestation: bytes) -> Receipt:
        return self._send("attest", audit.attest, key, attempt, seal, attestation)[1]

    def reveal(self, key: SegmentKey, attempt: int, trace_root: bytes) -> Receipt:
        return self._send("reveal", audit.reveal, key, attempt, trace_root)[1]

    def punish(self, key: SegmentKey, attempt: int, auditor: Address) -> Receipt:
        return self._send("punish", audit.punish, key, attempt, auditor)[1]

    def collect_rewards(self, epoch: int, account: Address) -> Receipt:
        return self._send("claim", emission.collect, epoch, account)[1]

    def challenge(self, key: SegmentKey, spec: SegmentSpec, seal: bytes) -> tuple[GameId, Receipt]:
        return self._send("challenge", dispute.challenge, key, spec, seal)

    def reveal_trace(self, game: GameId, position: bytes, checkpoints: Sequence[bytes]) -> Receipt:
        return self._move("reveal_trace", game, position, checkpoints)

    def pick_checkpoint(
        self, game: GameId, position: bytes, checkpoint: int,
        before: bytes, before_proof: Sequence[bytes], after: bytes, after_proof: Sequence[bytes],
    ) -> Receipt:  # fmt: skip
        pair = (before, before_proof, after, after_proof)
        return self._move("pick_checkpoint", game, position, checkpoint, *pair)

    def reveal_states(self, game: GameId, position: bytes, states: Sequence[bytes]) -> Receipt:
        return self._move("reveal_states", game, position, states)

    def pick_step(
        self, game: GameId, position: bytes, step: int,
        before: bytes, before_proof: Sequence[bytes], after: bytes, after_proof: Sequence[bytes],
    ) -> Receipt:  # fmt: skip
        return self._move("pick_step", game, position, step, before, before_proof, after, after_proof)

    def reveal_step(
        self, game: GameId, position: bytes, header: ProgramLeaf, children: Sequence[bytes]
    ) -> Receipt:
        return self._move("reveal_step", game, position, header, children)

    def reveal_children(self, game: GameId, position: bytes, children: Sequence[bytes]) -> Receipt:
        return self._move("reveal_children", game, position, children)

    def pick_child(
        self,
        game: GameId,
        position: bytes,
        child: int,
        node: bytes,
        proof: Sequence[bytes],
        leaf: ProgramLeaf,
    ) -> Receipt:
        return self._move("pick_child", game, position, child, node, proof, leaf)

    def dispute_next(self, game: GameId, position: bytes, header: ProgramLeaf) -> Receipt:
        return self._move("dispute_next", game, position, header)

    def reveal_page(self, game: GameId, position: bytes, words: bytes) -> Receipt:
        return self._move("reveal_page", game, position, words)

    def pick_word(self, game: GameId, position: bytes, word: int, page: bytes) -> Receipt:
        return self._move("pick_word", game, position, word, page)

    def reveal_partials(self, game: GameId, position: bytes, partials: bytes) -> Receipt:
        return self._move("reveal_partials", game, position, partials)

    def pick_partial(self, game: GameId, position: bytes, piece: int, partials: bytes) -> Receipt:
        return self._move("pick_partial", game, position, piece, partials)

    def prove(
        self, game: GameId, position: bytes, header: ProgramLeaf, nest: ProgramLeaf,
        values: Sequence[ValueProof], pages: Sequence[PageOpening],
    ) -> Receipt:  # fmt: skip
        return self._move("prove", game, position, header, nest, values, pages)

    def prove_next(self, game: GameId, position: bytes, header: ProgramLeaf, value: ValueProof) -> Receipt:
        return self._move("prove_next", game, position, header, value)

    def prove_invalid_nest(
        self, game: GameId, position: bytes, header: ProgramLeaf, index: int, nest: ProgramLeaf,
        read: int, producer: ProgramLeaf,
    ) -> Receipt:  # fmt: skip
        return self._move("prove_invalid_nest", game, position, header, index, nest, read, producer)

    def prove_invalid_header(
        self, game: GameId, position: bytes, header: ProgramLeaf, tensor: int, producer: ProgramLeaf
    ) -> Receipt:
        return self._move("prove_invalid_header", game, position, header, tensor, producer)

    def timeout(self, game: GameId) -> Receipt:
        return self._send("timeout", dispute.timeout, game)[1]

    def close(self, game: GameId) -> Receipt:
        return self._send("close", dispute.close, game)[1]


class FakeCampaigns:
    """The campaigns of a :class:`FakeChain`, as its account: a :class:`crowdtrain.crowdfund.Campaigns`."""

    def __init__(self, chain: FakeChain) -> None:
        self._chain = chain
        self._world = chain._world

    @property
    def chain(self) -> FakeChain:
        """The chain and account."""
        return self._chain

    def count(self) -> int:
        return len(self._world.campaigns)

    def address_of(self, index: int) -> Address:
        """See :class:`crowdtrain.crowdfund.Campaigns`."""
        return list(self._world.campaigns)[index]

    def campaign(self, address: Address) -> Campaign:
        return _asked("campaign", campaigns.view_of, self._world, address)

    def holding(self, address: Address, account: Address) -> Holding:
        return _asked("campaign", campaigns.holding_of, self._world, address, account)

    def is_credited(self, address: Address, segment: int) -> bool:
        return segment in _asked("campaign", campaigns.record_of, self._world, address).credited

    def create(self, terms: CampaignTerms, manifest: str) -> tuple[Address, Receipt]:
        return self._chain._send("create", campaigns.create, terms, manifest)

    def pledge(self, address: Address, amount: int) -> tuple[int, Receipt]:
        """See :class:`crowdtrain.crowdfund.Campaigns`."""
        return self._chain._send("pledge", campaigns.pledge, address, amount)

    def refund(self, address: Address, backer: Address) -> Receipt:
        return self._chain._send("refund", campaigns.refund, address, backer)[1]

    def launch(self, address: Address) -> tuple[JobId, Receipt]:
        return self._chain._send("launch", campaigns.launch, address)

    def claim_shares(self, address: Address, backer: Address) -> Receipt:
        return self._chain._send("claimShares", campaigns.claim_shares, address, backer)[1]

    def credit(self, address: Address, segment: int, spec: SegmentSpec) -> Receipt:
        return self._chain._send("credit", campaigns.credit, address, segment, spec)[1]

    def finish(self, address: Address) -> Receipt:
        return self._chain._send("finish", campaigns.finish, address)[1]

    def claim_return(self, address: Address, backer: Address) -> Receipt:
        return self._chain._send("claimReturn", campaigns.claim_return, address, backer)[1]

    def pay_income(self, address: Address, amount: int) -> Receipt:
        """See :class:`crowdtrain.crowdfund.Campaigns`."""
        return self._chain._send("payIncome", campaigns.pay_income, address, amount)[1]

    def claim_income(self, address: Address) -> Receipt:
        return self._chain._send("claimIncome", campaigns.claim_income, address)[1]

    def collect_rewards(self, address: Address, epoch: int) -> Receipt:
        return self._chain._send("collectRewards", campaigns.collect_rewards, address, epoch)[1]

    def claim_rewards(self, address: Address) -> Receipt:
        return self._chain._send("claimRewards", campaigns.claim_rewards, address)[1]


def _asked(call: str, view: Callable[..., T], *arguments: object) -> T:
    """What a view returns, or Refused."""
    try:
        return view(*arguments)
    except RevertedError as reason:
        raise Refused(call, reason.error, reason.values) from None


def _deposit(world: World, sender: Address, amount: int) -> None:
    world.pay(sender, STAKE, amount)
    world.free[sender] = world.free.get(sender, 0) + amount
    world.emit("Stake", "Deposited", account=sender, amount=amount)
