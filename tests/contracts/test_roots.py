"""Roots.sol against the engine's Merkle trees."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from crowdtrain_engine import merkle
from web3.contract import Contract


@pytest.fixture(scope="module")
def trees(deploy: Callable[..., Contract]) -> Contract:
    return deploy("Trees")


def _leaves(count: int) -> list[bytes]:
    return [sha256(bytes([i % 256, i // 256])).digest() for i in range(count)]


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 1024, 5000])
def test_leaf(trees: Contract, size: int) -> None:
    data = bytes(i * 7 % 256 for i in range(size))
    assert trees.functions.leaf(data).call() == merkle.leaf(data)


@pytest.mark.parametrize("count", [*range(1, 18), 31, 32, 33, 255, 256, 257])
def test_root(trees: Contract, count: int) -> None:
    assert trees.functions.root(_leaves(count)).call() == merkle.root(_leaves(count))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_every_leaf_and_every_padding_is_proved(trees: Contract, count: int) -> None:
    tree = merkle.Tree(_leaves(count))
    for index, leaf in enumerate(tree.levels[0]):
        assert trees.functions.verify(tree.root, count, leaf, index, tree.proof(index)).call()


def test_what_is_not_proved(trees: Contract) -> None:
    tree = merkle.Tree(_leaves(6))
    leaf, proof = tree.levels[0][4], tree.proof(4)
    inner = tree.levels[1][2]
    wrong = [
        (tree.root, 6, tree.levels[0][5], 4, proof),
        (tree.root, 6, leaf, 5, proof),
        (tree.root, 6, leaf, 4 + 8, proof),
        (tree.root, 6, leaf, 4, proof[:-1]),
        (tree.root, 6, leaf, 4, [*proof, merkle.ZERO]),
        (tree.root, 6, inner, 2, tree.proof(4)[1:]),
        (tree.root, 9, leaf, 4, proof),
        (tree.root, 4, leaf, 4, proof),
        (leaf, 6, leaf, 4, proof),
    ]
    for arguments in wrong:
        assert not trees.functions.verify(*arguments).call(), arguments
    assert trees.functions.verify(tree.root, 6, leaf, 4, proof).call()
