"""Blobs in a local folder: one file a blob, one for each node of its tree, none of them ever half there."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, NotFound, StoreUnavailable
from crowdtrain._files import atomic_file, publish
from crowdtrain.stores._blobs import BlobStore

__all__ = ["BlobWriter", "LocalStore"]

_STALE = 24 * 3600
"""seconds after which an unfinished upload is taken for that of a process that was killed"""


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"store {folder}: {error}") from error


class LocalStore(BlobStore):
    """A folder of blobs, which several processes may use at once.

    Raises StoreUnavailable where the file system refuses, for example when the disk is full.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._parts = self.folder / "parts"
        with _disk(self.folder):
            self._parts.mkdir(parents=True, exist_ok=True)
            for part in self._parts.iterdir():
                if part.stat().st_mtime < time.time() - _STALE:
                    part.unlink(missing_ok=True)

    def put(self, blob: bytes | Path) -> str:
        """See :class:`Store`."""
        with self.writer() as writer:
            if isinstance(blob, Path):
                with _disk(self.folder), blob.open("rb") as file:
                    while part := file.read(cids.CHUNK):
                        writer.write(part)
            else:
                writer.write(blob)
            return writer.commit()

    def writer(self) -> BlobWriter:
        """A blob that is written in pieces."""
        return BlobWriter(self)

    def has(self, cid: str) -> bool:
        """See :class:`Store`."""
        with _disk(self.folder):
            return self.path(cid).exists()

    def node(self, cid: str) -> bytes:
        """See :class:`BlobStore`."""
        try:
            with _disk(self.folder), self.path(cid, "nodes").open("rb") as file:
                return file.read(cids.MAX_NODE + 1)
        except StoreUnavailable as error:
            raise _missing(cid, error) from error

    def stream(self, cid: str, start: int, length: int) -> Iterator[bytes]:
        """See :class:`BlobStore`."""
        try:
            with _disk(self.folder), self.path(cid).open("rb") as file:
                file.seek(start)
                while length > 0 and (part := file.read(min(length, cids.CHUNK))):
                    length -= len(part)
                    yield part
        except StoreUnavailable as error:
            raise _missing(cid, error) from error

    def path(self, cid: str, kind: str = "blobs") -> Path:
        """Where the blob (or the node, with ``kind="nodes"``) is kept. Raises Corrupt unless it is a CID."""
        cids.to_bytes(cid)
        return self.folder / kind / cid[-3:-1] / cid


def _missing(cid: str, error: StoreUnavailable) -> StoreUnavailable | NotFound:
    return NotFound(f"{cid} is not in the store") if isinstance(error.__cause__, FileNotFoundError) else error


class BlobWriter:
    """A blob on its way into a :class:`LocalStore`; left without :meth:`commit`, nothing of it stays."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._nodes: dict[str, bytes] = {}
        self._builder = cids.Builder(self._nodes.__setitem__)
        self.size = 0
        with _disk(store.folder):
            number, name = tempfile.mkstemp(dir=store._parts)
        self._file = os.fdopen(number, "wb")
        self._path = Path(name)

    def write(self, data: bytes) -> None:
        """Adds the next bytes."""
        with _disk(self._store.folder):
            self._file.write(data)
        self._builder.write(data)
        self.size += len(data)

    def commit(self, expected: str | None = None) -> str:
        """Makes the blob visible, after the nodes of its tree, and returns its CID.

        Raises Corrupt, and stores nothing, if another CID was expected.
        """
        cid = self._builder.finish()
        if expected is not None and cid != expected:
            raise Corrupt(f"{self.size} bytes came for {expected} that are {cid}")
        with _disk(self._store.folder):
            for name, node in self._nodes.items():
                with atomic_file(self._store.path(name, "nodes")) as file:
                    file.write(node)
            path = self._store.path(cid)
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(self._file, self._path, path)
        return cid

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
