"""SHA-256 Merkle trees (layout: docs/PROTOCOL.md, "Commitments").

A leaf over bytes is ``sha256(0x00 ‖ bytes)``; in a tree over roots, a root is itself the leaf; a node is
``sha256(0x01 ‖ left ‖ right)``. Leaves are padded to a power of two with 32 zero bytes. The number of leaves,
and so the height, is always known from elsewhere, so no leaf can pass for a node.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PAGE_WORDS",
    "ZERO",
    "Tree",
    "height",
    "leaf",
    "node",
    "page",
    "page_count",
    "root",
    "tensor_root",
    "tensor_roots",
    "tensor_tree",
    "verify",
]

ZERO = bytes(32)
PAGE_WORDS = 256
_THREADS = os.cpu_count() or 1


def leaf(data: bytes) -> bytes:
    """Leaf over bytes."""
    return sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Inner node."""
    return sha256(b"\x01" + left + right).digest()


def height(count: int) -> int:
    """Levels above the leaves of a tree with ``count`` of them: 0 for one leaf."""
    return (count - 1).bit_length()


class Tree:
    """A Merkle tree with all its nodes: ``levels[0]`` the padded leaves, ``levels[-1]`` the root alone."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ValueError("a Merkle tree needs at least one leaf")
        level = [*leaves, *[ZERO] * ((1 << height(len(leaves))) - len(leaves))]
        self.levels = [level]
        while len(level) > 1:
            level = [node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
            self.levels.append(level)

    @property
    def root(self) -> bytes:
        return self.levels[-1][0]

    @property
    def height(self) -> int:
        return len(self.levels) - 1

    def proof(self, index: int) -> list[bytes]:
        """Siblings from the leaf ``index`` up to below the root."""
        return [level[(index >> h) ^ 1] for h, level in enumerate(self.levels[:-1])]

    def children(self, level: int, index: int, depth: int) -> list[bytes]:
        """The ``2**depth`` nodes that stand ``depth`` below node ``index`` of ``levels[level]``."""
        return self.levels[level - depth][index << depth : (index + 1) << depth]


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over ``leaves``."""
    return Tree(leaves).root


def verify(root: bytes, leaf: bytes, index: int, proof: Sequence[bytes]) -> bool:
    """Whether ``leaf`` stands at ``index`` of the tree of height ``len(proof)`` with this root."""
    if index >> len(proof):
        return False
    for sibling in proof:
        leaf = node(sibling, leaf) if index & 1 else node(leaf, sibling)
        index >>= 1
    return leaf == root


def page_count(words: int) -> int:
    """Pages of a tensor of ``words`` words."""
    return -(-words // PAGE_WORDS)


def page(words: NDArray[np.generic], index: int) -> bytes:
    """Page ``index`` of a tensor: 1,024 bytes, words little-endian, zeros after the end."""
    flat = np.ascontiguousarray(words).reshape(-1)
    data: bytes = flat[index * PAGE_WORDS : (index + 1) * PAGE_WORDS].tobytes()
    return data.ljust(4 * PAGE_WORDS, b"\x00")


def tensor_tree(words: NDArray[np.generic]) -> Tree:
    """Tree over the pages of a tensor."""
    from crowdtrain_engine import _native

    leaves = _native.tensor_leaves(np.ascontiguousarray(words), _THREADS)
    return Tree([leaves[at : at + 32] for at in range(0, len(leaves), 32)])


def tensor_root(words: NDArray[np.generic]) -> bytes:
    """Root over the pages of a tensor: that of :func:`tensor_tree`."""
    return tensor_roots([words])[0]


def tensor_roots(tensors: Iterable[NDArray[np.generic]]) -> list[bytes]:
    """:func:`tensor_root` of each, all at once."""
    from crowdtrain_engine import _native

    return list(_native.tensor_roots([np.ascontiguousarray(words) for words in tensors], _THREADS))
