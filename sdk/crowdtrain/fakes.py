"""In-memory stand-ins for what the outside world provides, with the same rules. They ship, so that users
test with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from crowdtrain import _fake_dispute as dispute
from crowdtrain import _fake_market as market
from crowdtrain._fake_world import STAKE, World
from crowdtrain.chain import (
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
    Segment,
    SegmentKey,
    SegmentSpec,
    ValueProof,
)

__all__ = ["FakeChain"]

T = TypeVar("T")
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
        self._world.time += seconds
        self._world.block += 1

    def mint(self, amount: int) -> None:
        """Gives this account tokens."""
        self._world.tokens[self.address] = self.tokens(self.address) + amount

    def _send(self, call: str, rule: Callable[..., T], *arguments: object) -> tuple[T, Receipt]:
        world = self._world
        with world.transaction(call):
            result = rule(world, self.address, *arguments)
        events = tuple(event for event in world.events[-16:] if event.block == world.block)
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

    def job_count(self) -> int:
        return len(self._world.jobs)

    def job(self, job: JobId) -> Job:
        return self._world.jobs[job]

    def segment(self, key: SegmentKey) -> Segment:
        return market.segment_of(self._world, key)

    def barred(self, job: JobId, solver: Address) -> bool:
        return (job, solver) in self._world.barred

    def game_count(self) -> int:
        return len(self._world.games)

    def game(self, game: GameId) -> Game:
        """The game with its history, and what was shown last of each kind."""
        record = self._world.games[game]
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
        return [event for event in self._world.events if first_block <= event.block <= last_block]

    def stake(self, account: Address) -> tuple[int, int]:
        return self._world.free.get(account, 0), self._world.locked.get(account, 0)

    def owed(self, account: Address) -> int:
        return self._world.owed.get(account, 0)

    def tokens(self, account: Address) -> int:
        return self._world.tokens.get(account, 0)

    def deposit(self, amount: int) -> Receipt:
        return self._send("deposit", _deposit, amount)[1]

    def withdraw_stake(self, amount: int) -> Receipt:
        return self._send("withdraw_stake", _withdraw_stake, amount)[1]

    def withdraw(self) -> Receipt:
        return self._send("withdraw", market.withdraw)[1]

    def post(self, terms: JobTerms, manifest: str) -> tuple[JobId, Receipt]:
        return self._send("post", market.post, terms, manifest)

    def claim(
        self, key: SegmentKey, spec: SegmentSpec, plan_proof: Sequence[bytes], inputs: Sequence[GroupProof]
    ) -> Receipt:
        return self._send("claim", market.claim, key, spec, plan_proof, inputs)[1]

    def commit(self, key: SegmentKey, group_roots: Sequence[bytes], seal: bytes, cid: str) -> Receipt:
        return self._send("commit", market.commit, key, group_roots, seal, cid)[1]

    def settle(self, key: SegmentKey, spec: SegmentSpec) -> Receipt:
        return self._send("settle", market.settle, key, spec)[1]

    def expire(self, key: SegmentKey) -> Receipt:
        return self._send("expire", market.expire, key)[1]

    def void(self, key: SegmentKey, spec: SegmentSpec) -> Receipt:
        return self._send("void", market.void, key, spec)[1]

    def refund(self, job: JobId) -> Receipt:
        return self._send("refund", market.refund, job)[1]

    def challenge(self, key: SegmentKey, spec: SegmentSpec) -> tuple[GameId, Receipt]:
        return self._send("challenge", dispute.challenge, key, spec)

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


def _deposit(world: World, sender: Address, amount: int) -> None:
    world.pay(sender, STAKE, amount)
    world.free[sender] = world.free.get(sender, 0) + amount
    world.emit("Deposited", account=sender, amount=amount)


def _withdraw_stake(world: World, sender: Address, amount: int) -> None:
    world.take_free(sender, amount)
    world.pay(STAKE, sender, amount)
    world.emit("Withdrawn", account=sender, amount=amount)
