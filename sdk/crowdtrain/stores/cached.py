"""What a process has stored or fetched stays with it for a while, so that it fetches nothing twice."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from crowdtrain import cid as cids
from crowdtrain._errors import StoreUnavailable
from crowdtrain._files import atomic_file
from crowdtrain.stores._blobs import Store

__all__ = ["Cached"]


class Cached:
    """A store before which a folder keeps the blobs that were used last, of at most ``most`` bytes together.

    For one process; may be used from several threads. Files are checked against their CID whenever they are read.
    """

    def __init__(self, store: Store, folder: Path, most: int) -> None:
        self._store, self._folder, self._most = store, folder, most
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files = sorted((p for p in folder.iterdir() if p.is_file()), key=lambda p: p.stat().st_mtime)
            self._sizes = {path.name: path.stat().st_size for path in files}
        except OSError as error:
            raise StoreUnavailable(f"cache {folder}: {error}") from error
        self._trim()

    def put(self, blob: bytes | Path) -> str:
        """See :class:`Store`."""
        cid = self._store.put(blob)
        self._keep(cid, blob)
        return cid

    def get(self, cid: str, limit: int) -> bytes:
        """See :class:`Store`."""
        size = self._sizes.get(cid, limit + 1)
        if size <= limit and len(kept := b"".join(self._kept(cid))) == size:
            return kept
        blob = self._store.get(cid, limit)
        self._keep(cid, blob)
        return blob

    def get_range(self, cid: str, start: int, length: int) -> bytes:
        """See :class:`Store`."""
        return self._store.get_range(cid, start, length)

    def fetch(self, cid: str, path: Path, limit: int) -> None:
        """See :class:`Store`."""
        size = self._sizes.get(cid, limit + 1)
        if size <= limit:
            try:
                with atomic_file(path) as file:
                    for part in self._kept(cid):
                        file.write(part)
            except OSError as error:
                raise StoreUnavailable(f"{path} cannot be written: {error}") from error
            if path.stat().st_size == size:
                return
        self._store.fetch(cid, path, limit)
        self._keep(cid, path)

    def has(self, cid: str) -> bool:
        """See :class:`Store`."""
        return self._store.has(cid)

    def _kept(self, cid: str) -> Iterator[bytes]:
        """What is kept of a blob: all of it, or nothing if it is not here or not what it was."""
        if cid not in self._sizes:
            return
        path, builder = self._folder / cid, cids.Builder()
        try:
            for part in _parts(path):
                builder.write(part)
            if builder.finish() != cid:
                self._drop(cid)
                return
            with self._lock:  # the one that was used last is the last to go
                self._sizes[cid] = self._sizes.pop(cid)
            yield from _parts(path)
        except (OSError, KeyError):
            self._drop(cid)

    def _keep(self, cid: str, blob: bytes | Path) -> None:
        """Keeps a blob if it can; a full disk is no reason to fail."""
        size = len(blob) if isinstance(blob, bytes) else blob.stat().st_size
        if cid in self._sizes or not 0 < size <= self._most:
            return
        try:
            with atomic_file(self._folder / cid) as file:
                if isinstance(blob, bytes):
                    file.write(blob)
                else:
                    with blob.open("rb") as source:
                        shutil.copyfileobj(source, file)
        except OSError:
            return
        with self._lock:
            self._sizes[cid] = size
        self._trim()

    def _trim(self) -> None:
        while True:
            with self._lock:
                if sum(self._sizes.values()) <= self._most:
                    return
                oldest = next(iter(self._sizes))
            self._drop(oldest)

    def _drop(self, cid: str) -> None:
        with self._lock:
            self._sizes.pop(cid, None)
        (self._folder / cid).unlink(missing_ok=True)


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(cids.CHUNK):
            yield part
