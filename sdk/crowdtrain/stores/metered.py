"""Counts the bytes that a process moves to and from its store."""

from __future__ import annotations

from pathlib import Path

from crowdtrain.stores._blobs import Store

__all__ = ["Metered"]


class Metered:
    """A store that counts: ``sent`` are bytes of blobs, once each; ``received`` bytes that were read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stored: set[str] = set()
        self.sent = 0
        self.received = 0

    def put(self, blob: bytes | Path) -> str:
        """See :class:`Store`."""
        size = blob.stat().st_size if isinstance(blob, Path) else len(blob)
        cid = self._store.put(blob)
        if cid not in self._stored:
            self._stored.add(cid)
            self.sent += size
        return cid

    def get(self, cid: str, limit: int) -> bytes:
        """See :class:`Store`."""
        blob = self._store.get(cid, limit)
        self.received += len(blob)
        return blob

    def get_range(self, cid: str, start: int, length: int) -> bytes:
        """See :class:`Store`."""
        blob = self._store.get_range(cid, start, length)
        self.received += len(blob)
        return blob

    def fetch(self, cid: str, path: Path, limit: int) -> None:
        """See :class:`Store`."""
        self._store.fetch(cid, path, limit)
        self.received += path.stat().st_size

    def has(self, cid: str) -> bool:
        """See :class:`Store`."""
        return self._store.has(cid)
