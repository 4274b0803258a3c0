"""Stores of blobs by content: a port, and what implements it.

A CID only says where to look: every byte that comes back is checked against it, and roots decide what is
right.
"""

from crowdtrain.stores._blobs import BlobStore, Store
from crowdtrain.stores.cached import Cached
from crowdtrain.stores.http import HttpStore
from crowdtrain.stores.ipfs import IpfsStore
from crowdtrain.stores.local import LocalStore
from crowdtrain.stores.memory import FakeStore
from crowdtrain.stores.metered import Metered

__all__ = [
    "BlobStore", "Cached", "FakeStore", "HttpStore", "IpfsStore", "LocalStore", "Metered", "Store", "open_store",
]  # fmt: skip


def open_store(address: str) -> Store:
    """The store at ``address``: a gateway's URL, the multiaddress of an IPFS daemon, or else a folder."""
    if address.startswith(("http://", "https://")):
        return HttpStore(address)
    if address.startswith(("/ip4/", "/ip6/", "/dns/", "/dns4/", "/dns6/")):
        return IpfsStore(address)
    return LocalStore(address)
