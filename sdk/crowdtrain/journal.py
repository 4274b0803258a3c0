"""A journal of signed transactions, written before they are sent.

What was signed is never signed again: after a crash the same bytes are sent once more, and a transaction
that has to be made dearer keeps its nonce, so at most one of the two can ever be carried out.
"""

from __future__ import annotations

import enum
import fcntl
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from crowdtrain._errors import ConfigError

__all__ = ["Entry", "Fate", "Journal"]


KEPT = 1000
"""settled transactions that are remembered, in case that a reorganisation undoes them"""


class Fate(enum.StrEnum):
    """What became of a transaction."""

    PENDING = "pending"
    MINED = "mined"
    FAILED = "failed"
    """in a block, and reverted"""
    DROPPED = "dropped"
    """another transaction has its nonce"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A signed transaction. Fees are in wei for each gas."""

    nonce: int
    hash: str
    raw: bytes
    label: str
    to: str
    data: bytes
    gas: int
    max_fee: int
    tip: int
    fate: Fate = Fate.PENDING


_METADATA = MetaData()
_TRANSACTIONS = Table(
    "transactions",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("scope", String, nullable=False, index=True),
    Column("nonce", Integer, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("raw", LargeBinary, nullable=False),
    Column("label", String, nullable=False),
    Column("to", String, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("gas", Integer, nullable=False),
    Column("max_fee", String, nullable=False),
    Column("tip", String, nullable=False),
    Column("fate", String, nullable=False, index=True),
)


class Journal:
    """The transactions of one account on one chain (together ``scope``), in an SQLite file or in memory.

    Raises ConfigError if the file cannot be used, or if another process uses it: two processes that send
    for one account would take each other's nonces.
    """

    def __init__(self, path: Path | None, scope: str) -> None:
        self._scope = scope
        self._path = path
        self._lock = self._exclusive(path) if path else None
        self._engine = _open(path)
        weakref.finalize(self, _release, self._engine, self._lock)
        try:
            _METADATA.create_all(self._engine)
        except SQLAlchemyError as error:
            raise ConfigError(f"journal {path} cannot be used: {error}") from error

    def _exclusive(self, path: Path) -> IO[str]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_name(path.name + ".lock").open("w")
        except OSError as error:
            raise ConfigError(f"journal {path} cannot be used: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ConfigError(f"another process uses the journal {path}; give each its own folder") from error
        return lock

    def add(self, entry: Entry) -> None:
        """Writes a transaction down; it is on disk when this returns."""
        row = {name: getattr(entry, name) for name in Entry.__slots__}
        # SQLite's integers end at 2^63, fees need not
        row |= {"scope": self._scope, "max_fee": str(entry.max_fee), "tip": str(entry.tip)}
        with self._engine.begin() as connection:
            connection.execute(insert(_TRANSACTIONS).values(row))

    def mark(self, entry: Entry, fate: Fate) -> None:
        """Notes what became of a transaction; other transactions with its nonce are dropped with that.

        What was settled long before is forgotten.
        """
        mine = (_TRANSACTIONS.c.scope == self._scope) & (_TRANSACTIONS.c.nonce == entry.nonce)
        is_it = _TRANSACTIONS.c.hash == entry.hash
        with self._engine.begin() as connection:
            connection.execute(update(_TRANSACTIONS).where(mine & ~is_it).values(fate=Fate.DROPPED))
            connection.execute(update(_TRANSACTIONS).where(mine & is_it).values(fate=fate))
            settled = (_TRANSACTIONS.c.scope == self._scope) & (_TRANSACTIONS.c.fate != Fate.PENDING)
            connection.execute(
                delete(_TRANSACTIONS).where(settled & (_TRANSACTIONS.c.nonce < entry.nonce - KEPT))
            )

    def unsettled(self, next_nonce: int) -> Sequence[Entry]:
        """What may still have to be sent, by nonce, the dearest last: what is pending, and what is said to
        be in a block although the account's next nonce says otherwise (the block was replaced by
        another)."""
        columns = _TRANSACTIONS.c
        pending = columns.fate == Fate.PENDING
        undone = columns.fate.in_([Fate.MINED, Fate.FAILED]) & (columns.nonce >= next_nonce)
        query = select(_TRANSACTIONS).where((columns.scope == self._scope) & (pending | undone))
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(columns.nonce, columns.id)).all()
        return [_entry(row) for row in rows]

    def all(self) -> Sequence[Entry]:
        """Every transaction, oldest first."""
        query = select(_TRANSACTIONS).where(_TRANSACTIONS.c.scope == self._scope).order_by(_TRANSACTIONS.c.id)
        with self._engine.begin() as connection:
            return [_entry(row) for row in connection.execute(query).all()]

    def close(self) -> None:
        """Lets go of the file."""
        _release(self._engine, self._lock)


def _open(path: Path | None) -> Engine:
    if path is None:
        memory = {"check_same_thread": False}
        return create_engine("sqlite://", connect_args=memory, poolclass=StaticPool)
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous = FULL")

    return engine


def _release(engine: Engine, lock: IO[str] | None) -> None:
    engine.dispose()
    if lock is not None:
        lock.close()


def _entry(row: Any) -> Entry:
    return Entry(
        nonce=row.nonce,
        hash=row.hash,
        raw=row.raw,
        label=row.label,
        to=row.to,
        data=row.data,
        gas=row.gas,
        max_fee=int(row.max_fee),
        tip=int(row.tip),
        fate=Fate(row.fate),
    )
