"""The place where the simulation happens: a chain with the contracts, accounts on it, and a small program to train.

The chain's time is its own, a second for each block, so that a run is repeated to the last block.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
from crowdtrain import _records as records
from crowdtrain._rpc import RpcError, TransactionReceipt
from crowdtrain._sender import Sender, account_of, refusal
from crowdtrain.chain import (
    INITIAL,
    Address,
    GroupProof,
    JobId,
    JobTerms,
    Segment,
    SegmentKey,
    SegmentSpec,
    Source,
)
from crowdtrain.cid import cid_of
from crowdtrain.devnet import Devnet
from crowdtrain.game.sabotage import WrongWord
from crowdtrain.journal import Journal
from crowdtrain.ledger import worth
from crowdtrain.plan import Plan
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine import (
    Axis,
    Dataset,
    DType,
    Instruction,
    Labels,
    Nest,
    Program,
    Read,
    State,
    TensorType,
    merkle,
)
from crowdtrain_engine.ops import BY_NAME
from crowdtrain_engine.trace import Machine, Replay, seal, trace_root

__all__ = ["PRICE", "Account", "Job", "Terms", "Town", "Work", "open_town", "toy"]

PRICE = 1_000_000
"""token units for a segment"""
WORDS, STEPS, INTERVAL = 8, 4, 2
START = 1_800_000_000
CID = cid_of(b"nobody fetches this")


def toy() -> Program:
    """A step over eight words: mixes each, sums them up, and adds the sum to each.

    A fold that is longer than what the Referee takes at once, and a wrong word of it spreads everywhere.
    """
    word, all_words = Axis(WORDS, ((0, 1),)), Axis(WORDS, ((0, 1),))
    mixed = Nest(
        DType.u32,
        (WORDS,),
        (Read(0, (word,)),),
        (_op("imul", 1, 2), _op("shr", 1, 3), _op("ixor", 4, 5)),
        6,
        (),
        0,
        (2_654_435_761, 15),
    )
    total = Nest(DType.u32, (), (Read(1, (all_words,)),), (_op("iadd", 0, 1),), 2, (WORDS,), 7)
    after = Nest(DType.u32, (WORDS,), (Read(1, (word,)), Read(2, ())), (_op("iadd", 1, 2),), 3)
    program = Program(
        groups=(1,),
        state=(TensorType(DType.u32, (WORDS,)),),
        data=(),
        nests=(mixed, total, after),
        next=(3,),
        logs=(),
        labels=Labels(("words",), ("words",), (), (), ("mixed", "total", "after")),
    )
    program.validate()
    return program


def _op(name: str, a: int, b: int, c: int = 0) -> Instruction:
    return Instruction(BY_NAME[name].code, a, b, c)


# ------------------------------------------------------------------ accounts


class _Unlocked(Sender):
    """Has the chain sign, and keeps no journal: fewer requests for each transaction."""

    gas = 0

    def send(self, label: str, to: str, data: bytes) -> TransactionReceipt:
        try:
            # the estimate finds out whether the call would be refused, too
            gas = 5 * self._node.estimate_gas(self.address, to, data) // 4
            call = {"from": self.address, "to": to, "data": f"0x{data.hex()}", "gas": hex(gas)}
            # answers when the transaction is in a block
            sent = self._node.request("eth_sendTransactionSync", call)
        except RpcError as error:
            raise refusal(label, error) from error
        receipt = self._node.receipt(cast(dict[str, str], sent)["transactionHash"])
        if receipt is None or not receipt.succeeded:
            raise RuntimeError(f"{label} was reverted after all: {sent}")
        self.gas += receipt.gas
        return receipt


class Account(Web3Chain):
    """An account on the devnet, and what it spent outside the contracts. All look at the chain through one reader."""

    def __init__(self, reader: Web3Chain, key: str) -> None:
        self.__dict__.update(reader.__dict__)
        account = account_of(key)
        self.node.request("anvil_impersonateAccount", account.address)
        self._unlocked = _Unlocked(
            self.node, account, reader.deployment.chain_id, Journal(None, account.address)
        )
        self._sender = self._unlocked
        self.computed = 0
        """segments that were computed"""

    @property
    def gas(self) -> int:
        """Gas of all transactions so far."""
        return self._unlocked.gas

    @cached_property
    def raw_address(self) -> bytes:
        """The address, 20 bytes."""
        return bytes.fromhex(self.address[2:])

    def segment(self, key: SegmentKey) -> Segment:
        """A segment as it stands, without group roots and CID: the town knows them."""
        (fields,) = self.read("Market", "segments", key.job, key.index)
        return records.segment_of(key, fields)

    def transfer(self, to: Address, amount: int) -> None:
        """Hands on token units from the wallet."""
        self.send("Money", "transfer", to, amount)

    def wealth(self) -> int:
        """Token units in the wallet, as stake, and owed."""
        return worth(self, self.address)


# ------------------------------------------------------------------ jobs


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a buyer fixes, in prices where it is money."""

    stake: float = 50
    audit_rate: float = 0.1
    audit_share: float = 1.0
    price: int = PRICE
    lease: int = 7200
    window: int = 7200
    clock: int = 7200


@dataclass(frozen=True)
class Job:
    """A job whose segments do not depend on each other: each starts from a group of the initial state, its own."""

    number: JobId
    terms: JobTerms
    plan: Plan
    groups: merkle.Tree
    states: tuple[State, ...]

    @property
    def keys(self) -> list[SegmentKey]:
        """Keys of all segments."""
        return [SegmentKey(self.number, i) for i in range(len(self.states))]


@dataclass
class Work:
    """One attempt at a segment: what is right, and what its solver says."""

    job: Job
    index: int
    solver: Account
    run: Replay
    """the solver's"""
    attempt: int = 0

    @property
    def key(self) -> SegmentKey:
        """Job and number."""
        return SegmentKey(self.job.number, self.index)

    @property
    def spec(self) -> SegmentSpec:
        """The plan's leaf."""
        return self.job.plan.segments[self.index]

    @cached_property
    def root(self) -> bytes:
        """The solver's trace root."""
        return trace_root(self.run.trace)

    @property
    def seal(self) -> bytes:
        """The solver's seal."""
        return seal(self.root, self.solver.raw_address)


class Town:
    """Everything that agents share. Whoever computes, pays for it (:attr:`Account.computed`)."""

    def __init__(self, devnet: Devnet, seed: int) -> None:
        self.devnet = devnet
        self.program = toy()
        self.rng = random.Random(seed)
        self.minted = 0
        self.accounts: dict[Address, Account] = {}
        self._reader = Web3Chain(devnet.rpc, devnet.deployment)

    def account(self, tokens: int) -> Account:
        """A new account with tokens."""
        key = sha256(f"resident {len(self.accounts)}".encode()).hexdigest()
        account = Account(self._reader, key)
        self.devnet.fund(account.address, tokens)
        self.minted += tokens
        self.accounts[account.address] = account
        return account

    def now(self) -> int:
        """Time of the last block."""
        return self.devnet.node.block().timestamp

    def advance_to(self, time: int) -> None:
        """Makes a block at or after a time."""
        ahead = time - self.now()
        if ahead > 0:
            self.devnet.advance(ahead)

    # ---------------------------------------------------------------- jobs

    def post(self, buyer: Account, terms: Terms, segments: int, steps: int = STEPS) -> Job:
        """Posts a job with random initial states."""
        words = np.random.default_rng(self.rng.getrandbits(32)).integers(
            0, 2**32, (segments, WORDS), np.uint32
        )
        states = tuple(State.from_tensors(self.program, [row]) for row in words)
        groups = merkle.Tree([state.group_roots[0] for state in states])
        plan = Plan(
            tuple(
                SegmentSpec(
                    self.program.root,
                    bytes(32),
                    steps,
                    min(INTERVAL, steps),
                    terms.price,
                    (Source(INITIAL, i),),
                )
                for i in range(segments)
            )
        )
        stake, share = round(terms.stake * terms.price), round(terms.audit_share * 10_000)
        posted = JobTerms(
            plan_root=plan.root,
            initial_root=groups.root,
            initial_groups=segments,
            segments=segments,
            escrow=segments * (terms.price + terms.price * share // 10_000),
            stake=stake,
            lease=terms.lease,
            window=terms.window,
            clock=terms.clock,
            audit_rate=round(terms.audit_rate * 10_000),
            audit_share=share,
            deadline=self.now() + 7 * 24 * 3600,
        )
        number, _ = buyer.post(posted, CID)
        return Job(number, posted, plan, groups, states)

    def run(self, account: Account, job: Job, index: int, lie: WrongWord | None = None) -> Replay:
        """Computes a segment, which costs something; or, with a lie, makes one up, which is free here."""
        if lie is None:
            account.computed += 1
        machine = Machine(self.program, Dataset.from_tensors({}), backend="reference", deviation=lie)
        spec = job.plan.segments[index]
        return Replay.run(machine, job.states[index], steps=spec.steps, interval=spec.interval)

    def lie(self) -> WrongWord:
        """A wrong word in any step."""
        step, word, bit = self.rng.randrange(STEPS), self.rng.randrange(WORDS), self.rng.randrange(32)
        return WrongWord(step, lambda program: 2, word, bit)

    def claim(self, solver: Account, job: Job, index: int) -> None:
        """Takes a segment."""
        proof = GroupProof(job.groups.levels[0][index], tuple(job.groups.proof(index)))
        key = SegmentKey(job.number, index)
        solver.claim(key, job.plan.segments[index], job.plan.proof(index), [proof])

    def commit(self, work: Work) -> None:
        """Posts what the solver says."""
        output = work.run.state_at(len(work.run.trace) - 1)
        before = merkle.root([work.job.groups.levels[0][work.index]])
        work.solver.commit(work.key, before, output.group_roots, work.seal, CID)

    # ---------------------------------------------------------------- the end

    def held(self) -> int:
        """Token units that are not with an account: in the contracts, or burned."""
        return self.minted - sum(account.tokens(account.address) for account in self.accounts.values())


@contextmanager
def open_town(seed: int = 0) -> Iterator[Town]:
    """A town without residents."""
    with (
        TemporaryDirectory() as folder,
        Devnet(Path(folder), accounts=0, timestamp=START) as devnet,
    ):
        yield Town(devnet, seed)
