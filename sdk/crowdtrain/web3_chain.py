"""The chain port over an EVM node: :class:`Web3Chain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from crowdtrain_engine import merkle

from crowdtrain import _abi
from crowdtrain import _records as records
from crowdtrain import cid as cids
from crowdtrain._errors import BadAnswer, ChainUnavailable, ConfigError, Refused
from crowdtrain._history import History
from crowdtrain._rpc import Node, RpcError
from crowdtrain._sender import Sender, account_of, refusal
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
    Phase,
    ProgramLeaf,
    Receipt,
    Record,
    Round,
    Rules,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    ValueProof,
)
from crowdtrain.deployment import Deployment
from crowdtrain.journal import Journal

__all__ = ["Web3Chain"]

NOBODY = Address("0x" + "0" * 40)


class Web3Chain:
    """A :class:`crowdtrain.chain.Chain` over the JSON-RPC of a node that need not be trusted to be
    well-behaved.

    ``key`` is a private key in hexadecimal; without it the chain can only be read. ``journal`` is a file
    that outlives a crash, of which one process at a time makes use; without it what was sent is remembered
    in memory. What a process that was killed had signed is sent again, the same bytes, before anything
    else.

    Constructing raises ConfigError if key, journal or deployment cannot be used, and like any read
    ChainUnavailable or BadAnswer. Requests wait ``timeout`` seconds, transactions ``patience`` seconds.
    """

    def __init__(
        self,
        rpc: str,
        deployment: Deployment,
        key: str | None = None,
        journal: Path | None = None,
        *,
        timeout: float = 20.0,
        patience: float = 180.0,
    ) -> None:
        self.deployment = deployment
        self._addresses = deployment.contracts
        self.node = Node(rpc, timeout)
        self._check_deployment()
        self._history = History(self.node, deployment)
        self._sender: Sender | None = None
        if key is not None:
            account = account_of(key)
            scope = f"{deployment.chain_id}:{self.node.block(0).hash}:{account.address}"
            with ExitStack() as failing:
                self._journal = Journal(journal, scope)
                failing.callback(self._journal.close)
                sender = Sender(self.node, account, deployment.chain_id, self._journal, patience=patience)
                sender.resume()
                failing.pop_all()
            self._sender = sender

    def _check_deployment(self) -> None:
        chain_id = self.node.chain_id()
        if chain_id != self.deployment.chain_id:
            raise BadAnswer(f"the node is on chain {chain_id}, the deployment on {self.deployment.chain_id}")
        for name in ("token", "stake", "market", "dispute", "audit", "emission"):
            address = getattr(self.deployment, name)
            if not self.node.code(address):
                raise ConfigError(f"there is no contract at {address}, where the deployment has {name}")

    @property
    def address(self) -> Address:
        """The account that moves. Raises ConfigError without a key."""
        return self._mover.address

    @property
    def _mover(self) -> Sender:
        if self._sender is None:
            raise ConfigError("this needs a key: set CROWDTRAIN_KEY or name a key file")
        return self._sender

    def release(self) -> None:
        """Lets go of the journal, for another process to use."""
        if self._sender is not None:
            self._journal.close()

    # ---------------------------------------------------------------- reads

    def now(self) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.node.block().timestamp

    def head(self) -> tuple[int, str]:
        """See :class:`crowdtrain.chain.Chain`."""
        block = self.node.block()
        return block.number, block.hash

    def time_of(self, block: int) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.node.block(block).timestamp

    def gas_price(self) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.node.block().base_fee + self.node.tip()

    def rules(self) -> Rules:
        return Rules(self.number("Market", "feeRate"), self.number("Audit", "unbonding"))

    def job_count(self) -> int:
        return self.number("Market", "jobCount")

    def job(self, job: JobId) -> Job:
        """See :class:`crowdtrain.chain.Chain`. Raises Refused, with ``UnknownJob``, if there is no such
        job.
        """
        buyer, fields, reserved, spent, settled = self.read("Market", "jobs", job)
        if buyer == NOBODY:
            raise Refused("job", "UnknownJob", {"job": job})
        terms = records.terms_of(fields)
        posted = self._history.find(
            (job, buyer, terms), "Posted", [job], lambda event: event.fields["terms"] == fields
        )
        manifest = records.cid_text(posted.fields["manifest"])
        return Job(job, buyer, terms, reserved, spent, settled, manifest)

    def segment(self, key: SegmentKey) -> Segment:
        """See :class:`crowdtrain.chain.Chain`. The group roots are those under the output root."""
        (fields,) = self.read("Market", "segments", key.job, key.index)
        segment = records.segment_of(key, fields)
        if segment.state not in (SegmentState.COMMITTED, SegmentState.SETTLED):
            return segment

        def fits(event: ChainEvent) -> bool:
            seen: Mapping[str, Any] = event.fields
            same = (seen["attempt"], seen["solver"], seen["seal"])
            if same != (segment.attempt, segment.solver, segment.seal):
                return False
            return merkle.root(seen["groupRoots"]) == segment.output_root

        identity = (key, segment.attempt, segment.solver, segment.seal, segment.output_root)
        committed: Mapping[str, Any] = self._history.find(
            identity, "Committed", [key.job, key.index], fits
        ).fields
        cid = records.cid_text(committed["cid"])
        return replace(segment, group_roots=committed["groupRoots"], cid=cid)

    def barred(self, job: JobId, solver: Address) -> bool:
        return bool(self.read("Market", "barred", job, solver)[0])

    def game_count(self) -> int:
        return self.number("Dispute", "gameCount")

    def game(self, game: GameId) -> Game:
        """See :class:`crowdtrain.chain.Chain`: the game and its events as of one block."""
        block = self.node.block()
        (fields,) = self.read("Dispute", "games", game, block=block.number)
        record = records.game_of(game, fields)
        if record.phase is Phase.NONE:
            raise Refused("game", "UnknownGame", {"game": game})
        history = self._history.moves(game, block.number, block.hash)
        positions = [event.fields["position"] for event in history if "position" in event.fields]
        if record.phase is not Phase.OVER and positions and positions[-1] != record.position:
            self._history.forget(game)
            raise ChainUnavailable(
                f"the node's events of game {game} do not lead to its position; it may lag"
            )
        return records.shown(record, history)

    def events(self, first_block: int, last_block: int) -> list[ChainEvent]:
        return self._history.events(first_block, last_block)

    def transfers(self, account: Address, first_block: int, last_block: int) -> list[ChainEvent]:
        """See :class:`crowdtrain.chain.Chain`."""
        return self._history.transfers(account, first_block, last_block)

    def campaign_events(self, account: Address, first_block: int, last_block: int) -> list[ChainEvent]:
        """See :class:`crowdtrain.chain.Chain`: of campaigns to or from which the account sent or got tokens."""
        if self.is_campaign(account):
            return self._history.campaign_events(account, None, first_block, last_block)
        transfers = self.transfers(account, first_block, last_block)
        others = {str(event.fields[end]) for event in transfers for end in ("from", "to")} - {account}
        found = [
            event
            for other in sorted(others)
            if self.is_campaign(Address(other))
            for event in self._history.campaign_events(other, account, first_block, last_block)
        ]
        return sorted(found, key=lambda event: (event.block, event.index))

    def is_campaign(self, address: Address) -> bool:
        """Whether Crowdfund made the contract at an address."""
        return bool(self.read("Crowdfund", "isCampaign", address)[0])

    def stake(self, account: Address) -> tuple[int, int]:
        free, locked = self.read("Stake", "balances", account)
        return free, locked

    def owed(self, account: Address) -> int:
        return self.number("Market", "owed", account)

    def tokens(self, account: Address) -> int:
        return self.number("Money", "balanceOf", account)

    def tokens_before(self, account: Address) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        block = max(0, self.deployment.block - 1)
        try:
            if not self.node.code(self.deployment.token, block=block):
                return 0  # the token was deployed with the contracts
            (number,) = self.read("Money", "balanceOf", account, block=block)
        except (RpcError, Refused) as error:
            raise ChainUnavailable(f"the node has no balances of block {block}: {error}") from error
        return int(number)

    def burned(self) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.number("Stake", "burned") + self.number("Market", "burned")

    def number(
        self,
        contract: str,
        function: str,
        *arguments: object,
        at: Address | None = None,
        block: int | str = "latest",
    ) -> int:
        """See :meth:`read`, for what returns one number."""
        (number,) = self.read(contract, function, *arguments, at=at, block=block)
        return int(number)

    def follow(self, address: Address, contract: str) -> None:
        """Lets receipts have the events of a contract of this kind at another address."""
        self._history.follow(address, contract)

    # ---------------------------------------------------------------- reads of audits and rewards

    def round(self, key: SegmentKey, attempt: int) -> Round:
        """See :class:`crowdtrain.chain.Chain`."""
        (fields,) = self.read("Audit", "rounds", key.job, key.index, attempt)
        return records.round_of(fields)

    def is_drawn(self, key: SegmentKey, attempt: int, auditor: Address) -> bool:
        """See :class:`crowdtrain.chain.Chain`."""
        return bool(self.read("Audit", "isDrawn", key.job, key.index, attempt, auditor)[0])

    def attestation(self, key: SegmentKey, attempt: int, auditor: Address) -> bytes:
        """See :class:`crowdtrain.chain.Chain`."""
        (attestation,) = self.read("Audit", "attestationOf", key.job, key.index, attempt, auditor)
        return bytes(attestation)

    def attestors(self, key: SegmentKey, attempt: int) -> tuple[Address, ...]:
        (accounts,) = self.read("Audit", "attestors", key.job, key.index, attempt)
        return tuple(map(Address, accounts))

    def weight(self, auditor: Address) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.number("Audit", "weightOf", auditor)

    def leaving(self, auditor: Address) -> tuple[int, int]:
        """See :class:`crowdtrain.chain.Chain`."""
        amount, free = self.read("Audit", "leavingOf", auditor)
        return amount, free

    def total_weight(self) -> int:
        return self.number("Audit", "totalWeight")

    def auditors(self) -> tuple[Address, ...]:
        """See :class:`crowdtrain.chain.Chain`."""
        return tuple(map(Address, self._history.auditors(self.node.block().number)))

    def record(self, account: Address) -> Record:
        (fields,) = self.read("Audit", "records", account)
        return records.record_of(fields)

    def rate_of(self, solver: Address, price: int, asked: int) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.number("Audit", "rateOf", solver, price, asked)

    def epoch(self) -> int:
        return self.number("Emission", "epochAt", self.now())

    def rewards(self, epoch: int, account: Address) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.number("Emission", "claimable", epoch, account)

    def reward_tokens(self, account: Address) -> int:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.number("Token", "balanceOf", account)

    def read(
        self,
        contract: str,
        function: str,
        *arguments: object,
        at: Address | None = None,
        block: int | str = "latest",
    ) -> tuple[Any, ...]:
        """What a call returns, of the deployment's contract or of one of its kind ``at`` another address."""
        abi = _abi.contract(contract)
        try:
            data = self.node.call(at or self._at(contract), abi.encode(function, arguments), block=block)
        except RpcError as error:
            raise refusal(function, error) from error
        return abi.decode(function, data)

    def _at(self, contract: str) -> str:
        return self._addresses[contract]

    # ---------------------------------------------------------------- money

    def deposit(self, amount: int) -> Receipt:
        """Approves and deposits stake."""
        self.approve(self.deployment.stake, amount)
        return self.send("Stake", "deposit", amount)

    def withdraw_stake(self, amount: int) -> Receipt:
        return self.send("Stake", "withdraw", amount)

    def withdraw(self) -> Receipt:
        """Takes what the Market owes this account."""
        return self.send("Market", "withdraw")

    def approve(self, spender: str, amount: int) -> None:
        """Lets a contract take so many tokens, unless it may already."""
        if self.number("Money", "allowance", self.address, spender) < amount:
            self.send("Money", "approve", spender, amount)

    def send(self, contract: str, function: str, *arguments: object, at: Address | None = None) -> Receipt:
        """Carries out a call; see :meth:`read`. Raises what :class:`crowdtrain.chain.Chain` says of moves."""
        data = _abi.contract(contract).encode(function, arguments)
        done = self._mover.send(function, at or self._at(contract), data)
        return Receipt(done.transaction, done.block, done.gas, tuple(self._history.decode(done.logs)))

    # ---------------------------------------------------------------- market

    def post(self, terms: JobTerms, manifest: str) -> tuple[JobId, Receipt]:
        """Approves the escrow and posts."""
        self.approve(self.deployment.market, terms.escrow)
        receipt = self.send("Market", "post", records.terms_fields(terms), cids.to_bytes(manifest))
        return JobId(_number_in(receipt, "Posted", "job")), receipt

    def claim(
        self, key: SegmentKey, spec: SegmentSpec, plan_proof: Sequence[bytes], inputs: Sequence[GroupProof]
    ) -> Receipt:
        proofs = records.group_proof_fields(inputs)
        return self.send(
            "Market", "claim", key.job, key.index, records.spec_fields(spec), list(plan_proof), proofs
        )

    def commit(
        self, key: SegmentKey, input_root: bytes, group_roots: Sequence[bytes], seal: bytes, cid: str
    ) -> Receipt:
        what = (input_root, list(group_roots), seal, cids.to_bytes(cid))
        return self.send("Market", "commit", key.job, key.index, *what)

    def settle(self, key: SegmentKey, spec: SegmentSpec, trace_root: bytes = NONE) -> Receipt:
        """See :class:`crowdtrain.chain.Chain`."""
        return self.send("Market", "settle", key.job, key.index, records.spec_fields(spec), trace_root)

    def forfeit(self, key: SegmentKey, spec: SegmentSpec) -> Receipt:
        return self.send("Market", "forfeit", key.job, key.index, records.spec_fields(spec))

    def expire(self, key: SegmentKey) -> Receipt:
        return self.send("Market", "expire", key.job, key.index)

    def void(self, key: SegmentKey, spec: SegmentSpec) -> Receipt:
        return self.send("Market", "void", key.job, key.index, records.spec_fields(spec))

    def refund(self, job: JobId) -> Receipt:
        return self.send("Market", "refund", job)

    # ---------------------------------------------------------------- audits and rewards

    def enroll(self, amount: int) -> Receipt:
        return self.send("Audit", "enroll", amount)

    def leave(self, amount: int) -> Receipt:
        return self.send("Audit", "leave", amount)

    def finish_leaving(self, auditor: Address) -> Receipt:
        return self.send("Audit", "finishLeaving", auditor)

    def draw(self, key: SegmentKey, attempt: int) -> Receipt:
        return self.send("Audit", "draw", key.job, key.index, attempt)

    def attest(self, key: SegmentKey, attempt: int, seal: bytes, attestation: bytes) -> Receipt:
        return self.send("Audit", "attest", key.job, key.index, attempt, seal, attestation)

    def reveal(self, key: SegmentKey, attempt: int, trace_root: bytes) -> Receipt:
        return self.send("Audit", "reveal", key.job, key.index, attempt, trace_root)

    def punish(self, key: SegmentKey, attempt: int, auditor: Address) -> Receipt:
        return self.send("Audit", "punish", key.job, key.index, attempt, auditor)

    def collect_rewards(self, epoch: int, account: Address) -> Receipt:
        return self.send("Emission", "claim", epoch, account)

    # ---------------------------------------------------------------- dispute

    def challenge(self, key: SegmentKey, spec: SegmentSpec, seal: bytes) -> tuple[GameId, Receipt]:
        receipt = self.send("Dispute", "challenge", key.job, key.index, records.spec_fields(spec), seal)
        return GameId(_number_in(receipt, "Challenged", "game")), receipt

    def reveal_trace(self, game: GameId, position: bytes, checkpoints: Sequence[bytes]) -> Receipt:
        return self.send("Dispute", "revealTrace", game, position, list(checkpoints))

    def pick_checkpoint(
        self, game: GameId, position: bytes, checkpoint: int,
        before: bytes, before_proof: Sequence[bytes], after: bytes, after_proof: Sequence[bytes],
    ) -> Receipt:  # fmt: skip
        pair = (before, list(before_proof), after, list(after_proof))
        return self.send("Dispute", "pickCheckpoint", game, position, checkpoint, *pair)

    def reveal_states(self, game: GameId, position: bytes, states: Sequence[bytes]) -> Receipt:
        return self.send("Dispute", "revealStates", game, position, list(states))

    def pick_step(
        self, game: GameId, position: bytes, step: int,
        before: bytes, before_proof: Sequence[bytes], after: bytes, after_proof: Sequence[bytes],
    ) -> Receipt:  # fmt: skip
        pair = (before, list(before_proof), after, list(after_proof))
        return self.send("Dispute", "pickStep", game, position, step, *pair)

    def reveal_step(
        self, game: GameId, position: bytes, header: ProgramLeaf, children: Sequence[bytes]
    ) -> Receipt:
        leaf = records.leaf_fields(header)
        return self.send("Dispute", "revealStep", game, position, leaf, list(children))

    def reveal_children(self, game: GameId, position: bytes, children: Sequence[bytes]) -> Receipt:
        return self.send("Dispute", "revealChildren", game, position, list(children))

    def pick_child(
        self, game: GameId, position: bytes, child: int, node: bytes,
        proof: Sequence[bytes], leaf: ProgramLeaf,
    ) -> Receipt:  # fmt: skip
        fields = records.leaf_fields(leaf)
        return self.send("Dispute", "pickChild", game, position, child, node, list(proof), fields)

    def dispute_next(self, game: GameId, position: bytes, header: ProgramLeaf) -> Receipt:
        return self.send("Dispute", "disputeNext", game, position, records.leaf_fields(header))

    def reveal_page(self, game: GameId, position: bytes, words: bytes) -> Receipt:
        return self.send("Dispute", "revealPage", game, position, words)

    def pick_word(self, game: GameId, position: bytes, word: int, page: bytes) -> Receipt:
        return self.send("Dispute", "pickWord", game, position, word, page)

    def reveal_partials(self, game: GameId, position: bytes, partials: bytes) -> Receipt:
        return self.send("Dispute", "revealPartials", game, position, partials)

    def pick_partial(self, game: GameId, position: bytes, piece: int, partials: bytes) -> Receipt:
        return self.send("Dispute", "pickPartial", game, position, piece, partials)

    def prove(
        self, game: GameId, position: bytes, header: ProgramLeaf, nest: ProgramLeaf,
        values: Sequence[ValueProof], pages: Sequence[PageOpening],
    ) -> Receipt:  # fmt: skip
        leaves = (records.leaf_fields(header), records.leaf_fields(nest))
        opened = [records.page_fields(page) for page in pages]
        proofs = [records.value_fields(value) for value in values]
        return self.send("Dispute", "prove", game, position, *leaves, proofs, opened)

    def prove_next(self, game: GameId, position: bytes, header: ProgramLeaf, value: ValueProof) -> Receipt:
        fields = (records.leaf_fields(header), records.value_fields(value))
        return self.send("Dispute", "proveNext", game, position, *fields)

    def prove_invalid_nest(
        self, game: GameId, position: bytes, header: ProgramLeaf, index: int, nest: ProgramLeaf,
        read: int, producer: ProgramLeaf,
    ) -> Receipt:  # fmt: skip
        leaf, broken, source = map(records.leaf_fields, (header, nest, producer))
        return self.send("Dispute", "proveInvalidNest", game, position, leaf, index, broken, read, source)

    def prove_invalid_header(
        self, game: GameId, position: bytes, header: ProgramLeaf, tensor: int, producer: ProgramLeaf
    ) -> Receipt:
        leaf, source = map(records.leaf_fields, (header, producer))
        return self.send("Dispute", "proveInvalidHeader", game, position, leaf, tensor, source)

    def timeout(self, game: GameId) -> Receipt:
        return self.send("Dispute", "timeout", game)

    def close(self, game: GameId) -> Receipt:
        return self.send("Dispute", "close", game)


def _number_in(receipt: Receipt, event: str, field: str) -> int:
    for seen in receipt.events:
        if seen.name == event:
            return cast(int, seen.fields[field])
    raise BadAnswer(f"the receipt of {receipt.transaction} has no event {event}")
