"""The simulation itself: a clock that jumps from event to event.

A segment is open once what it builds on is committed. A machine that claims one fetches the groups that it does not
have, computes, stores the output, and commits; if it is gone for too long, the lease runs out and the segment is open
again. Machines choose as solvers do, except that no two try for the same segment: the next of a worker whose last one
they did, then the largest that they can finish within a part of the lease. Of idle machines the one that would be done
first gets a segment.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from crowdtrain.simulation.estimate import Estimator
from crowdtrain.simulation.fleet import Fleet, Market, Network
from crowdtrain.simulation.link import SharedLink
from crowdtrain.simulation.workload import Task, Workload

__all__ = ["Attempt", "Simulation", "Tally"]

MAX_EVENTS = 10_000_000
"""after so many, and 100 for each segment, a simulation gives up"""
MAX_ATTEMPTS = 1000
"""at one segment, before a simulation gives up"""
REPORT = 2000
"""events between two reports of progress"""
LOOKED_AT = 32
"""open segments of a kind that a machine considers: the first may be ones that it has let expire"""
MAKERS = 4
"""machines that are asked because they have made inputs of a segment"""
NOBODY = -1


class _State(IntEnum):
    WAITING = 0
    OPEN = 1
    CLAIMED = 2
    COMMITTED = 3


class _Event(IntEnum):
    """Those of one moment happen in this order, so that what ends with a lease is in time."""

    PHASE = 0
    MOVED = 1
    UP = 2
    DOWN = 3
    BACK = 4
    EXPIRE = 5
    OPEN = 6
    LOOK = 7


class _Phase(IntEnum):
    CLAIM = 0
    FETCH = 1
    COMPUTE = 2
    STORE = 3
    COMMIT = 4


class Attempt(NamedTuple):
    """What became of a claim. Times in seconds, NaN if that point was not reached."""

    segment: int
    machine: int
    claimed: float
    fetched: float
    computed: float
    ended: float
    committed: bool


@dataclass(slots=True)
class _Job:
    """A claim that a machine is busy with."""

    segment: int
    number: int
    claimed: float
    groups: tuple[int, ...]
    """to be fetched"""
    seconds: float
    """of computing"""
    stop: float
    """the part of it after which the machine gives up"""
    phase: _Phase = _Phase.CLAIM
    since: float = 0.0
    """when the phase began"""
    lasts: float = 0.0
    """how long the phase takes, if nothing else is in its way"""
    size: float = 0.0
    """bytes that are moved in it"""
    done: float = 0.0
    """part of the computing that is done and kept"""
    fetched: float = math.nan
    computed: float = math.nan
    sent: float = 0.0
    """bytes stored"""


@dataclass
class Tally:
    """What was counted; one number for each machine in the arrays."""

    up: list[float]
    """bytes sent"""
    down: list[float]
    """bytes received"""
    busy: list[float]
    """seconds of computing"""
    held: list[float]
    """seconds with a claim"""
    present: list[float]
    """seconds that it was there"""
    attempts: list[Attempt] = field(default_factory=list)
    expired: int = 0
    """leases that ran out"""
    wasted: float = 0.0
    """operations of work that was lost"""
    wasted_up: float = 0.0
    """bytes sent by attempts that did not commit"""
    peak: float = 0.0
    """most bytes a second on their way at one time"""
    events: int = 0


class Simulation:
    """One run of a workload; :meth:`run` carries it out."""

    def __init__(self, workload: Workload, fleet: Fleet, network: Network, market: Market, seed: int) -> None:
        self.workload, self.fleet, self.network, self.market = workload, fleet, network, market
        self.estimator = Estimator(workload, fleet, network, market)
        self._seed = seed
        count, size = len(workload.tasks), len(fleet)
        self._state = [_State.WAITING] * count
        self._tries = [0] * count
        self._claimants = [NOBODY] * count
        """the machine that claimed each segment last"""
        self._missing = [len(sources) for sources in workload.sources]
        self._successors: list[list[int]] = [[] for _ in range(count)]
        for index, sources in enumerate(workload.sources):
            for source in sources:
                self._successors[source].append(index)
        self._left = count
        self.built_on: dict[int, frozenset[int]] = {}
        """of segments with optional inputs, on which others they really built"""
        self._holder = [NOBODY] * len(workload.sizes)
        """the machine that made each group"""
        self._last: dict[int, int] = {}
        """the machine that did a worker's last segment"""
        self._bound: dict[int, int] = {}
        """the machine that alone has a worker's groups"""
        self._cache: list[set[int]] = [set() for _ in range(size)]
        self._jobs: list[_Job | None] = [None] * size
        self._claims = 0
        self._epoch = [0] * size
        """grows whenever what a machine does is interrupted"""
        self._up_since: list[float | None] = [None] * size
        self._present = [False] * size
        """whether each machine would be there if it had not given up a claim"""
        self._away = [0.0] * size
        """until when each is gone because it has"""
        self._lapsed: dict[int, tuple[int, float]] = {}
        """who let a segment expire last, and until when it may not have it again"""
        self._idle = np.zeros(size, bool)
        self._pools: dict[tuple[float, float, float], list[int]] = {}
        """open segments by operations, memory and price, the largest first"""
        self._wanted: list[list[int]] = [[] for _ in range(size)]
        """open segments of the workers whose last segment each machine did"""
        self._lives: list[Iterator[tuple[float, float]]] = []
        self._events: list[tuple[float, _Event, int, int, int]] = []
        self._pushed = 0
        capacities = {_Phase.FETCH: network.store_out, _Phase.STORE: network.store_in}
        self._links = {phase: SharedLink(c) for phase, c in capacities.items() if not math.isinf(c)}
        self._newest = dict.fromkeys(self._links, 0)
        self._capacities, self._rates = capacities, dict.fromkeys(capacities, 0.0)
        self.now = 0.0
        self.reason = ""
        """why it ended, if not all was done"""
        self.committed = [math.nan] * count
        """when each segment was committed"""
        up, down, busy, held, present = ([0.0] * size for _ in range(5))
        self.tally = Tally(up, down, busy, held, present)

    # ------------------------------------------------------------------ the clock

    def run(self, on_progress: Callable[[int], None] = lambda done: None) -> None:
        """Goes on until all segments are committed, or nothing more can be done; ``on_progress`` is told now and then
        how many are."""
        for machine, one in enumerate(self.fleet.machines):
            self._lives.append(one.life(random.Random(f"{self._seed}/machine/{machine}")))
            self._schedule_life(machine)
        self._push(0.0, _Event.OPEN, NOBODY)
        budget = MAX_EVENTS + 100 * len(self.workload.tasks)
        while self._left and not self.reason:
            if not self._events:
                self.reason = "nobody is left who can go on"
                break
            self.now, event, _, about, detail = heapq.heappop(self._events)
            self._handle(event, about, detail)
            self.tally.events += 1
            if not self.tally.events % REPORT:
                on_progress(len(self.workload.tasks) - self._left)
            if self.tally.events > budget:
                self.reason = f"gave up after {budget} events"
            elif self.now > self.market.deadline and not self._claims:
                self.reason = "the deadline is over"
        for machine, job in enumerate(self._jobs):
            if job is not None:
                self._lose(machine, job)
        for machine, since in enumerate(self._up_since):
            if since is not None:
                self.tally.present[machine] += self.now - since
        on_progress(len(self.workload.tasks) - self._left)

    def _push(self, time: float, event: _Event, about: int, detail: int = 0) -> None:
        if time < math.inf:
            self._pushed += 1
            heapq.heappush(self._events, (time, event, self._pushed, about, detail))

    def _handle(self, event: _Event, about: int, detail: int) -> None:
        match event:
            case _Event.PHASE if detail == self._epoch[about]:
                job = self._jobs[about]
                assert job is not None
                if self._finish_phase(about, job):
                    self._begin_phase(about, job)
            case _Event.MOVED if detail == self._newest[_Phase(about)]:
                self._moved(_Phase(about))
            case _Event.UP:
                self._present[about] = True
                self._come(about)
            case _Event.DOWN:
                self._present[about] = False
                self._go(about)
                self._schedule_life(about)
            case _Event.BACK:
                self._come(about)
            case _Event.EXPIRE:
                self._expire(about, detail)
            case _Event.OPEN if about == NOBODY:
                self._open(index for index in range(len(self._state)) if self._is_ready(index))
            case _Event.OPEN:
                self._open([about])
            case _Event.LOOK if self._idle[about]:
                self._rest(about)

    # ------------------------------------------------------------------ machines come and go

    def _schedule_life(self, machine: int) -> None:
        for start, end in self._lives[machine]:
            self._push(start, _Event.UP, machine)
            self._push(end, _Event.DOWN, machine)
            break

    def _come(self, machine: int) -> None:
        if not self._present[machine] or self.now < self._away[machine]:
            return
        self._up_since[machine] = self.now
        job = self._jobs[machine]
        if job is not None:
            self._begin_phase(machine, job)
        else:
            self._rest(machine)

    def _go(self, machine: int) -> None:
        since = self._up_since[machine]
        if since is None:
            return  # it is away already
        self.tally.present[machine] += self.now - since
        self._idle[machine] = False
        job = self._jobs[machine]
        if job is not None:
            self._interrupt(machine, job)
        self._up_since[machine] = None

    def _rest(self, machine: int) -> None:
        """A machine that is up has nothing to do: it looks for something."""
        self._idle[machine] = True
        for heap in (self._wanted[machine], *self._pools_for(machine)):
            while heap and self._state[heap[0]] is not _State.OPEN:
                heapq.heappop(heap)
            for index in heap[:LOOKED_AT]:
                if self._state[index] is _State.OPEN and self._may(machine, index):
                    self._claim(machine, index)
                    return

    def _pools_for(self, machine: int) -> Iterator[list[int]]:
        for kind in list(self._pools):
            heap = self._pools[kind]
            while heap and self._state[heap[0]] is not _State.OPEN:
                heapq.heappop(heap)
            if not heap:
                del self._pools[kind]
            elif self.estimator.could(machine, -kind[0], kind[1]):
                yield heap

    # ------------------------------------------------------------------ who does what

    def _may(self, machine: int, index: int) -> bool:
        worker = self.workload.tasks[index].worker
        if self.now > self.market.deadline:
            return False
        if worker is not None and self._bound.get(worker, machine) != machine:
            return False
        lapsed, until = self._lapsed.get(index, (NOBODY, 0.0))
        if lapsed == machine and self.now < until:
            return False
        return self.estimator.fits(machine, index, self._lacking(machine, index))

    def _lacking(self, machine: int, index: int) -> tuple[int, ...]:
        """The groups that a machine would have to fetch for a segment."""
        cache = self._cache[machine]
        return tuple(g for g in self._groups(index) if g not in cache)

    def _groups(self, index: int) -> Collection[int]:
        """The groups with which a segment begins if it is claimed now."""
        task = self.workload.tasks[index]
        if not task.fallbacks:
            return task.inputs
        there = (
            g if self._is_there(g) else other for g, other in zip(task.inputs, task.fallbacks, strict=True)
        )
        return dict.fromkeys(there)

    def _is_there(self, group: int) -> bool:
        maker = self.workload.makers[group]
        return maker < 0 or self._state[maker] is _State.COMMITTED

    def _is_ready(self, index: int) -> bool:
        """Whether what a segment builds on is there."""
        task = self.workload.tasks[index]
        if not task.fallbacks:
            return not self._missing[index]
        present = 0
        for group, other in zip(task.inputs, task.fallbacks, strict=True):
            if self._is_there(group):
                present += group != other
            elif not self._is_there(other):
                return False
        return present >= task.quorum

    def _open(self, segments: Iterable[int]) -> None:
        """Opens segments: for the machines of their workers, then the largest first for idle ones."""
        tasks = self.workload.tasks
        others = []
        for index in segments:
            self._state[index] = _State.OPEN
            worker = tasks[index].worker
            machine = NOBODY if worker is None else self._last.get(worker, NOBODY)
            if machine != NOBODY and self._idle[machine] and self._may(machine, index):
                self._claim(machine, index)
                continue
            if machine != NOBODY:
                heapq.heappush(self._wanted[machine], index)
            if worker not in self._bound:
                others.append(index)
        for index in sorted(others, key=lambda i: (-tasks[i].operations, i)):
            machine = self._choose(index)
            if machine != NOBODY:
                self._claim(machine, index)
            else:
                self._put_into_pool(index)

    def _choose(self, index: int) -> int:
        """The idle machine that would be done with a segment first."""
        able = self._idle & self.estimator.willing(index)
        best, soonest = NOBODY, math.inf
        if able.any():
            seconds = np.where(able, self.estimator.seconds(index), math.inf)
            machine = int(seconds.argmin())
            if self._may(machine, index):
                best, soonest = machine, float(seconds[machine])
        # the estimates leave out what machines have already; those that have most of it made it
        for machine in self._makers(self.workload.tasks[index]):
            if self._idle[machine]:
                took = self.estimator.exactly(machine, index, self._lacking(machine, index))
                if took < soonest and self._may(machine, index):
                    best, soonest = machine, took
        return best

    def _makers(self, task: Task) -> list[int]:
        """The machines that made most of what a segment needs."""
        held: dict[int, float] = {}
        for group in task.inputs:
            holder = self._holder[group]
            if holder != NOBODY:
                held[holder] = held.get(holder, 0.0) + self.workload.sizes[group]
        return heapq.nsmallest(MAKERS, held, key=lambda machine: (-held[machine], machine))

    def _put_into_pool(self, index: int) -> None:
        task = self.workload.tasks[index]
        kind = (-task.operations, task.memory, task.price)
        if kind not in self._pools:
            self._pools[kind] = []
            self._pools = dict(sorted(self._pools.items()))
        heapq.heappush(self._pools[kind], index)

    def _claim(self, machine: int, index: int) -> None:
        task, about = self.workload.tasks[index], self.fleet.machines[machine]
        factor, stop = about.fate(self._seed, index, self._tries[index])
        if task.fallbacks:
            makers = (self.workload.makers[group] for group in self._groups(index))
            self.built_on[index] = frozenset(maker for maker in makers if maker >= 0)
        job = _Job(
            segment=index,
            number=self._tries[index],
            claimed=self.now,
            groups=self._lacking(machine, index),
            seconds=task.operations / about.speed * factor
            + task.checkpoints * self.workload.bytes(task.outputs) / about.writes,
            stop=stop,
        )
        self._tries[index] += 1
        self._claimants[index] = machine
        self._state[index] = _State.CLAIMED
        self._idle[machine] = False
        self._jobs[machine] = job
        self._claims += 1
        self._push(self.now + self.network.chain + self.estimator.lease, _Event.EXPIRE, index, job.number)
        self._begin_phase(machine, job)

    # ------------------------------------------------------------------ the phases of a claim

    def _begin_phase(self, machine: int, job: _Job) -> None:
        """Begins the phase that a claim is in, and those after it for as long as they take no time."""
        estimator = self.estimator
        while True:
            job.since, job.size = self.now, 0.0
            match job.phase:
                case _Phase.CLAIM | _Phase.COMMIT:
                    job.lasts = self.network.chain
                case _Phase.FETCH:
                    job.size = self.workload.bytes(job.groups)
                    job.lasts = (
                        job.size / estimator.down[machine] + bool(job.groups) * estimator.latency[machine]
                    )
                case _Phase.COMPUTE:
                    job.lasts = (min(job.stop, 1.0) - job.done) * job.seconds
                case _Phase.STORE:
                    job.size = estimator.bytes_out[job.segment]
                    has_any = bool(estimator.stored[job.segment])
                    job.lasts = job.size / estimator.up[machine] + has_any * estimator.latency[machine]
            may_end = job.phase is _Phase.COMMIT or job.stop < 1
            # what ends a claim waits for its turn, so that no claim begins within another
            if job.lasts > 0 or may_end or (job.size and job.phase in self._links):
                break
            self._finish_phase(machine, job)
        self._rate_changes(job, 1)
        if job.size and job.phase in self._links:
            self._links[job.phase].add(self.now, (machine, self._epoch[machine]), job.size)
            self._schedule_link(job.phase)
        else:
            self._push(self.now + job.lasts, _Event.PHASE, machine, self._epoch[machine])

    def _finish_phase(self, machine: int, job: _Job) -> bool:
        """A phase is over; whether there is another."""
        tally = self.tally
        if job.lasts > 0:
            self._rate_changes(job, -1)
        match job.phase:
            case _Phase.FETCH:
                tally.down[machine] += job.size
                self._cache[machine].update(job.groups)
                job.fetched = self.now
            case _Phase.COMPUTE:
                tally.busy[machine] += job.lasts
                job.done = min(job.stop, 1.0)
                if job.stop < 1:
                    self._give_up(machine, job)
                    return False
                job.computed = self.now
            case _Phase.STORE:
                tally.up[machine] += job.size
                job.sent += job.size
            case _Phase.COMMIT:
                self._commit(machine, job)
                return False
        job.phase = _Phase(job.phase + 1)
        return True

    def _schedule_link(self, phase: _Phase) -> None:
        due = self._links[phase].next()
        self._newest[phase] += 1
        if due is not None:
            self._push(max(due, self.now), _Event.MOVED, phase, self._newest[phase])

    def _moved(self, phase: _Phase) -> None:
        """A transfer has had its share of the store's link; it takes at least as long as the machine's own needs."""
        machine, epoch = self._links[phase].pop(self.now)
        job = self._jobs[machine]
        assert job is not None
        self._push(max(self.now, job.since + job.lasts), _Event.PHASE, machine, epoch)
        self._schedule_link(phase)

    def _rate_changes(self, job: _Job, sign: int) -> None:
        if job.size and job.lasts > 0:
            self._rates[job.phase] += sign * job.size / job.lasts
            rates = (min(rate, self._capacities[phase]) for phase, rate in self._rates.items())
            self.tally.peak = max(self.tally.peak, sum(rates))

    def _commit(self, machine: int, job: _Job) -> None:
        index, task = job.segment, self.workload.tasks[job.segment]
        self._state[index] = _State.COMMITTED
        self.committed[index] = self.now
        self._left -= 1
        for group in task.outputs:
            self._holder[group] = machine
        self._cache[machine].update(task.outputs)
        if task.worker is not None:
            self._last[task.worker] = machine
            if not self.estimator.kept.isdisjoint(task.outputs):
                self._bound[task.worker] = machine
        self._let_go(machine, job, committed=True)
        self._idle[machine] = True
        ready = []
        for successor in self._successors[index]:
            self._missing[successor] -= 1
            # one whose lease ran out is opened again in its own time
            if (
                not self._tries[successor]
                and self._state[successor] is _State.WAITING
                and self._is_ready(successor)
            ):
                ready.append(successor)
        self._open(ready)
        if self._idle[machine]:
            self._rest(machine)

    # ------------------------------------------------------------------ what goes wrong

    def _interrupt(self, machine: int, job: _Job) -> None:
        """Stops what a machine does. What it has computed since its last checkpoint is lost."""
        if self._up_since[machine] is None:
            return  # it is stopped already
        self._epoch[machine] += 1
        spent = self.now - job.since
        self._rate_changes(job, -1)
        if job.size:
            moved = job.size * min(1.0, spent / job.lasts if job.lasts else 1.0)
            if job.phase is _Phase.STORE:
                self.tally.up[machine] += moved
                self.tally.wasted_up += moved
            else:
                self.tally.down[machine] += moved
            if job.phase in self._links:
                self._links[job.phase].cancel(self.now, (machine, self._epoch[machine] - 1))
                self._schedule_link(job.phase)
        if job.phase is _Phase.COMPUTE:
            self.tally.busy[machine] += spent
            reached = job.done + (spent / job.seconds if job.seconds else 0.0)
            kept = max(job.done, math.floor(reached * self.market.checkpoints) / self.market.checkpoints)
            self.tally.wasted += max(0.0, reached - kept) * self.workload.tasks[job.segment].operations
            job.done = min(kept, reached)

    def _give_up(self, machine: int, job: _Job) -> None:
        away = self.fleet.machines[machine].away
        self._lose(machine, job, rests=not away)
        if away:
            self._away[machine] = self.now + away
            self._go(machine)
            self._push(self._away[machine], _Event.BACK, machine)

    def _lose(self, machine: int, job: _Job, *, rests: bool = True) -> None:
        """A claim ends without a commitment."""
        is_running = job.phase is not _Phase.COMPUTE or job.done < min(job.stop, 1.0)
        if is_running:
            self._interrupt(machine, job)
        self.tally.wasted += job.done * self.workload.tasks[job.segment].operations
        self.tally.wasted_up += job.sent
        self._let_go(machine, job, committed=False)
        if rests and self._up_since[machine] is not None and not self.reason:
            self._rest(machine)

    def _let_go(self, machine: int, job: _Job, *, committed: bool) -> None:
        self._jobs[machine] = None
        self._claims -= 1
        self.tally.held[machine] += self.now - job.claimed
        self.tally.attempts.append(
            Attempt(job.segment, machine, job.claimed, job.fetched, job.computed, self.now, committed)
        )

    def _expire(self, index: int, number: int) -> None:
        """A lease runs out: whoever still works on the segment stops, and somebody opens it again."""
        if self._state[index] is not _State.CLAIMED or self._tries[index] != number + 1:
            return
        self.tally.expired += 1
        self._state[index] = _State.WAITING
        if self._tries[index] >= MAX_ATTEMPTS:
            self.reason = f"segment {index} failed {MAX_ATTEMPTS} times"
        machine = self._claimants[index]
        job = self._jobs[machine]
        holds = job is not None and job.segment == index
        is_here = holds and self._up_since[machine] is not None
        opens = self.now + self.network.chain + (0.0 if is_here else self.market.patience)
        self._push(opens, _Event.OPEN, index)
        self._lapsed[index] = machine, opens + self.estimator.lease
        self._push(opens + self.estimator.lease, _Event.LOOK, machine)
        if job is not None and holds:
            self._lose(machine, job)
