"""Blobs in IPFS, through the RPC interface of a daemon."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crowdtrain import cid as cids
from crowdtrain._errors import ConfigError, Corrupt, NotFound, StoreUnavailable
from crowdtrain.stores._blobs import BlobStore
from crowdtrain.stores.http import _SLOWEST, _local_cid, _parts

__all__ = ["IpfsStore"]

_LAYOUT = {
    "cid-version": 1,
    "raw-leaves": "true",
    "chunker": f"size-{cids.CHUNK}",
    "max-file-links": cids.FANOUT,
    "trickle": "false",
    "pin": "true",
    "cid-base": "base32",
}


class IpfsStore(BlobStore):
    """The daemon at ``address``, such as ``/ip4/127.0.0.1/tcp/5001/http``; blobs are pinned there.

    ``timeout`` bounds each wait, in seconds; a blob that no peer offers in that time counts as unavailable.
    Needs the extra ``crowdtrain[ipfs]``.
    """

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        try:
            import ipfshttpclient
        except ImportError as error:
            raise ConfigError("IPFS needs a package: pip install 'crowdtrain[ipfs]'") from error
        # it is older than urllib3 2, which warns of that at every new connection
        warnings.filterwarnings("ignore", "The 'strict' parameter", FutureWarning)
        self._failures = ipfshttpclient.exceptions
        self._address = address
        self._timeout = timeout
        with self._answer(address):
            # connect() would refuse daemons newer than the client, whose calls used here are the same
            self._client: Any = ipfshttpclient.Client(address, timeout=timeout)

    def put(self, blob: bytes | Path) -> str:
        """See :class:`Store`. Raises Corrupt if the daemon lays the blob out in another way."""
        cid = _local_cid(blob)
        with self._answer(cid):
            added = self._client.add_bytes(_parts(blob), opts=_LAYOUT)
        if added != cid:
            raise Corrupt(f"the IPFS daemon at {self._address} stored {cid} as {added}")
        return cid

    def has(self, cid: str) -> bool:
        """See :class:`Store`: whether the blob is pinned at the daemon, as everything is that was put
        there.
        """
        cids.to_bytes(cid)
        try:
            with self._answer(cid):
                self._client.pin.ls(cid, type="recursive")
        except NotFound:
            return False
        return True

    def node(self, cid: str) -> bytes:
        """See :class:`BlobStore`."""
        cids.to_bytes(cid)
        with self._answer(cid):
            block: bytes = self._client.block.get(cid)
        return block

    def stream(self, cid: str, start: int, length: int) -> Iterator[bytes]:
        """See :class:`BlobStore`."""
        cids.to_bytes(cid)
        deadline = time.monotonic() + self._timeout + length / _SLOWEST
        with self._answer(cid), self._client.cat(cid, start, length, stream=True) as parts:
            for part in parts:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"IPFS sends {cid} at less than {_SLOWEST} bytes a second")
                yield part

    @contextmanager
    def _answer(self, cid: str) -> Iterator[None]:
        try:
            yield
        except self._failures.ErrorResponse as error:
            if any(words in str(error).lower() for words in ("not found", "not pinned")):
                raise NotFound(f"{cid} is not in IPFS at {self._address}") from error
            raise StoreUnavailable(f"IPFS at {self._address} refuses {cid}: {error}") from error
        except self._failures.Error as error:
            raise StoreUnavailable(f"IPFS at {self._address} does not answer for {cid}: {error}") from error
