"""The port of a store, and reading that trusts no store: every chunk and node is checked against its CID."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, StoreUnavailable
from crowdtrain._files import atomic_file

__all__ = ["EMPTY", "BlobStore", "Store", "pieces"]

EMPTY = cids.cid_of(b"")


class Store(Protocol):
    """Blobs by CID. Raises StoreUnavailable when the store does not answer; reads also NotFound, Corrupt."""

    def put(self, blob: bytes | Path) -> str:
        """Stores bytes, or a file's, and returns their CID; storing what is there already changes nothing."""

    def get(self, cid: str, limit: int) -> bytes:
        """The blob; Corrupt if it is longer than ``limit`` bytes, of which little more is read then."""

    def get_range(self, cid: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start`` on, fewer where the blob ends; reads the chunks around."""

    def fetch(self, cid: str, path: Path, limit: int) -> None:
        """The blob into the file ``path``, whole or not at all, with one chunk in memory at a time."""

    def has(self, cid: str) -> bool:
        """Whether the blob is there."""


class BlobStore(ABC):
    """What stores share: verified reading over two unverified primitives."""

    @abstractmethod
    def put(self, blob: bytes | Path) -> str:
        """See :class:`Store`."""

    @abstractmethod
    def has(self, cid: str) -> bool:
        """See :class:`Store`."""

    @abstractmethod
    def node(self, cid: str) -> bytes:
        """Bytes of a tree node, at most cid.MAX_NODE of them; not verified."""

    @abstractmethod
    def stream(self, cid: str, start: int, length: int) -> Iterator[bytes]:
        """At most ``length`` bytes of the blob from ``start`` on, in pieces of any size; not verified."""

    def get(self, cid: str, limit: int) -> bytes:
        """See :class:`Store`."""
        return b"".join(self._read(cid, 0, limit, whole=True))

    def get_range(self, cid: str, start: int, length: int) -> bytes:
        """See :class:`Store`."""
        if start < 0 or length < 0:
            raise ValueError(f"start and length must not be negative: {start}, {length}")
        return b"".join(self._read(cid, start, length, whole=False))

    def fetch(self, cid: str, path: Path, limit: int) -> None:
        """See :class:`Store`."""
        try:
            with atomic_file(path) as file:
                for part in self._read(cid, 0, limit, whole=True):
                    file.write(part)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be written: {error}") from error

    def size(self, cid: str) -> int:
        """Bytes of the blob; reads one node or chunk."""
        if cids.is_tree(cid):
            return sum(link.size for link in cids.children(cids.verify(cid, self.node(cid))))
        return len(self.get(cid, cids.CHUNK))

    def _read(self, cid: str, start: int, length: int, *, whole: bool) -> Iterator[bytes]:
        """The verified bytes ``start … start + length - 1``; Corrupt if ``whole`` and there are more."""
        if cid == EMPTY:
            return
        if not cids.is_tree(cid):
            chunk = cids.verify(cid, _take(cid, self.stream(cid, 0, cids.CHUNK), cids.CHUNK))
            if whole and len(chunk) > length:
                raise Corrupt(f"{cid} has {len(chunk)} bytes, at most {length} are allowed")
            yield chunk[start : start + length]
            return
        top = cids.children(cids.verify(cid, self.node(cid)))
        size = sum(link.size for link in top)
        if whole and size > length:
            raise Corrupt(f"{cid} has {size} bytes, at most {length} are allowed")
        stop = min(start + length, size)
        if start >= stop:
            return
        first, end = start - start % cids.CHUNK, min(size, -(-stop // cids.CHUNK) * cids.CHUNK)
        at = first
        blocks = pieces(self.stream(cid, first, end - first), cids.CHUNK)
        for link, block in zip(self._chunks(top, 0, first, stop), blocks, strict=False):
            chunk = cids.verify(cids.from_bytes(link.cid), block)
            yield chunk[max(0, start - at) : stop - at]
            at += len(chunk)
        if at < end:
            raise Corrupt(f"{cid} ends after {at} bytes, it has {size}")

    def _chunks(self, links: list[cids.Link], at: int, start: int, stop: int) -> Iterator[cids.Link]:
        """The chunks below ``links``, which begin at byte ``at``, that hold bytes of ``start … stop - 1``."""
        for link in links:
            if at < stop and start < at + link.size:
                if link.height == 0:
                    yield link
                else:
                    name = cids.from_bytes(link.cid)
                    below = cids.children(cids.verify(name, self.node(name)), link)
                    yield from self._chunks(below, at, start, stop)
            at += link.size


def pieces(stream: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of ``size``, the last one shorter where they end."""
    rest = bytearray()
    for part in stream:
        rest += part
        while len(rest) >= size:
            yield bytes(rest[:size])
            del rest[:size]
    if rest:
        yield bytes(rest)


def _take(cid: str, stream: Iterator[bytes], limit: int) -> bytes:
    data = bytearray()
    for part in stream:
        data += part
        if len(data) > limit:
            raise Corrupt(f"more than {limit} bytes came for {cid}")
    return bytes(data)
