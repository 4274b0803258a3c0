"""A store in memory, for tests and for trying things out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crowdtrain import cid as cids
from crowdtrain._errors import NotFound, StoreUnavailable
from crowdtrain.stores._blobs import BlobStore

__all__ = ["FakeStore"]


class FakeStore(BlobStore):
    """Blobs in a dictionary. Tests may alter ``blobs`` and ``nodes`` to lie, or clear ``available``."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.nodes: dict[str, bytes] = {}
        self.available = True

    def put(self, blob: bytes | Path) -> str:
        """See :class:`Store`."""
        self._answer()
        data = blob.read_bytes() if isinstance(blob, Path) else bytes(blob)
        builder = cids.Builder(self.nodes.__setitem__)
        builder.write(data)
        cid = builder.finish()
        self.blobs[cid] = data
        return cid

    def has(self, cid: str) -> bool:
        """See :class:`Store`."""
        self._answer()
        return cid in self.blobs

    def node(self, cid: str) -> bytes:
        """See :class:`BlobStore`."""
        self._answer()
        if cid not in self.nodes:
            raise NotFound(f"{cid} is not in the store")
        return self.nodes[cid]

    def stream(self, cid: str, start: int, length: int) -> Iterator[bytes]:
        """See :class:`BlobStore`."""
        self._answer()
        if cid not in self.blobs:
            raise NotFound(f"{cid} is not in the store")
        yield self.blobs[cid][start : start + length]

    def _answer(self) -> None:
        if not self.available:
            raise StoreUnavailable("the store was switched off")
