"""What every long-running process shares: what it sets aside, its threads, and the loop that runs it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

from crowdtrain_engine import EngineError, ProgramError
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from crowdtrain._errors import ChainError, ConfigError, CrowdtrainError, PlanError, Refused
from crowdtrain.chain import Address, Chain, ChainEvent, GameId, JobId, SegmentKey
from crowdtrain.folders import Ledger, Log, read_status, write_status
from crowdtrain.runs import Cancelled, Unaffordable
from crowdtrain.stores import Metered

__all__ = [
    "HOPELESS", "Agent", "Gate", "Outcome", "SetAside", "Stopped", "Task", "Worker", "game_name", "job_name",
    "metrics", "segment_name", "serve",
]  # fmt: skip

HOPELESS = 3600.0
"""seconds for which what cannot become better is left alone"""


# ------------------------------------------------------------------ what things are called in logs


def job_name(job: JobId) -> str:
    """How logs and statuses call a job."""
    return f"job {job}"


def segment_name(key: SegmentKey) -> str:
    """How logs and statuses call a segment."""
    return f"segment {key.index} of job {key.job}"


def game_name(game: GameId) -> str:
    """How logs and statuses call a dispute."""
    return f"dispute {game}"


# ------------------------------------------------------------------ threads


class Stopped(Exception):
    """The process is ending; raised by :meth:`Gate.wait` inside a task."""


class Gate:
    """Lets the tasks of other threads pass, holds them, or ends them."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._stopped = False

    def wait(self) -> None:
        """Passes when the gate is open. Raises Stopped when the process ends."""
        self._open.wait()
        self.check()

    def check(self) -> None:
        """Passes whether the gate is open or not. Raises Stopped when the process ends."""
        if self._stopped:
            raise Stopped

    def hold(self, held: bool) -> None:
        """Closes or opens the gate."""
        if held and not self._stopped:
            self._open.clear()
        else:
            self._open.set()

    def stop(self) -> None:
        """Ends every task that comes to the gate, or waits at it."""
        self._stopped = True
        self._open.set()


class Task(Protocol):
    """What a worker does: its name, and what it is about, for logs; and how many seconds it is left alone after
    a failure, None for longer and longer."""

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def pause(self) -> float | None: ...


T = TypeVar("T", bound=Task)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a task ended: with a result, or with the exception that it raised."""

    task: T
    result: object = None
    error: BaseException | None = None


class Worker(Generic[T]):
    """A thread that does one long task at a time, so that the loop never waits for it."""

    def __init__(self, name: str, wake: threading.Event) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._wake = wake
        self._started: tuple[T, Future[object]] | None = None

    @property
    def busy(self) -> T | None:
        """The task that was started and not yet collected."""
        return self._started[0] if self._started else None

    @property
    def done(self) -> bool:
        """Whether the task has ended and waits to be collected."""
        return self._started is not None and self._started[1].done()

    def start(self, task: T, work: Callable[[], object]) -> None:
        """Starts ``work``; the worker must not be busy."""
        if self._started:
            raise RuntimeError(f"{task} was started before {self.busy} was collected")
        future = self._pool.submit(work)
        self._started = task, future
        future.add_done_callback(lambda _: self._wake.set())

    def collect(self) -> Outcome[T] | None:
        """How the task ended, once, if it has."""
        if self._started is None or not self.done:
            return None
        task, future = self._started
        self._started = None
        error = future.exception()
        return Outcome(task, error=error) if error else Outcome(task, future.result())

    def close(self) -> None:
        """Waits for the task; it must be one that ends soon (see :class:`Gate`)."""
        self._pool.shutdown(cancel_futures=True)


class SetAside:
    """Things that failed and are left alone for a while: twice as long every time, up to ten minutes."""

    FIRST, MOST = 2.0, 600.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[str, tuple[str, float, float]] = {}

    def put(self, key: str, reason: str, seconds: float | None = None) -> float:
        """Leaves ``key`` alone for ``seconds``, or for twice as long as last time; returns for how long."""
        _, _, last = self._entries.get(key, ("", 0.0, self.FIRST / 2))
        pause = min(2 * last, self.MOST) if seconds is None else seconds
        now = self._clock()
        self._entries[key] = reason, now + pause, pause
        self._entries = {key: entry for key, entry in self._entries.items() if entry[1] > now - HOPELESS}
        return pause

    def clear(self, key: str) -> None:
        """Forgets that ``key`` ever failed."""
        self._entries.pop(key, None)

    @property
    def keys(self) -> frozenset[str]:
        """What is to be left alone now."""
        now = self._clock()
        return frozenset(key for key, (_, until, _) in self._entries.items() if until > now)

    @property
    def reasons(self) -> dict[str, str]:
        """Why, by key, for people."""
        return {key: self._entries[key][0] for key in sorted(self.keys)}


# ------------------------------------------------------------------ the loop


class Agent(Generic[T]):
    """What a process works with; its tasks are of type ``T``.

    ``work`` is for what takes long, and pauses at the ``gate`` while ``moves`` computes a move of a dispute.
    """

    def __init__(self, folder: Path, account: Address, log: Log) -> None:
        self.folder = folder
        self.account = account
        self.log = log
        self.wake = threading.Event()
        self.gate = Gate()
        self.work: Worker[T] = Worker("work", self.wake)
        self.moves: Worker[T] = Worker("moves", self.wake)
        self.resting = SetAside()
        self.ledger = Ledger(folder, account)
        self.status: dict[str, object] = {}
        self.traffic: Metered | None = None
        """what the process moves to and from its store, if that is counted"""
        self.first_block = _last_seen(folder, self.ledger)
        """block up to which events were recorded before; None for a new folder"""

    def attempt(
        self,
        about: str,
        what: str,
        call: Callable[[], object],
        *,
        pause: float | None = None,
        **fields: object,
    ) -> bool:
        """Makes a call to the chain; whether it went through. A refusal sets ``about`` aside, for ``pause`` seconds.

        Raises ChainUnavailable and BadAnswer, after which the loop waits.
        """
        try:
            call()
        except Refused as error:
            pause = self.resting.put(about, str(error), pause)
            self.log.warning(f"{what}: refused", about=about, reason=str(error), again_in=pause, **fields)
            return False
        self.resting.clear(about)
        self.log.info(what, about=about, **fields)
        return True

    def attempt_with(
        self, deposit: int, chain: Chain, about: str, what: str, call: Callable[[], object], **fields: Any
    ) -> None:
        """The same after depositing what is missing of the stake that the call needs, if that goes through."""
        paid = partial(chain.deposit, deposit)
        if not deposit or self.attempt(about, "stake deposited", paid, amount=deposit):
            self.attempt(about, what, call, **fields)

    def set_aside(self, about: str, what: str, error: BaseException, seconds: float | None = None) -> None:
        """Logs a failure, with a traceback if its kind is unknown, and leaves ``about`` alone for a while."""
        pause = self.resting.put(about, str(error) or repr(error), seconds)
        unknown = None if isinstance(error, (CrowdtrainError, EngineError, OSError, MemoryError)) else error
        self.log.warning(
            f"{what}: set aside", about=about, reason=str(error), again_in=pause, exc_info=unknown
        )

    def collect(self, take: Callable[[T, object], None]) -> bool:
        """Hands over what the workers have done, sets aside what they failed in; whether there was anything.

        What cannot become better is left alone for an hour.
        """
        outcomes = [outcome for worker in (self.moves, self.work) if (outcome := worker.collect())]
        for outcome in outcomes:
            task, error = outcome.task, outcome.error
            if error is None:
                take(task, outcome.result)
            elif not isinstance(error, (Cancelled, Stopped)):
                hopeless = isinstance(error, (Unaffordable, ProgramError, PlanError))
                self.set_aside(task.about, task.name, error, task.pause or (HOPELESS if hopeless else None))
        self.gate.hold(self.moves.busy is not None)
        return bool(outcomes)

    def record(self, events: Sequence[ChainEvent]) -> None:
        """Enters what these events moved into the ledger."""
        for line in self.ledger.record(events):
            self.log.info("money moved", amount=line["amount"], cause=line["cause"])

    def show(self, **status: object) -> None:
        """Replaces the status file, if anything in it has changed."""
        status |= {"earned": self.ledger.earned, "lost": self.ledger.lost, "set_aside": self.resting.reasons}
        if self.traffic is not None:
            status["bytes"] = {"stored": self.traffic.sent, "fetched": self.traffic.received}
        if status != self.status:
            self.status = status
            write_status(self.folder, {**status, "time": int(time.time())})

    def close(self) -> None:
        """Ends the threads; tasks end at their next look at the gate."""
        self.gate.stop()
        self.work.close()
        self.moves.close()


def _last_seen(folder: Path, ledger: Ledger) -> int | None:
    """A status is written after the events before it were recorded, so what it has seen needs not be read again."""
    try:
        block = read_status(folder).get("block")
    except ConfigError:
        block = None
    return block if isinstance(block, int) else ledger.last_block


class StatusCollector(Collector):
    """Every number in the status as a Prometheus gauge."""

    def __init__(self, agent: Agent[Any]) -> None:
        self._agent = agent

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What the registry asks for."""
        for name, value in _numbers("crowdtrain", self._agent.status):
            yield GaugeMetricFamily(name, "see status.json", value)


def _numbers(prefix: str, status: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in status.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{prefix}_{name}", value)
        elif isinstance(value, (int, float)):
            yield f"{prefix}_{name}", float(value)


@contextmanager
def metrics(agent: Agent[Any], port: int | None) -> Iterator[int | None]:
    """Serves the status to Prometheus on ``port`` of this machine, or any free one if it is 0, for the length of
    a block, which gets the port; on none if it is None. Raises ConfigError."""
    if port is None:
        yield None
        return
    registry = CollectorRegistry()
    registry.register(StatusCollector(agent))
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        raise ConfigError(f"metrics port {port} cannot be used: {error}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve(agent: Agent[Any], turn: Callable[[], bool], *, poll: float, most: float) -> None:
    """Calls ``turn`` until SIGINT or SIGTERM, and then closes the agent; a second signal ends it at once.

    ``turn`` returns whether to look again after ``poll`` seconds; otherwise the pause grows up to ``most``.
    While the chain does not answer, it grows to eight times that.
    """
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(number, before[number])
        agent.wake.set()

    before = {int(number): signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    pause = poll
    try:
        while not stopped:
            try:
                pause = poll if turn() else min(1.5 * pause, most)
            except ChainError as error:
                pause = min(2 * pause, 8 * most)
                agent.log.warning("chain does not answer", reason=str(error), again_in=pause)
            agent.wake.wait(pause)
            agent.wake.clear()
        agent.log.info("stopping")
    finally:
        agent.close()
        for number, handler in before.items():
            signal.signal(number, handler)
