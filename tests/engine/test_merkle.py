"""Merkle trees: the layout of docs/PROTOCOL.md, and that proofs prove nothing else."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest
from crowdtrain_engine import merkle
from hypothesis import given
from hypothesis import strategies as st

ROOTS = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


def digest(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def test_layout() -> None:
    a, b, c = (bytes([i]) * 32 for i in range(3))
    zero = bytes(32)
    assert merkle.leaf(b"xyz") == digest(b"\x00", b"xyz")
    assert merkle.root([a]) == a
    assert merkle.root([a, b]) == digest(b"\x01", a, b)
    assert merkle.root([a, b, c]) == digest(b"\x01", digest(b"\x01", a, b), digest(b"\x01", c, zero))


def test_a_tree_needs_a_leaf() -> None:
    with pytest.raises(ValueError, match="at least one leaf"):
        merkle.Tree([])


@pytest.mark.parametrize(("count", "height"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9)])
def test_height(count: int, height: int) -> None:
    assert merkle.height(count) == height
    tree = merkle.Tree([bytes([i % 256]) * 32 for i in range(count)])
    assert tree.height == height
    assert len(tree.levels[0]) == 2**height


@given(ROOTS, st.data())
def test_every_leaf_and_all_padding_is_proved(leaves: list[bytes], data: st.DataObject) -> None:
    tree = merkle.Tree(leaves)
    index = data.draw(st.integers(0, len(tree.levels[0]) - 1))
    proof = tree.proof(index)
    assert len(proof) == tree.height
    assert merkle.verify(tree.root, tree.levels[0][index], index, proof)
    assert tree.levels[0][index] == (leaves[index] if index < len(leaves) else merkle.ZERO)


@given(ROOTS, st.data())
def test_nothing_else_is_proved(leaves: list[bytes], data: st.DataObject) -> None:
    tree = merkle.Tree(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    other = data.draw(st.integers(0, 2**tree.height - 1))
    proof, here = tree.proof(index), tree.levels[0][index]
    assert not merkle.verify(tree.root, digest(here), index, proof)
    assert not merkle.verify(tree.root, here, index, [*proof, merkle.ZERO])
    assert not merkle.verify(tree.root, here, index + 2**tree.height, proof)
    if tree.levels[0][other] != here:
        assert not merkle.verify(tree.root, here, other, tree.proof(other))
    if proof:
        level = data.draw(st.integers(0, len(proof) - 1))
        proof[level] = digest(proof[level])
        assert not merkle.verify(tree.root, here, index, proof)


@given(ROOTS, st.data())
def test_children_hash_to_their_node(leaves: list[bytes], data: st.DataObject) -> None:
    tree = merkle.Tree(leaves)
    level = data.draw(st.integers(0, tree.height))
    index = data.draw(st.integers(0, len(tree.levels[level]) - 1))
    depth = data.draw(st.integers(0, level))
    children = tree.children(level, index, depth)
    assert len(children) == 2**depth
    assert merkle.root(children) == tree.levels[level][index]


@pytest.mark.parametrize("words", [1, 255, 256, 257, 1000, 64 * 256, 64 * 256 + 1, 129 * 256, 200 * 256 + 7])
def test_pages_of_a_tensor(words: int) -> None:
    tensor = np.arange(words, dtype=np.uint32)
    bytes_of_pages = tensor.astype("<u4").tobytes().ljust(1024 * merkle.page_count(words), b"\x00")
    pages = [bytes_of_pages[i : i + 1024] for i in range(0, len(bytes_of_pages), 1024)]
    assert [merkle.page(tensor, i) for i in range(len(pages))] == pages
    assert merkle.tensor_root(tensor) == merkle.root([merkle.leaf(page) for page in pages])
    assert merkle.tensor_tree(tensor).root == merkle.tensor_root(tensor)


def test_a_tensors_root_is_over_its_words_in_row_major_order() -> None:
    tensor = np.arange(600, dtype=np.float32).reshape(20, 30)
    assert merkle.tensor_root(tensor) == merkle.tensor_root(tensor.reshape(-1).view(np.uint32))
    assert merkle.tensor_root(tensor.T) == merkle.tensor_root(np.ascontiguousarray(tensor.T))
    assert merkle.tensor_root(tensor.T) != merkle.tensor_root(tensor)


@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=5))
def test_roots_of_several_tensors_at_once(sizes: list[int]) -> None:
    tensors = [np.arange(i, i + size, dtype=np.uint32) for i, size in enumerate(sizes)]
    assert merkle.tensor_roots(tensors) == [merkle.tensor_tree(tensor).root for tensor in tensors]


def test_several_threads_may_take_roots() -> None:
    tensor = np.arange(1 << 20, dtype=np.uint32)
    expected = merkle.tensor_tree(tensor).root
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: merkle.tensor_root(tensor), range(20))) == {expected}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_takes_roots() -> None:
    tensor = np.arange(1 << 20, dtype=np.uint32)
    expected = merkle.tensor_root(tensor)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(merkle.tensor_root(tensor) != expected)
    assert os.waitpid(child, 0)[1] == 0
