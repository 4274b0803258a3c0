"""The chain as the rest of the code sees it: typed ids and records, one port, and what it may raise.

:class:`crowdtrain.web3_chain.Web3Chain` speaks to an EVM node; :class:`crowdtrain.fakes.FakeChain` is the same in
memory. The records mirror the structures of ``contracts/interfaces``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

__all__ = [
    "INITIAL",
    "NONE",
    "WHOLE",
    "Address",
    "Chain",
    "ChainEvent",
    "Game",
    "GameId",
    "GroupProof",
    "Job",
    "JobId",
    "JobTerms",
    "Outcome",
    "PageOpening",
    "Phase",
    "ProgramLeaf",
    "Reason",
    "Receipt",
    "Record",
    "Round",
    "Rules",
    "Segment",
    "SegmentKey",
    "SegmentSpec",
    "SegmentState",
    "Source",
    "Tree",
    "ValueProof",
]  # fmt: skip

Address = NewType("Address", str)
"""Checksummed hexadecimal address."""
JobId = NewType("JobId", int)
GameId = NewType("GameId", int)

INITIAL = 2**32 - 1
"""A source segment number that means the job's initial state."""
NONE = bytes(32)
"""A root or seal that is not there."""
WHOLE = 10_000
"""What rates and shares are parts of."""


class SegmentState(enum.IntEnum):
    OPEN = 0
    CLAIMED = 1
    COMMITTED = 2
    SETTLED = 3


class Phase(enum.IntEnum):
    """Which move of a dispute is awaited (docs/PROTOCOL.md, "The dispute game")."""

    NONE = 0
    REVEAL_TRACE = 1
    PICK_CHECKPOINT = 2
    REVEAL_STATES = 3
    PICK_STEP = 4
    REVEAL_STEP = 5
    REVEAL_CHILDREN = 6
    PICK_CHILD = 7
    REVEAL_PAGE = 8
    PICK_WORD = 9
    REVEAL_PARTIALS = 10
    PICK_PARTIAL = 11
    PROVE = 12
    PROVE_NEXT = 13
    OVER = 14


class Tree(enum.IntEnum):
    NESTS = 0
    GROUPS = 1
    TENSORS = 2
    PAGES = 3


class Reason(enum.IntEnum):
    NONE = 0
    WRONG_WORD = 1
    RIGHT_WORD = 2
    BAD_BINDING = 3
    BINDING_HOLDS = 4
    BAD_CHILDREN = 5
    BAD_PADDING = 6
    PADDING_HOLDS = 7
    INVALID_PROGRAM = 8
    VALID_PROGRAM = 9
    TIMEOUT = 10
    MOOT = 11


class Outcome(enum.IntEnum):
    """How the audit of a commitment ended."""

    NONE = 0
    OPEN = 1
    SETTLED = 2
    OVERTURNED = 3
    FORFEITED = 4
    VOIDED = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What was fixed for all jobs when the contracts were deployed."""

    fee_rate: int
    """part of every price that is burned, in 1/10,000"""
    unbonding: int
    """seconds for which an auditor's stake stays locked after leaving"""

    def fee(self, price: int) -> int:
        """What of a price is burned."""
        return price * self.fee_rate // WHOLE


@dataclass(frozen=True, slots=True)
class JobTerms:
    """What a buyer fixes when posting. Money in token units, times in seconds, ``deadline`` a Unix time.

    ``audit_rate`` is the least expected number of auditors of each commitment, ``audit_share`` what they share as a
    part of the price, both in 1/10,000.
    """

    plan_root: bytes
    initial_root: bytes
    initial_groups: int
    segments: int
    escrow: int
    stake: int
    lease: int
    window: int
    clock: int
    audit_rate: int
    audit_share: int
    deadline: int

    def pot(self, price: int) -> int:
        """What auditors of a segment at this price share."""
        return price * self.audit_share // WHOLE

    def attest_until(self, until: int) -> int:
        """Up to when attestations are taken to a commitment whose window ends at ``until``."""
        return until - self.window // 2


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input group comes from: a group of an earlier segment's output, or of the initial state (INITIAL)."""

    segment: int
    group: int


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """A leaf of the plan.

    Where ``fallbacks`` are given, one for each input, an input is optional unless its fallback is the same: if its
    segment is not committed when this one is claimed, the fallback takes its place. At least ``quorum`` of the optional
    inputs must be there.
    """

    program_root: bytes
    data_root: bytes
    steps: int
    interval: int
    price: int
    inputs: tuple[Source, ...]
    fallbacks: tuple[Source, ...] = ()
    quorum: int = 0

    @property
    def optional(self) -> tuple[bool, ...]:
        """Of each input whether it is."""
        if not self.fallbacks:
            return (False,) * len(self.inputs)
        return tuple(source != other for source, other in zip(self.inputs, self.fallbacks, strict=True))

    def sources(self, absent: int = 0) -> tuple[Source, ...]:
        """Where the inputs come from if those whose bits are set in ``absent`` are not there."""
        return tuple(self.fallbacks[i] if absent >> i & 1 else source for i, source in enumerate(self.inputs))

    def chosen(self, index: int, segment: Callable[[int], Segment]) -> tuple[Source, ...] | None:
        """Where segment ``index``, which this is, starts from: as its claim fixed it, or as a claim would now.

        None if too few of the optional inputs are there for a claim.
        """
        if not self.fallbacks:
            return self.inputs
        own = segment(index)
        if own.state is not SegmentState.OPEN:
            return self.sources(own.absent)
        absent = self.absent(lambda number: segment(number).state >= SegmentState.COMMITTED)
        return None if self.present(absent) < self.quorum else self.sources(absent)

    def present(self, absent: int) -> int:
        """How many optional inputs are there if those whose bits are set in ``absent`` are not."""
        return sum(self.optional) - absent.bit_count()

    def absent(self, is_there: Callable[[int], bool]) -> int:
        """A bit for each optional input whose segment is not there, which ``is_there`` says by number."""
        return sum(
            1 << i
            for i, (source, optional) in enumerate(zip(self.inputs, self.optional, strict=True))
            if optional and source.segment != INITIAL and not is_there(source.segment)
        )

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """Inputs and fallbacks."""
        return self.inputs + self.fallbacks


@dataclass(frozen=True, slots=True)
class GroupProof:
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """A segment of a job."""

    job: JobId
    index: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. ``manifest`` is the CID, as text, of the job's files."""

    id: JobId
    buyer: Address
    terms: JobTerms
    reserved: int
    spent: int
    settled: int
    manifest: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as it stands; ``group_roots`` and ``cid`` come from the event of its last commit.

    Before ``heir_until`` only ``heir`` may claim it; up to ``lapsed_until``, ``lapsed`` may not.
    """

    key: SegmentKey
    state: SegmentState
    solver: Address
    until: int
    attempt: int
    games: int
    heir: Address
    heir_until: int
    lapsed: Address
    lapsed_until: int
    price: int
    leaf: bytes
    input_root: bytes
    output_root: bytes
    seal: bytes
    absent: int = 0
    """a bit for each optional input in whose place the claim took the fallback"""
    group_roots: tuple[bytes, ...] = ()
    cid: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """The audit of one commitment. ``rate`` is the expected number of auditors, in 1/10,000; ``penalty`` what silence
    costs; ``seed`` and ``trace_root`` are NONE until drawn and revealed."""

    outcome: Outcome
    seats: int
    attestations: int
    rate: int
    solver: Address
    committed_in: int
    draw_block: int
    attest_until: int
    penalty: int
    seal: bytes
    seed: bytes
    trace_root: bytes

    @property
    def is_drawn_in_time(self) -> bool:
        """Whether the first draw counts, so that silence is punished."""
        return self.seed != NONE and self.draw_block == self.committed_in + 1


@dataclass(frozen=True, slots=True)
class Record:
    """What an account's work came to; ``unbroken`` is the value of segments settled since the last that was
    overturned or forfeited."""

    settled: int = 0
    overturned: int = 0
    forfeited: int = 0
    expired: int = 0
    unbroken: int = 0
    attested: int = 0
    silent: int = 0
    misattested: int = 0


@dataclass(frozen=True, slots=True)
class Game:
    """A dispute as it stands, with the list shown last (``shown``: checkpoints, states, children; ``page``,
    ``partials``: bytes), taken from the events."""

    id: GameId
    key: SegmentKey
    attempt: int
    phase: Phase
    tree: Tree
    height: int
    reason: Reason
    challenger: Address
    defender: Address
    since: int
    challenger_left: int
    defender_left: int
    bond: int
    position: bytes
    program_root: bytes
    data_root: bytes
    steps: int
    interval: int
    first: int
    length: int
    list_count: int
    index: int
    count: int
    value: int
    before: bytes
    after: bytes
    list_root: bytes
    nests_root: bytes
    node: bytes
    words: int
    fold_length: int
    word: int
    from_: int
    to: int
    accumulator: int
    claimed: int
    shown: tuple[bytes, ...] = ()
    page: bytes = b""
    partials: tuple[int, ...] = ()
    history: tuple[ChainEvent, ...] = ()
    """every event of the game so far, oldest first"""


@dataclass(frozen=True, slots=True)
class ProgramLeaf:
    data: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ValueProof:
    value: int
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PageOpening:
    operand: int
    index: int
    words: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """An event of one of the contracts: its Solidity name and its fields, under their Solidity names.

    ``contract`` tells events of the same name apart.
    """

    block: int
    index: int
    transaction: str
    name: str
    fields: dict[str, object] = field(default_factory=dict)
    contract: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction that was carried out."""

    transaction: str
    block: int
    gas: int
    events: tuple[ChainEvent, ...]


class Chain(Protocol):
    """What a buyer, solver or verifier does on a chain, as one account.

    Reads raise ChainUnavailable when no node answers (retry later) and BadAnswer when it answers nonsense. Moves
    raise Refused, with the contract's error and its values, when the contract would revert; nothing was sent then.
    """

    @property
    def address(self) -> Address:
        """The account that moves."""

    def now(self) -> int:
        """Time of the latest block, Unix seconds."""

    def head(self) -> tuple[int, str]:
        """Number and hash of the latest block."""

    def time_of(self, block: int) -> int:
        """Time of a block, Unix seconds."""

    def gas_price(self) -> int:
        """Wei for each gas, now."""

    # reads
    def rules(self) -> Rules: ...
    def job_count(self) -> int: ...
    def job(self, job: JobId) -> Job: ...
    def segment(self, key: SegmentKey) -> Segment: ...
    def barred(self, job: JobId, solver: Address) -> bool: ...
    def game_count(self) -> int: ...
    def game(self, game: GameId) -> Game: ...
    def events(self, first_block: int, last_block: int) -> list[ChainEvent]:
        """Events of the contracts, but for the tokens, in these blocks, both included, in order."""

    def transfers(self, account: Address, first_block: int, last_block: int) -> list[ChainEvent]:
        """Events ``Transfer`` of the token, from or to an account, in these blocks, in order."""

    def campaign_events(self, account: Address, first_block: int, last_block: int) -> list[ChainEvent]:
        """Events of campaigns that name an account, or of the account if it is one, in order. The field ``campaign``
        is the campaign's address."""

    def stake(self, account: Address) -> tuple[int, int]:
        """Free and locked stake, token units."""

    def owed(self, account: Address) -> int: ...
    def tokens(self, account: Address) -> int:
        """Token balance."""

    def tokens_before(self, account: Address) -> int:
        """Token balance before the contracts were deployed. Raises ChainUnavailable if the node has forgotten."""

    def burned(self) -> int:
        """What is burned and still counted in the contracts."""

    # audits
    def round(self, key: SegmentKey, attempt: int) -> Round:
        """The audit of an attempt; its outcome is NONE if there was no commitment."""

    def is_drawn(self, key: SegmentKey, attempt: int, auditor: Address) -> bool:
        """Whether an account is drawn. Raises Refused (NoSeed) while, or since, the draw's block is not known."""

    def attestation(self, key: SegmentKey, attempt: int, auditor: Address) -> bytes:
        """What an auditor attested; NONE if nothing."""

    def attestors(self, key: SegmentKey, attempt: int) -> tuple[Address, ...]: ...
    def weight(self, auditor: Address) -> int:
        """Stake with which an account takes part in draws."""

    def leaving(self, auditor: Address) -> tuple[int, int]:
        """Stake that an account took out of draws, and from when on it can be unlocked."""

    def total_weight(self) -> int: ...
    def auditors(self) -> tuple[Address, ...]:
        """All accounts that ever enrolled, in the order in which they did."""

    def record(self, account: Address) -> Record: ...
    def rate_of(self, solver: Address, price: int, asked: int) -> int:
        """Expected number of auditors, in 1/10,000, of a commitment of this solver."""

    # rewards
    def epoch(self) -> int: ...
    def rewards(self, epoch: int, account: Address) -> int:
        """Units of the protocol's token for an account's work of an epoch, so far."""

    def reward_tokens(self, account: Address) -> int:
        """Balance of the protocol's token."""

    def collect_rewards(self, epoch: int, account: Address) -> Receipt: ...

    # money
    def deposit(self, amount: int) -> Receipt:
        """Approves and deposits stake."""

    def withdraw_stake(self, amount: int) -> Receipt: ...
    def withdraw(self) -> Receipt:
        """Takes what the Market owes this account."""

    # market
    def post(self, terms: JobTerms, manifest: str) -> tuple[JobId, Receipt]:
        """Approves the escrow and posts."""

    def claim(
        self, key: SegmentKey, spec: SegmentSpec, plan_proof: Sequence[bytes], inputs: Sequence[GroupProof]
    ) -> Receipt: ...
    def commit(
        self, key: SegmentKey, input_root: bytes, group_roots: Sequence[bytes], seal: bytes, cid: str
    ) -> Receipt: ...
    def settle(self, key: SegmentKey, spec: SegmentSpec, trace_root: bytes = NONE) -> Receipt:
        """Pays solver and auditors; the trace root may be left out once it was revealed."""

    def forfeit(self, key: SegmentKey, spec: SegmentSpec) -> Receipt: ...
    def expire(self, key: SegmentKey) -> Receipt: ...
    def void(self, key: SegmentKey, spec: SegmentSpec) -> Receipt: ...
    def refund(self, job: JobId) -> Receipt: ...

    # audit
    def enroll(self, amount: int) -> Receipt: ...
    def leave(self, amount: int) -> Receipt: ...
    def finish_leaving(self, auditor: Address) -> Receipt: ...
    def draw(self, key: SegmentKey, attempt: int) -> Receipt: ...
    def attest(self, key: SegmentKey, attempt: int, seal: bytes, attestation: bytes) -> Receipt: ...
    def reveal(self, key: SegmentKey, attempt: int, trace_root: bytes) -> Receipt: ...
    def punish(self, key: SegmentKey, attempt: int, auditor: Address) -> Receipt: ...

    # dispute
    def challenge(self, key: SegmentKey, spec: SegmentSpec, seal: bytes) -> tuple[GameId, Receipt]: ...
    def reveal_trace(self, game: GameId, position: bytes, checkpoints: Sequence[bytes]) -> Receipt: ...
    def pick_checkpoint(
        self, game: GameId, position: bytes, checkpoint: int,
        before: bytes, before_proof: Sequence[bytes], after: bytes, after_proof: Sequence[bytes],
    ) -> Receipt: ...  # fmt: skip
    def reveal_states(self, game: GameId, position: bytes, states: Sequence[bytes]) -> Receipt: ...
    def pick_step(
        self, game: GameId, position: bytes, step: int,
        before: bytes, before_proof: Sequence[bytes], after: bytes, after_proof: Sequence[bytes],
    ) -> Receipt: ...  # fmt: skip
    def reveal_step(
        self, game: GameId, position: bytes, header: ProgramLeaf, children: Sequence[bytes]
    ) -> Receipt: ...
    def reveal_children(self, game: GameId, position: bytes, children: Sequence[bytes]) -> Receipt: ...
    def pick_child(
        self,
        game: GameId,
        position: bytes,
        child: int,
        node: bytes,
        proof: Sequence[bytes],
        leaf: ProgramLeaf,
    ) -> Receipt: ...
    def dispute_next(self, game: GameId, position: bytes, header: ProgramLeaf) -> Receipt: ...
    def reveal_page(self, game: GameId, position: bytes, words: bytes) -> Receipt: ...
    def pick_word(self, game: GameId, position: bytes, word: int, page: bytes) -> Receipt: ...
    def reveal_partials(self, game: GameId, position: bytes, partials: bytes) -> Receipt: ...
    def pick_partial(self, game: GameId, position: bytes, piece: int, partials: bytes) -> Receipt: ...
    def prove(
        self, game: GameId, position: bytes, header: ProgramLeaf, nest: ProgramLeaf,
        values: Sequence[ValueProof], pages: Sequence[PageOpening],
    ) -> Receipt: ...  # fmt: skip
    def prove_next(
        self, game: GameId, position: bytes, header: ProgramLeaf, value: ValueProof
    ) -> Receipt: ...
    def prove_invalid_nest(
        self, game: GameId, position: bytes, header: ProgramLeaf, index: int, nest: ProgramLeaf,
        read: int, producer: ProgramLeaf,
    ) -> Receipt: ...  # fmt: skip
    def prove_invalid_header(
        self, game: GameId, position: bytes, header: ProgramLeaf, tensor: int, producer: ProgramLeaf
    ) -> Receipt: ...
    def timeout(self, game: GameId) -> Receipt: ...
    def close(self, game: GameId) -> Receipt: ...
