"""Content identifiers and the blocks behind them (layout: docs/PROTOCOL.md, "Content").

A blob is cut into chunks of 256 KiB. One chunk is named by the CID of its bytes (codec ``raw``); more become
the leaves of a balanced tree of UnixFS nodes (codec ``dag-pb``) with 174 links each, the layout that
``ipfs add --cid-version=1 --raw-leaves`` gives with its classic defaults. So a blob has one CID in every
store, and any stretch of it can be verified without the rest.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from crowdtrain._errors import Corrupt

__all__ = [
    "CHUNK",
    "MAX_NODE",
    "Builder",
    "Link",
    "children",
    "cid_of",
    "from_bytes",
    "is_tree",
    "to_bytes",
    "verify",
]

CHUNK = 2**18
FANOUT = 174
MAX_NODE = 2**14
"""bound of the bytes of a tree node"""
MAX_SIZE = 2**48
"""bound of the bytes of a blob"""
_RAW, _DAG_PB = 0x55, 0x70
_DUMMY = bytes(36)


def _cid(codec: int, data: bytes | bytearray) -> bytes:
    return bytes((1, codec, 0x12, 32)) + sha256(data).digest()


def from_bytes(cid: bytes) -> str:
    """Text of a CID in its 36 bytes. Raises Corrupt unless its version is 1, with SHA-256."""
    if len(cid) != 36 or cid[0] != 1 or cid[1] not in (_RAW, _DAG_PB) or cid[2:4] != b"\x12\x20":
        raise Corrupt(f"0x{cid[:40].hex()} is not a CID of version 1 with SHA-256, raw or dag-pb")
    return "b" + base64.b32encode(cid).decode().rstrip("=").lower()


def to_bytes(text: str) -> bytes:
    """The 36 bytes of a CID in text. Raises Corrupt for anything but the canonical text of a CID."""
    problem = Corrupt(f"{text[:80]!r} is not a CID of version 1 in base32")
    if len(text) != 59 or not text.isascii() or text[0] != "b" or text != text.lower():
        raise problem
    try:
        cid = base64.b32decode(text[1:].upper() + "=" * 6)
    except ValueError:
        raise problem from None
    if from_bytes(cid) != text:
        raise problem
    return cid


def is_tree(text: str) -> bool:
    """Whether the CID names a tree of chunks, and not a single one. Raises Corrupt if it is not a CID."""
    return to_bytes(text)[1] == _DAG_PB


def cid_of(blob: bytes) -> str:
    """CID of a blob."""
    builder = Builder()
    builder.write(blob)
    return builder.finish()


def verify(cid: str, block: bytes) -> bytes:
    """``block``, if it is the chunk or node that ``cid`` names; raises Corrupt otherwise."""
    expected = to_bytes(cid)
    if _cid(expected[1], block) != expected:
        raise Corrupt(f"{len(block)} bytes came for {cid} that are {from_bytes(_cid(expected[1], block))}")
    return block


@dataclass(frozen=True, slots=True)
class Link:
    """A block of a blob: a chunk (``height`` 0), or the node over a stretch of chunks."""

    cid: bytes
    size: int
    """bytes of the blob"""
    total: int
    """bytes of the blocks below and including this one"""
    height: int


class Builder:
    """The CID of a blob that comes in pieces; ``on_node(cid, bytes)`` receives the nodes of its tree."""

    def __init__(self, on_node: Callable[[str, bytes], None] = lambda cid, node: None) -> None:
        self._on_node = on_node
        self._rest = bytearray()
        self._levels: list[list[Link]] = [[]]

    def write(self, data: bytes) -> None:
        """Adds the next bytes."""
        view = memoryview(data)
        while view:
            # a full chunk is kept back until more comes: a blob of one chunk has no tree
            if len(self._rest) == CHUNK:
                self._add_chunk()
            part = view[: CHUNK - len(self._rest)]
            self._rest += part
            view = view[len(part) :]

    def finish(self) -> str:
        """The CID of all that was written."""
        self._add_chunk()
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level]) > 1:
            self._close(level)
            level += 1
        return from_bytes(self._levels[-1][0].cid)

    def _add_chunk(self) -> None:
        size = len(self._rest)
        self._add(Link(_cid(_RAW, self._rest), size, size, 0))
        self._rest.clear()

    def _add(self, link: Link) -> None:
        if link.height == len(self._levels):
            self._levels.append([])
        if len(self._levels[link.height]) == FANOUT:
            self._close(link.height)
        self._levels[link.height].append(link)

    def _close(self, level: int) -> None:
        links, self._levels[level] = self._levels[level], []
        block = _encode_node(links)
        cid = _cid(_DAG_PB, block)
        self._on_node(from_bytes(cid), block)
        total = len(block) + sum(link.total for link in links)
        self._add(Link(cid, sum(link.size for link in links), total, level + 1))


def children(block: bytes, parent: Link | None = None) -> list[Link]:
    """What a tree node links to, in order; it is the root of a tree, or the node that ``parent`` describes.

    Raises Corrupt unless the node is as :class:`Builder` makes it. Its layout follows from the size of its
    stretch alone, so a hostile node cannot make a tree deeper or wider than its bytes are worth.
    """
    cids, size = _parse_node(block)
    height = parent.height if parent else _height(size)
    if size > MAX_SIZE or (size != parent.size if parent else height == 0):
        raise Corrupt(f"a tree node over {size} bytes is not one that the blob has")
    sizes = _child_sizes(size, height)
    if len(cids) != len(sizes):
        raise Corrupt(f"a tree node over {size} bytes has {len(cids)} links, not {len(sizes)}")
    links = [
        Link(cid, part, _total(part, height - 1), height - 1) for cid, part in zip(cids, sizes, strict=True)
    ]
    codecs = {link.cid[1] for link in links}
    if _encode_node(links) != block or codecs != {_DAG_PB if height > 1 else _RAW}:
        raise Corrupt(f"a tree node over {size} bytes is not laid out as a blob's")
    return links


def _height(size: int) -> int:
    height = 0
    while CHUNK * FANOUT**height < size:
        height += 1
    return height


def _child_sizes(size: int, height: int) -> list[int]:
    unit = CHUNK * FANOUT ** (height - 1)
    return [min(unit, size - start) for start in range(0, size, unit)]


@lru_cache(maxsize=4096)
def _total(size: int, height: int) -> int:
    if height == 0:
        return size
    links = [Link(_DUMMY, part, _total(part, height - 1), height - 1) for part in _child_sizes(size, height)]
    return len(_encode_node(links)) + sum(link.total for link in links)


def _encode_node(links: list[Link]) -> bytes:
    block = bytearray()
    for link in links:
        body = b"\x0a" + _varint(len(link.cid)) + link.cid + b"\x12\x00\x18" + _varint(link.total)
        block += b"\x12" + _varint(len(body)) + body
    data = b"\x08\x02\x18" + _varint(sum(link.size for link in links))
    data += b"".join(b"\x20" + _varint(link.size) for link in links)
    return bytes(block) + b"\x0a" + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _parse_node(block: bytes) -> tuple[list[bytes], int]:
    """CIDs of the links, and the file size; that the rest is right shows when the node is encoded again."""
    at, cids = 0, []
    problem = Corrupt(f"{len(block)} bytes are not a tree node")
    if len(block) > MAX_NODE:
        raise problem
    while block[at : at + 1] == b"\x12":
        # a link is shorter than 128 bytes, so its length is one byte: 12 len 0a 24 cid …
        link = block[at + 2 : at + 2 + (block[at + 1] if at + 1 < len(block) else 0)]
        if len(link) < 38:
            raise problem
        cids.append(link[2:38])
        at += 2 + len(link)
    start = block.find(b"\x08\x02\x18", at, at + 6)
    size, shift = 0, 0
    if start < 0:
        raise problem
    for byte in block[start + 3 : start + 12]:
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return cids, size
    raise problem
