"""What every long-running process shares: its folder, log and status, its threads, and the loop that runs it.

folder/lock          held while a process works here
folder/log.jsonl     one JSON object a line, kept to 16 MiB and one older file
folder/status.json   what the process does now, for people and dashboards
folder/ledger.jsonl  what its account earned and lost, and why; only ever appended to
"""

from __future__ import annotations

import fcntl
import json
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog
from crowdtrain_engine import EngineError
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily

from crowdtrain._errors import ChainError, ConfigError, CrowdtrainError, Refused
from crowdtrain._files import atomic_file
from crowdtrain.chain import Address, ChainEvent, GameId, JobId, SegmentKey
from crowdtrain.ledger import entries

__all__ = [
    "Agent", "Gate", "Ledger", "Log", "Outcome", "SetAside", "Stopped", "Worker", "exclusive", "game_name",
    "job_name", "metrics", "open_log", "read_status", "segment_name", "serve", "write_status",
]  # fmt: skip

Log = structlog.stdlib.BoundLogger
MAX_LOG = 16 * 2**20


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


# ------------------------------------------------------------------ the folder


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder for this process. Raises ConfigError if it cannot be used, or another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"folder {folder} cannot be used: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"folder {folder} is in use by another process; give each its own") from error
        yield


@contextmanager
def open_log(folder: Path, name: str, *, console: bool = True) -> Iterator[Log]:
    """A logger, for the length of a block, that writes JSON lines to ``folder/log.jsonl`` and readable ones to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    file = logging.handlers.RotatingFileHandler(folder / "log.jsonl", maxBytes=MAX_LOG, backupCount=1)
    handlers: list[tuple[logging.Handler, structlog.typing.Processor]] = [
        (file, structlog.processors.JSONRenderer(default=str))
    ]
    if console:
        colours = sys.stderr.isatty()
        handlers.append(
            (logging.StreamHandler(), structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=28))
        )
    logger = logging.Logger(name)
    for handler, renderer in handlers:
        remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove, renderer]))
        logger.addHandler(handler)
    log: Log = structlog.wrap_logger(
        logger,
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        yield log
    finally:
        file.close()


def write_status(folder: Path, status: Mapping[str, object]) -> None:
    """Replaces ``folder/status.json``."""
    with atomic_file(folder / "status.json") as file:
        file.write(json.dumps(status, default=str, indent=1).encode())


def read_status(folder: Path) -> dict[str, object]:
    """What ``write_status`` wrote last. Raises ConfigError if nothing readable is there."""
    try:
        status = json.loads((folder / "status.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / 'status.json'} cannot be read: {error}") from error
    if not isinstance(status, dict):
        raise ConfigError(f"{folder / 'status.json'} is not a JSON object")
    return status


class Ledger:
    """What an account earned and lost, one JSON line for each movement, each recorded once.

    Lines have ``block``, ``transaction``, ``index``, ``cause``, ``amount`` (token units; negative if lost).
    """

    def __init__(self, folder: Path, account: Address) -> None:
        self._path = folder / "ledger.jsonl"
        self._account = account
        self._known: set[tuple[str, int, str]] = set()
        self.earned = self.lost = 0
        self.last_block: int | None = None
        for line in self._lines():
            self._add(line)

    def record(self, events: Sequence[ChainEvent]) -> list[Mapping[str, object]]:
        """Appends the movements of these events that are not in the ledger yet, and returns them."""
        fresh: list[Mapping[str, object]] = []
        for event in events:
            fresh += [
                {
                    "block": event.block,
                    "transaction": event.transaction,
                    "index": event.index,
                    "amount": entry.amount,
                    "cause": entry.cause,
                }
                for entry in entries([event])
                if entry.account == self._account
                and (event.transaction, event.index, entry.cause) not in self._known
            ]
        if fresh:
            with self._path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in fresh))
                file.flush()
                os.fsync(file.fileno())
        for line in fresh:
            self._add(line)
        return fresh

    def _add(self, line: Mapping[str, object]) -> None:
        amount, block, index = (int(str(line[name])) for name in ("amount", "block", "index"))
        self._known.add((str(line["transaction"]), index, str(line["cause"])))
        self.earned += max(amount, 0)
        self.lost += max(-amount, 0)
        self.last_block = max(self.last_block or 0, block)

    def _lines(self) -> Iterator[Mapping[str, object]]:
        if not self._path.exists():
            return
        whole = self._path.read_bytes().rpartition(b"\n")
        if whole[2]:  # a line that a kill cut off; its event is found again
            os.truncate(self._path, len(whole[0]) + len(whole[1]))
        for text in whole[0].splitlines():
            line = json.loads(text)
            if isinstance(line, dict):
                yield line


# ------------------------------------------------------------------ threads


class Stopped(Exception):  # noqa: N818  (not an error: the process is ending)
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: with a result, or with the exception that it raised."""

    key: Hashable
    result: object = None
    error: BaseException | None = None


class Worker:
    """A thread that does one long task at a time, so that the loop never waits for it."""

    def __init__(self, name: str, wake: threading.Event) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._wake = wake
        self._task: tuple[Hashable, Future[object]] | None = None

    @property
    def busy(self) -> Hashable | None:
        """Key of the task that was started and not yet collected."""
        return self._task[0] if self._task else None

    def start(self, key: Hashable, task: Callable[[], object]) -> None:
        """Starts ``task``; the worker must not be busy."""
        if self._task:
            raise RuntimeError(f"task {key} was started before {self.busy} was collected")
        future = self._pool.submit(task)
        self._task = key, future
        future.add_done_callback(lambda _: self._wake.set())

    def collect(self) -> Outcome | None:
        """How the task ended, once, if it has."""
        if self._task is None or not self._task[1].done():
            return None
        key, future = self._task
        self._task = None
        error = future.exception()
        return Outcome(key, error=error) if error else Outcome(key, future.result())

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
        self._entries[key] = reason, self._clock() + pause, pause
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


class Agent:
    """What a process works with. ``turn`` of its owner is called by :func:`serve`."""

    def __init__(self, folder: Path, account: Address, log: Log) -> None:
        self.folder = folder
        self.log = log
        self.wake = threading.Event()
        self.gate = Gate()
        self.work = Worker("work", self.wake)
        self.moves = Worker("moves", self.wake)
        self.resting = SetAside()
        self.ledger = Ledger(folder, account)
        self.status: dict[str, object] = {}

    def attempt(self, about: str, what: str, call: Callable[[], object], **fields: object) -> bool:
        """Makes a call to the chain; whether it went through. A refusal sets ``about`` aside.

        Raises ChainUnavailable and BadAnswer, after which the loop waits.
        """
        try:
            call()
        except Refused as error:
            pause = self.resting.put(about, str(error))
            self.log.warning(f"{what}: refused", about=about, reason=str(error), again_in=pause, **fields)
            return False
        self.resting.clear(about)
        self.log.info(what, about=about, **fields)
        return True

    def set_aside(self, about: str, what: str, error: BaseException, seconds: float | None = None) -> None:
        """Logs a failure, with a traceback if its kind is unknown, and leaves ``about`` alone for a while."""
        pause = self.resting.put(about, str(error) or repr(error), seconds)
        unknown = None if isinstance(error, (CrowdtrainError, EngineError, OSError, MemoryError)) else error
        self.log.warning(
            f"{what}: set aside", about=about, reason=str(error), again_in=pause, exc_info=unknown
        )

    def record(self, events: Sequence[ChainEvent]) -> None:
        """Enters what these events moved into the ledger."""
        for line in self.ledger.record(events):
            self.log.info("money moved", amount=line["amount"], cause=line["cause"])

    def show(self, **status: object) -> None:
        """Replaces the status file, if anything in it has changed."""
        status |= {"earned": self.ledger.earned, "lost": self.ledger.lost, "set_aside": self.resting.reasons}
        if status != self.status:
            self.status = status
            write_status(self.folder, {**status, "time": int(time.time())})

    def close(self) -> None:
        """Ends the threads; tasks end at their next look at the gate."""
        self.gate.stop()
        self.work.close()
        self.moves.close()


class StatusCollector:
    """Every number in the status as a Prometheus gauge."""

    def __init__(self, agent: Agent) -> None:
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
def metrics(agent: Agent, port: int | None) -> Iterator[None]:
    """Serves the status to Prometheus on ``port`` of this machine, if there is one. Raises ConfigError."""
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(StatusCollector(agent))
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        raise ConfigError(f"metrics port {port} cannot be used: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve(agent: Agent, turn: Callable[[], bool], *, poll: float, most: float) -> None:
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

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
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
