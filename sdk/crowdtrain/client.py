"""What a buyer does: ask for a price, post a job, watch it, and fetch what came out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crowdtrain_engine import DataError, Dataset, Program, State
from crowdtrain_engine.validation import cost
from rich.table import Table

from crowdtrain._errors import CrowdtrainError, PlanError
from crowdtrain._rpc import Node
from crowdtrain._training import LoweredProgram
from crowdtrain.chain import Chain, ChainEvent, GameId, Job, JobId, JobTerms, SegmentKey, SegmentState
from crowdtrain.config import DEFAULT_RPC, DEFAULT_STORE
from crowdtrain.deployment import Deployment, find_deployment
from crowdtrain.jobs import load_job, publish_job
from crowdtrain.plan import MAX_CHECKPOINTS, MAX_INTERVAL, Plan, chain
from crowdtrain.progress import Progress, progress_of
from crowdtrain.stores import Store, open_store
from crowdtrain.web3_chain import Web3Chain

__all__ = ["Client", "JobHandle", "NotReadyError", "Quote"]

SPEED = 2e9
"""body operations a second that a solver is taken to do, if nothing else is said"""
GAS = {"approve": 60_000, "post": 250_000, "claim": 320_000, "commit": 140_000, "settle": 130_000}
"""gas of the transactions of an undisputed job, at most about (``make bench-gas`` measures it)"""
SEGMENT_SECONDS = 600
"""length of a segment that is aimed at"""
MOST_SECONDS = 30 * 24 * 3600
"""longest lease, window and clock that the contract takes"""
OVERLAP = 12
"""blocks that may still be replaced by others"""


class NotReadyError(CrowdtrainError):
    """A result was asked for that is not there yet."""


@dataclass(frozen=True)
class Quote:
    """A job as it would be posted, and what it costs. Money in token units, times in seconds."""

    program: Program
    data: Dataset = field(repr=False)
    plan: Plan = field(repr=False)
    stake: int
    """what a solver locks for each segment, and a challenger for a dispute"""
    lease: int
    window: int
    clock: int
    duration: int
    """time until the job's deadline"""
    seconds: float
    """estimated time of the computation, one segment after another"""
    gas_price: int
    """wei for each gas, at the time of asking"""

    @property
    def escrow(self) -> int:
        """What posting takes from the buyer: the price of all segments."""
        return self.plan.price

    @property
    def gas(self) -> int:
        """Gas that the buyer pays for, about."""
        return GAS["approve"] + GAS["post"]

    @property
    def solver_gas(self) -> int:
        """Gas that solvers pay for, about, for all segments together."""
        return len(self.plan.segments) * (GAS["claim"] + GAS["commit"] + GAS["settle"])

    def terms(self, now: int, initial: State) -> JobTerms:
        """What is posted at the time ``now``."""
        return JobTerms(
            plan_root=self.plan.root,
            initial_root=initial.root,
            initial_groups=len(initial),
            segments=len(self.plan.segments),
            escrow=self.escrow,
            stake=self.stake,
            lease=self.lease,
            window=self.window,
            clock=self.clock,
            deadline=now + self.duration,
        )

    def __rich__(self) -> Table:
        segments = self.plan.segments
        steps = sum(spec.steps for spec in segments)
        table = Table("", "quote", title="Training job", show_header=False)
        for name, value in (
            ("segments", f"{len(segments)}, {steps} steps, a checkpoint every {segments[0].interval}"),
            ("price", f"{segments[0].price} for each segment, {self.escrow} in all, held in escrow"),
            ("stake of a solver", f"{self.stake} for each segment"),
            ("estimated training", _duration(self.seconds)),
            ("settled after", f"{_duration(self.seconds + self.window)} or more, if nothing is disputed"),
            ("lease, window, clock", ", ".join(map(_duration, (self.lease, self.window, self.clock)))),
            ("deadline", f"{_duration(self.duration)} after posting; what is unspent comes back"),
            ("gas of posting", f"{self.gas}, now {self.gas * self.gas_price / 10**18:.6f} ether"),
        ):
            table.add_row(name, value)
        return table


@dataclass(frozen=True)
class JobHandle:
    """A job that was posted."""

    client: Client = field(repr=False)
    id: JobId
    block: int
    """where it was posted"""

    @property
    def job(self) -> Job:
        """The job as it stands."""
        return self.client.chain.job(self.id)

    def watch(self, poll: float = 1.0) -> Iterator[Progress]:
        """See :meth:`Client.watch`."""
        return self.client.watch(self.id, first_block=self.block, poll=poll)

    def result(self) -> State:
        """See :meth:`Client.result`."""
        return self.client.result(self.id)


class Client:
    """A buyer's view of the market, over any chain and store.

    Methods raise what chain and store raise: ChainUnavailable, BadAnswer and Refused; StoreUnavailable,
    NotFound and Corrupt.
    """

    def __init__(self, chain: Chain, store: Store) -> None:
        self.chain = chain
        self.store = store

    @classmethod
    def connect(
        cls,
        rpc: str = DEFAULT_RPC,
        *,
        deployment: Deployment | Path | None = None,
        key: str | None = None,
        store: Store | str = DEFAULT_STORE,
        journal: Path | None = None,
    ) -> Client:
        """A client of the node at ``rpc``.

        ``deployment`` is the contracts' addresses, or a file or folder that has them for the node's
        chain; the usual folders are searched without it. ``key`` is a private key in hexadecimal, needed
        to post; ``store`` a gateway's URL, an IPFS daemon's multiaddress or a folder; ``journal`` a file
        in which transactions are written down before they are sent. Raises ConfigError if one of them
        cannot be used.
        """
        if not isinstance(deployment, Deployment):
            deployment = find_deployment(Node(rpc).chain_id(), deployment)
        opened = open_store(store) if isinstance(store, str) else store
        return cls(Web3Chain(rpc, deployment, key, journal), opened)

    def quote(
        self,
        program: Program,
        data: Dataset,
        steps: int,
        *,
        price: int,
        segments: int | None = None,
        interval: int | None = None,
        stake: int | None = None,
        lease: int | None = None,
        window: int | None = None,
        clock: int | None = None,
        duration: int | None = None,
        speed: float = SPEED,
    ) -> Quote:
        """What ``steps`` steps of ``program`` on ``data`` would cost as a chain of segments; posts nothing.

        ``price`` is in token units for each segment. What is not given is chosen: segments of about ten
        minutes at ``speed`` operations a second, 16 checkpoints each, ten times the price as stake, and times
        that leave a slow machine room. Raises ProgramError or DataError if program and data do not fit
        together or are too short, PlanError if no plan can be made.
        """
        bound = program.bind(data.rows) if program.is_open else program
        bound.validate()
        data.check(bound)
        order = data.tensors.get("order")
        if order is not None and steps > order.shape[0]:
            raise DataError(f"order has rows for {order.shape[0]} steps, {steps} were asked for")
        seconds = steps * cost(bound).operations / speed
        if segments is None:
            least = -(-steps // (MAX_INTERVAL * MAX_CHECKPOINTS))
            segments = min(max(least, round(seconds / SEGMENT_SECONDS), 1), max(steps, 1))
        each = seconds / max(segments, 1)
        length = -(-steps // max(segments, 1))
        if interval is None:
            interval = min(MAX_INTERVAL, max(1, length // 16, -(-length // MAX_CHECKPOINTS)))
        plan = chain(bound, data.root, segments=segments, steps=steps, interval=interval, price=price)
        lease = _time("lease", lease, 60 + 10 * each)
        window = _time("window", window, 120 + 10 * each)
        return Quote(
            program=bound,
            data=data,
            plan=plan,
            stake=10 * price if stake is None else stake,
            lease=lease,
            window=window,
            clock=_time("clock", clock, 1800 + 20 * each),
            duration=3600 + 2 * segments * (lease + window) if duration is None else duration,
            seconds=seconds,
            gas_price=self._gas_price(),
        )

    def _gas_price(self) -> int:
        if not isinstance(self.chain, Web3Chain):
            return 0
        return self.chain.node.block().base_fee + self.chain.node.tip()

    def post(self, quote: Quote, state: State | None = None) -> JobHandle:
        """Stores the job's files, puts the escrow into the Market, and opens the job.

        Training begins at ``state``, or at the model's own weights where the program was lowered from one.
        Raises PlanError if there is no state to begin with, DataError if it is not the program's.
        """
        if state is None:
            if not isinstance(quote.program, LoweredProgram):
                raise PlanError("a program that was not lowered from a model needs a state to begin with")
            state = quote.program.initial_state()
        state.check(quote.program)
        manifest = publish_job(self.store, quote.plan, [quote.program], [quote.data], state)
        job, receipt = self.chain.post(quote.terms(self.chain.now(), state), manifest)
        return JobHandle(self, job, receipt.block)

    def watch(self, job: JobId, *, first_block: int = 0, poll: float = 1.0) -> Iterator[Progress]:
        """What happens to a job, from ``first_block`` on, until nothing more can: all is settled, or the
        deadline is over and nobody is at work. Looks every ``poll`` seconds.

        An event is given once; one that a reorganisation takes back may come again in another block.
        """
        games: dict[GameId, int] = {}
        seen: dict[tuple[str, int], int] = {}
        start, last = first_block, ""
        while True:
            if self.chain.head()[1] != last:
                # asked before the events are read, so that what made it over is among them
                is_over = self._is_over(job)
                number, last = self.chain.head()
                events = self.chain.events(start, number)
                yield from progress_of([event for event in events if _once(event, seen)], job, games)
                start = max(first_block, number - OVERLAP)
                seen = {key: block for key, block in seen.items() if block >= start}
                if is_over:
                    return
            time.sleep(poll)

    def _is_over(self, number: JobId) -> bool:
        job = self.chain.job(number)
        if job.settled == job.terms.segments:
            return True
        if self.chain.now() <= job.terms.deadline:
            return False
        busy = (SegmentState.CLAIMED, SegmentState.COMMITTED)
        segments = (self.chain.segment(SegmentKey(number, i)) for i in range(job.terms.segments))
        return not any(segment.state in busy for segment in segments)

    def result(self, job: JobId) -> State:
        """The output of the last segment, checked against its roots on chain.

        Raises NotReadyError unless it is settled, PlanError if the job's files contradict the chain.
        """
        files = load_job(self.chain, self.store, job)
        index = len(files.plan.segments) - 1
        segment = self.chain.segment(SegmentKey(job, index))
        if segment.state is not SegmentState.SETTLED:
            state = segment.state.name.lower()
            raise NotReadyError(
                f"segment {index} of job {job} is {state}; its output stands once it is settled"
            )
        return files.load_output(index, segment)


def _once(event: ChainEvent, seen: dict[tuple[str, int], int]) -> bool:
    key = (event.transaction, event.index)
    new = key not in seen
    seen[key] = event.block
    return new


def _time(name: str, given: int | None, chosen: float) -> int:
    value = min(int(chosen), MOST_SECONDS) if given is None else given
    if not 1 <= value <= MOST_SECONDS:
        raise PlanError(f"{name} must be 1 to {MOST_SECONDS} seconds, not {value}")
    return value


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
