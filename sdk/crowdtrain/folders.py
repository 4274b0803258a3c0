"""The folder of a long-running process.

lock          held while a process works here
log.jsonl     one JSON object a line, kept to 16 MiB and one older file
status.json   what the process does now, for people and dashboards
ledger.jsonl  what its account earned and lost, and why; only ever appended to
"""

from __future__ import annotations

import fcntl
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from crowdtrain._errors import ConfigError
from crowdtrain._files import atomic_file
from crowdtrain.chain import Address, ChainEvent
from crowdtrain.ledger import entries

__all__ = ["Ledger", "Log", "exclusive", "open_log", "read_ledger", "read_status", "write_status"]

Log = structlog.stdlib.BoundLogger
MAX_LOG = 16 * 2**20


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
    """A logger for the length of a block: JSON lines to ``folder/log.jsonl``, readable ones to stderr."""
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


def read_ledger(folder: Path) -> list[dict[str, object]]:
    """The whole lines of a folder's ledger; none if it has no ledger. Changes nothing."""
    path = folder / "ledger.jsonl"
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    lines = (json.loads(text) for text in whole.splitlines())
    return [line for line in lines if isinstance(line, dict)]


class Ledger:
    """What an account earned and lost, one JSON line for each movement, each recorded once.

    Lines have ``block``, ``transaction``, ``index``, ``kind``, ``job``, ``segment`` (null if there is none), ``cause``,
    ``amount`` (token units; negative if lost).
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
        fresh: list[Mapping[str, object]] = [
            {
                "block": entry.block,
                "transaction": entry.transaction,
                "index": entry.index,
                "kind": entry.kind.value,
                "job": entry.job,
                "segment": entry.segment,
                "amount": entry.amount,
                "cause": entry.cause,
            }
            for entry in entries(events)
            if entry.account == self._account
            and (entry.transaction, entry.index, entry.cause) not in self._known
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
        yield from read_ledger(self._path.parent)
