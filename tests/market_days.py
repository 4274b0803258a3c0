"""A small job on a fake chain, and solvers and verifiers that work on it in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from crowdtrain.actions import Action
from crowdtrain.agent import Agent
from crowdtrain.chain import JobId, JobTerms, Segment, SegmentKey, SegmentState
from crowdtrain.fakes import FakeChain
from crowdtrain.folders import open_log
from crowdtrain.game.sabotage import parse
from crowdtrain.ledger import worth
from crowdtrain.runs import Hardware
from crowdtrain.stores import Store
from crowdtrain_node.decide import Policy
from crowdtrain_node.solver import Solver
from crowdtrain_verifier.decide import Policy as VerifierPolicy
from crowdtrain_verifier.verifier import Verifier
from small_jobs import PRICE, SEGMENTS, Sample, sample

__all__ = ["BUYER", "HARDWARE", "MONEY", "Market", "Place", "Process", "run_until"]

BUYER = "0x" + "b0" * 20
MONEY = 10_000
HARDWARE = Hardware("reference", None, None, memory=2**26, disk=2**26, speed=1e9)


class Process(Protocol):
    """A solver or a verifier."""

    agent: Agent[Action]

    def turn(self) -> bool: ...
    def close(self) -> None: ...


class Place:
    """A chain and a store, and the processes that were started."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.chain = FakeChain(BUYER)
        self.chain.mint(MONEY)
        self.store = store
        self.processes: list[Process] = []
        self._open = ExitStack()

    def account(self, name: str) -> FakeChain:
        """The chain as the account of this name, which is given money once."""
        chain = self.chain.as_account("0x" + name.encode().hex().ljust(40, "0")[:40])
        free, locked = chain.stake(chain.address)
        if not (chain.tokens(chain.address) or free or locked):
            chain.mint(MONEY)
        return chain

    def solver(
        self,
        name: str,
        sabotage: str | None = None,
        policy: Policy | None = None,
        hardware: Hardware = HARDWARE,
    ) -> Solver:
        """Starts a solver, in the folder of its name."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        log = self._open.enter_context(open_log(folder, name, console=False))
        cheat = parse(sabotage) if sabotage else None
        solver = Solver(folder, log, self.account(name), self.store, policy or Policy(), hardware, cheat)
        self.processes.append(solver)
        return solver

    def verifier(
        self, name: str, policy: VerifierPolicy | None = None, hardware: Hardware = HARDWARE
    ) -> Verifier:
        """Starts a verifier, in the folder of its name."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        log = self._open.enter_context(open_log(folder, name, console=False))
        verifier = Verifier(folder, log, self.account(name), self.store, policy or VerifierPolicy(), hardware)
        self.processes.append(verifier)
        return verifier

    def pause(self, process: Process) -> None:
        """Waits a little for what the process computes, or else lets time pass."""
        if process.agent.work.busy or process.agent.moves.busy:
            time.sleep(0.02)
        else:
            self.chain.advance(1)

    def worth(self, name: str) -> int:
        """All that an account has: tokens, stake, and what it is owed."""
        account = self.account(name)
        return worth(account, account.address)

    def locked(self, name: str) -> int:
        """Locked stake of an account."""
        account = self.account(name)
        return account.stake(account.address)[1]

    def close(self) -> None:
        """Ends all processes."""
        for process in self.processes:
            process.close()
        self._open.close()


class Market(Place):
    """A place with one posted job."""

    def __init__(self, folder: Path, price: int = PRICE, **terms: int) -> None:
        self.given: Sample = sample(price)
        super().__init__(folder, self.given.store)
        self.job = self.post(**terms)

    def post(self, **changes: int) -> JobId:
        """Posts the job once more, with other terms."""
        terms: JobTerms = replace(self.given.job.terms, **changes)  # type: ignore[arg-type]
        return self.chain.post(terms, self.given.manifest)[0]

    def committed(self) -> list[Segment]:
        """Segments of the job that are committed."""
        segments = [self.chain.segment(SegmentKey(self.job, i)) for i in range(SEGMENTS)]
        return [segment for segment in segments if segment.state is SegmentState.COMMITTED]


def run_until(
    done: Callable[[], bool], processes: Sequence[Process], chain: FakeChain, turns: int = 3000
) -> None:
    """Lets the processes take turns until ``done``; time passes when nobody has anything to do."""
    for _ in range(turns):
        if done():
            return
        before = chain.head()
        for process in processes:
            process.turn()
        if any(process.agent.work.busy or process.agent.moves.busy for process in processes):
            time.sleep(0.005)
        elif chain.head() == before:
            chain.advance(5)
    raise AssertionError(f"not done after {turns} turns")
