"""Blobs behind a gateway (:mod:`crowdtrain.gateway`), over HTTP."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, NotFound, StoreUnavailable
from crowdtrain.stores._blobs import BlobStore

__all__ = ["HttpStore"]

_SLOWEST = 2**14
"""bytes a second below which a transfer is given up"""


class HttpStore(BlobStore):
    """The blobs of a gateway.

    ``timeout`` bounds, in seconds, each wait for the gateway; a transfer as a whole may take that and its
    length at 16 KiB/s, so that a gateway which drips bytes cannot hold anybody for ever.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._client = httpx.Client(base_url=self.url, timeout=timeout)
        weakref.finalize(self, self._client.close)

    def put(self, blob: bytes | Path) -> str:
        """See :class:`Store`."""
        cid = _local_cid(blob)
        if self.has(cid):
            return cid
        size = blob.stat().st_size if isinstance(blob, Path) else len(blob)
        with self._answer(cid):
            response = self._client.put(
                f"/blobs/{cid}", content=_parts(blob), headers={"Content-Length": str(size)}
            )
            self._check(response, cid)
        return cid

    def has(self, cid: str) -> bool:
        """See :class:`Store`."""
        cids.to_bytes(cid)
        try:
            with self._answer(cid):
                self._check(self._client.head(f"/blobs/{cid}"), cid)
        except NotFound:
            return False
        return True

    def node(self, cid: str) -> bytes:
        """See :class:`BlobStore`."""
        return b"".join(self._bytes(cid, f"/nodes/{cid}", cids.MAX_NODE, {}))

    def stream(self, cid: str, start: int, length: int) -> Iterator[bytes]:
        """See :class:`BlobStore`."""
        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        return self._bytes(cid, f"/blobs/{cid}", length, wanted)

    def _bytes(self, cid: str, path: str, limit: int, headers: dict[str, str]) -> Iterator[bytes]:
        deadline = time.monotonic() + self._timeout + limit / _SLOWEST
        # no compression: a small answer could otherwise unpack to a large one
        headers = {**headers, "Accept-Encoding": "identity"}
        with self._answer(cid), self._client.stream("GET", path, headers=headers) as response:
            self._check(response, cid)
            if "Range" in headers and response.status_code != 206:
                raise Corrupt(f"{self.url} does not answer with the range that was asked for")
            for part in response.iter_raw():
                limit -= len(part)
                if limit < 0:
                    raise Corrupt(f"{self.url} sends more bytes for {cid} than were asked for")
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"{self.url} sends {cid} at less than {_SLOWEST} bytes a second")
                yield part

    def _check(self, response: httpx.Response, cid: str) -> None:
        if response.status_code == 404:
            raise NotFound(f"{cid} is not in {self.url}")
        if not response.is_success:
            raise StoreUnavailable(f"{self.url} answers {response.status_code} for {cid}")

    @contextmanager
    def _answer(self, cid: str) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise StoreUnavailable(f"{self.url} does not answer for {cid}: {error!r}") from error


def _local_cid(blob: bytes | Path) -> str:
    builder = cids.Builder()
    for part in _parts(blob):
        builder.write(part)
    return builder.finish()


def _parts(blob: bytes | Path) -> Iterator[bytes]:
    if isinstance(blob, bytes):
        yield blob
        return
    try:
        with blob.open("rb") as file:
            while part := file.read(cids.CHUNK):
                yield part
    except OSError as error:
        raise StoreUnavailable(f"{blob} cannot be read: {error}") from error
