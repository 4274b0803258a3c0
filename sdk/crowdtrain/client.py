"""What a buyer does: ask for a price, post a job, watch it, and fetch what came out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from crowdtrain_engine import DataError, Dataset, EngineError, Program, State
from crowdtrain_engine.validation import cost
from rich.table import Table

from crowdtrain import economics
from crowdtrain._errors import CrowdtrainError, PlanError
from crowdtrain._explain import format_bytes, format_duration
from crowdtrain._rpc import Node
from crowdtrain._training import LoweredProgram
from crowdtrain.chain import WHOLE, Chain, ChainEvent, GameId, Job, JobId, JobTerms, SegmentKey, SegmentState
from crowdtrain.config import DEFAULT_RPC, DEFAULT_STORE
from crowdtrain.deployment import Deployment, find_deployment
from crowdtrain.jobs import JobFiles, load_job, publish_job
from crowdtrain.plan import MAX_CHECKPOINTS, MAX_INTERVAL, Piece, Plan, chain, interval_of
from crowdtrain.progress import Progress, progress_of
from crowdtrain.risk import Risk
from crowdtrain.stores import Store, open_store
from crowdtrain.web3_chain import Web3Chain

if TYPE_CHECKING:
    from crowdtrain.simulation import Advice, Fleet, Recipe
    from crowdtrain.strategies import Blueprint

__all__ = ["Client", "JobHandle", "NotReadyError", "Options", "Quote", "advise"]

SPEED = 2e9
"""body operations a second that a solver is taken to do, if nothing else is said"""
SEGMENT_SECONDS = 600
"""length of a segment that is aimed at"""
MOST_SECONDS = 30 * 24 * 3600
"""longest lease, window and clock that the contract takes"""
MOST_AUDITS = 4
"""most auditors of a segment that can be asked for, and most prices that they can share"""
RECENT, RECENT_JOBS = 7200, 50
"""blocks and jobs that tell who is online"""
FLEET_SECONDS = 10.0
"""for looking at them"""
MAX_SPEED = 1e13
"""operations a second that are believed of a machine"""
MAX_MACHINES = 256
"""of those that are online, when strategies are compared"""
OVERLAP = 12
"""blocks that may still be replaced by others"""


class NotReadyError(CrowdtrainError):
    """A result was asked for that is not there yet."""


class Options(TypedDict, total=False):
    """What a buyer may say of a job; what is missing or None is chosen."""

    stake: int | None
    """what a solver locks; by default so much that cheating loses money (:mod:`.economics`)"""
    lease: int | None
    """seconds from claim to commit; by default, as the other times, such that a slow machine has room"""
    window: int | None
    """seconds in which a result can be challenged"""
    clock: int | None
    """seconds that each player of a dispute has"""
    audits: float
    """least expected number of auditors of a segment, beyond what its solver's record asks for"""
    audit_share: float
    """what they get together, in prices"""
    duration: int | None
    """seconds until the job's deadline"""


@dataclass(frozen=True)
class Quote:
    """A job as it would be posted, and what it costs. Money in token units, times in seconds."""

    plan: Plan = field(repr=False)
    programs: tuple[Program, ...] = field(repr=False)
    datasets: tuple[Dataset, ...] = field(repr=False)
    initial: State | None = field(repr=False)
    """where training begins, if that is known"""
    result: tuple[Piece, ...] = field(repr=False)
    """what the trained model is made of; the last segment's output if this is empty"""
    stake: int
    """what a solver locks for each segment, and a challenger for a dispute"""
    lease: int
    window: int
    clock: int
    audit_rate: int
    """least expected number of auditors of each segment, in 1/10,000"""
    audit_share: int
    """what auditors of a segment share, in 1/10,000 of its price"""
    fee: int
    """what of all prices together is burned; it is the solvers' to pay"""
    duration: int
    """time until the job's deadline"""
    machines: int
    """how many can be at work side by side"""
    seconds: float
    """estimated time of the computation by so many machines"""
    moved: float
    """estimated bytes that solvers store"""
    gas_price: int
    """wei for each gas, at the time of asking"""
    advice: Advice | None = field(default=None, repr=False)
    """which strategy suits the machines that are online, and why, if they are known"""
    bonus: float = 0.0
    """what else a settled segment is worth to its solver, at most, such as shares of a campaign's model"""

    @property
    def escrow(self) -> int:
        """What posting takes from the buyer: the price of all segments, and what auditors can earn at most."""
        return self.plan.price + self.audit_pot

    @property
    def audit_pot(self) -> int:
        """What auditors of all segments can earn at most; what they do not comes back."""
        return sum(spec.price * self.audit_share // WHOLE for spec in self.plan.segments)

    def audit_cost(self, record: float = 0.0) -> int:
        """What auditors are expected to earn from solvers whose record is worth ``record`` (if enough are
        enrolled): a pot is paid out if anybody is drawn."""
        return round(self.audit_pot * economics.any_drawn(self.risk.offer.rate(record)))

    @property
    def risk(self) -> Risk:
        """The dearest segment with the eyes of an attacker, half of the auditors being accomplices."""
        offer = economics.Offer(
            price=max(spec.price for spec in self.plan.segments),
            stake=self.stake,
            audit_rate=self.audit_rate / WHOLE,
            audit_share=self.audit_share / WHOLE,
            fee_rate=self.fee / self.plan.price if self.plan.price else 0.0,
            lease=self.lease,
            window=self.window,
            clock=self.clock,
            segments=len(self.plan.segments),
        )
        return Risk(offer, economics.Assumptions(bonus=self.bonus))

    @property
    def gas(self) -> int:
        """Gas that the buyer pays for, about."""
        return economics.GAS["approve"] + economics.GAS["post"]

    @property
    def solver_gas(self) -> int:
        """Gas that solvers pay for, about, for all segments together."""
        return len(self.plan.segments) * economics.SEGMENT_GAS

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
            audit_rate=self.audit_rate,
            audit_share=self.audit_share,
            deadline=now + self.duration,
        )

    def publish(self, store: Store, state: State | None = None) -> tuple[str, State]:
        """Stores the job's files; the manifest's CID, and the state at which training begins.

        That is ``state``, or the model's own weights where the program was lowered from one. Raises PlanError if
        there is no state to begin with or the plan has its own, DataError if it is not the program's.
        """
        if state is None:
            if self.initial is None:
                raise PlanError("a program that was not lowered from a model needs a state to begin with")
            state = self.initial
        elif self.result:
            raise PlanError("the plan says where training begins; give the state to the strategy")
        else:
            state.check(self.programs[0])
        return publish_job(store, self.plan, self.programs, self.datasets, state, self.result), state

    def __rich__(self) -> Table:
        segments = self.plan.segments
        steps = sum(spec.steps for spec in segments)
        table = Table("", "quote", title="Training job", show_header=False)
        for name, value in (
            (
                "segments",
                f"{len(segments)}, {steps} steps, a checkpoint every {_range(s.interval for s in segments)}",
            ),
            (
                "machines",
                f"{self.machines} can be at work side by side; they store {format_bytes(self.moved)} in all",
            ),
            (
                "price",
                f"{_range(spec.price for spec in segments)} for each segment, {self.plan.price} in all",
            ),
            ("fee", f"{self.fee} of that is burned, solvers get {self.plan.price - self.fee}"),
            (
                "audits",
                f"{self.audit_pot} at most; about {self.audit_cost()} for solvers without a record, "
                f"{self.audit_cost(math.inf)} for those with a long one; the rest comes back",
            ),
            ("escrow", f"{self.escrow}: price and audits at most"),
            ("stake of a solver", f"{self.stake} for each segment"),
            ("cheapest attack", self.risk.summary),
            ("estimated training", format_duration(self.seconds)),
            (
                "settled after",
                f"{format_duration(self.seconds + self.window)} or more, if nothing is disputed",
            ),
            ("lease, window, clock", ", ".join(map(format_duration, (self.lease, self.window, self.clock)))),
            ("deadline", f"{format_duration(self.duration)} after posting; what is unspent comes back"),
            ("gas of posting", f"{self.gas}, now {self.gas * self.gas_price / 10**18:.6f} ether"),
            ("recommended", "" if self.advice is None else self.advice.why),
        ):
            if value:
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
        speed: float = SPEED,
        fleet: Fleet | None = None,
        **options: Unpack[Options],
    ) -> Quote:
        """What ``steps`` steps of ``program`` on ``data`` would cost as a chain of segments; posts nothing.

        ``price`` is in token units for each segment. What is not given is chosen: segments of about ten minutes at
        ``speed`` operations a second, 16 checkpoints each; for the rest see :class:`Options`. With a ``fleet``
        (:meth:`fleet` finds the one that is online) the quote says which strategy suits it. Raises ProgramError or
        DataError if program and data do not fit together or are too short, PlanError if no plan can be made.
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
        if interval is None:
            interval = interval_of(-(-steps // max(segments, 1)))
        plan = chain(bound, data.root, segments=segments, steps=steps, interval=interval, price=price)
        return self._quote(
            options, plan=plan, programs=(bound,), datasets=(data,), result=(), machines=1, seconds=seconds,
            initial=program.initial_state() if isinstance(program, LoweredProgram) else None,
            moved=segments * 4.0 * sum(kind.size for kind in bound.state),
            longest=seconds / max(segments, 1),
            advice=None if fleet is None else advise(bound, data, steps, fleet),
        )  # fmt: skip

    def fleet(self, blocks: int = RECENT) -> Fleet | None:
        """The machines of whose work something was settled in the last ``blocks`` blocks, with the speed at which they
        did it: their segments' operations by the time from claim to commitment; None if there are none.

        The newest jobs are looked at first, for some seconds at most. Jobs whose files cannot be had are passed over,
        as are segments of a single step, such as merges. Who buys its own work can have any speed here, so it is for
        advice only.
        """
        from crowdtrain.simulation import Fleet, Machine

        last = self.chain.head()[0]
        by_job: dict[JobId, list[ChainEvent]] = {}
        for event in self.chain.events(max(0, last - blocks), last):
            if event.contract == "Market" and event.name in ("Claimed", "Committed", "Settled"):
                by_job.setdefault(JobId(int(str(event.fields["job"]))), []).append(event)
        work, spent = Counter[str](), Counter[str]()
        until = time.monotonic() + FLEET_SECONDS
        for job in sorted(by_job, reverse=True)[:RECENT_JOBS]:
            if time.monotonic() > until:
                break
            try:
                self._settled(load_job(self.chain, self.store, job), by_job[job], work, spent)
            except (CrowdtrainError, EngineError, IndexError):
                continue
        machines = [
            Machine(min(work[solver] / spent[solver], MAX_SPEED), solver)
            for solver in sorted(work)
            if work[solver]
        ]
        return Fleet(tuple(machines[:MAX_MACHINES])) if machines else None

    @staticmethod
    def _settled(
        files: JobFiles, events: Sequence[ChainEvent], work: Counter[str], spent: Counter[str]
    ) -> None:
        """Adds up what each solver's settled segments of a job came to."""
        terms, operations = files.job.terms, dict[bytes, int]()
        since, took = dict[int, int](), dict[int, int]()
        for event in events:
            index = int(str(event.fields["segment"]))
            spec = files.spec(index)
            if event.name == "Claimed":
                since[index] = int(str(event.fields["until"])) - terms.lease
            elif event.name == "Committed" and index in since:
                took[index] = int(str(event.fields["until"])) - terms.window - since[index]
            elif event.name == "Settled" and index in took and spec.steps > 1:
                if spec.program_root not in operations:
                    program = files.program(index)
                    program.validate()
                    operations[spec.program_root] = cost(program).operations
                solver = str(event.fields["solver"])
                work[solver] += spec.steps * operations[spec.program_root]
                spent[solver] += max(1, took[index])

    def quote_plan(
        self,
        blueprint: Blueprint,
        *,
        speed: float = SPEED,
        fleet: Fleet | None = None,
        **options: Unpack[Options],
    ) -> Quote:
        """What a strategy's plan (:mod:`.strategies`) would cost; posts nothing.

        Time and bytes come from a simulation of ``fleet``: by default as many machines as the plan has workers, each
        with ``speed`` operations a second. For what is not given see :class:`Options`. Raises PlanError if the fleet
        cannot carry the plan out.
        """
        from crowdtrain.simulation import Fleet, Machine, simulate

        fleet = fleet or Fleet.of(blueprint.workers, Machine(speed))
        forecast = simulate(blueprint, fleet)
        if not forecast.is_complete:
            raise PlanError(f"these machines cannot carry out the plan: {forecast.reason}")
        slowest = min(machine.speed for machine in fleet.machines)
        work = max(task.operations for task in forecast.workload.tasks)
        return self._quote(
            options, plan=blueprint.plan, programs=blueprint.programs, datasets=blueprint.datasets,
            initial=blueprint.initial, result=blueprint.result, machines=blueprint.workers, seconds=forecast.ready,
            moved=forecast.up, longest=work / slowest,
        )  # fmt: skip

    def _quote(
        self,
        options: Options,
        *,
        plan: Plan,
        programs: tuple[Program, ...],
        datasets: tuple[Dataset, ...],
        initial: State | None,
        result: tuple[Piece, ...],
        machines: int,
        seconds: float,
        moved: float,
        longest: float,
        advice: Advice | None = None,
    ) -> Quote:
        """``longest`` is the time that a slow machine takes for the longest segment."""
        audits = options.get("audits", economics.AUDIT_RATE)
        audit_share = options.get("audit_share", economics.AUDIT_SHARE)
        rules = self.chain.rules()
        lease = _time("lease", options.get("lease"), 60 + 10 * longest)
        window = _time("window", options.get("window"), min(120 + 10 * longest, rules.unbonding / 2))
        clock = _time("clock", options.get("clock"), min(1800 + 20 * longest, (rules.unbonding - window) / 3))
        if window + 3 * clock > rules.unbonding:
            raise PlanError(
                f"window and three clocks are {window + 3 * clock} seconds, more than the {rules.unbonding} for which "
                "auditors' stake stays locked"
            )
        stake, duration = options.get("stake"), options.get("duration")
        if stake is None:
            dearest = max(spec.price for spec in plan.segments)
            shown = economics.Offer(price=dearest, stake=0, audit_rate=audits, audit_share=audit_share)
            stake = round(economics.proposed_stake(shown))
        return Quote(
            plan=plan,
            programs=programs,
            datasets=datasets,
            initial=initial,
            result=result,
            stake=stake,
            lease=lease,
            window=window,
            clock=clock,
            audit_rate=_part("audits", audits),
            audit_share=_part("audit_share", audit_share),
            fee=sum(rules.fee(spec.price) for spec in plan.segments),
            duration=3600 + 2 * plan.depth * (lease + window) if duration is None else duration,
            machines=machines,
            seconds=seconds,
            moved=moved,
            gas_price=self.chain.gas_price(),
            advice=advice,
        )

    def post(self, quote: Quote, state: State | None = None) -> JobHandle:
        """Stores the job's files, puts the escrow into the Market, and opens the job.

        See :meth:`Quote.publish` for where training begins, and what is raised.
        """
        manifest, state = quote.publish(self.store, state)
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
        """The trained model's state, checked against roots on chain: what the plan says that the result is made of, by
        default the output of the last segment.

        Raises NotReadyError unless all of it is settled, PlanError if the job's files contradict the chain.
        """
        files = load_job(self.chain, self.store, job)
        segments = {index: self.chain.segment(SegmentKey(job, index)) for index in files.result_sources()}
        for index, segment in segments.items():
            if segment.state is not SegmentState.SETTLED:
                state = segment.state.name.lower()
                raise NotReadyError(
                    f"segment {index} of job {job} is {state}; its output stands once it is settled"
                )
        return files.load_result(segments.__getitem__)


def advise(
    program: Program, data: Dataset, steps: int, fleet: Fleet, recipes: Sequence[Recipe] | None = None
) -> Advice:
    """Which strategy suits a fleet for ``steps`` steps of ``program`` in all, and why: see :func:`.recommend`."""
    from crowdtrain.simulation import RECIPES, Model, recommend

    model = Model.of(program, data=float(sum(tensor.nbytes for tensor in data.tensors.values())))
    return recommend(model, fleet, steps=steps, recipes=RECIPES if recipes is None else recipes)


def _once(event: ChainEvent, seen: dict[tuple[str, int], int]) -> bool:
    key = (event.transaction, event.index)
    new = key not in seen
    seen[key] = event.block
    return new


def _range(values: Iterable[int]) -> str:
    listed = sorted(values)
    return str(listed[0]) if listed[0] == listed[-1] else f"{listed[0]} to {listed[-1]}"


def _time(name: str, given: int | None, chosen: float) -> int:
    value = min(int(chosen), MOST_SECONDS) if given is None else given
    if not 1 <= value <= MOST_SECONDS:
        raise PlanError(f"{name} must be 1 to {MOST_SECONDS} seconds, not {value}")
    return value


def _part(name: str, value: float) -> int:
    if not 0 <= value <= MOST_AUDITS:
        raise PlanError(f"{name} must be 0 to {MOST_AUDITS}, not {value}")
    return round(value * WHOLE)
