"""CIDs: known vectors of IPFS, canonical text, and trees that cannot lie."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from crowdtrain import cid
from crowdtrain._errors import Corrupt
from hypothesis import given
from hypothesis import strategies as st

# given by js-ipfs for `ipfs add --cid-version=1 --raw-leaves`; tests/sdk/ipfs asks a daemon itself
VECTORS = {
    0: "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    1: "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
    cid.CHUNK: "bafkreibruh455iawsviqslif5c7uurdcfdemh22mtnytyzvnzn75kpejxy",
    cid.CHUNK + 1: "bafybeiexg2oqkfnj56l7fcmawswqbijt5shq4b5rg6a546uwpkqqzwjioi",
    3 * cid.CHUNK + 17: "bafybeiazf3hwcyssmk5zulxipul4hzjd3xeuhvxssc4a3kp5ffwvsqxnse",
    174 * cid.CHUNK: "bafybeihpe5snhzneq7xs53nivmsopto5lrogo3wjynauqylqeym5a3irbm",
    174 * cid.CHUNK + 1: "bafybeib4y7ghw2rq7bracc4xwtxrbzo7cfvagdpte2tmrkgwl6dyard3cm",
    175 * cid.CHUNK: "bafybeie73j3heycdgkdsehpoe6cxh2y3iywtf6djpi3dzqrywevvjmazny",
}


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def tree(blob: bytes) -> tuple[str, dict[str, bytes]]:
    nodes: dict[str, bytes] = {}
    builder = cid.Builder(nodes.__setitem__)
    builder.write(blob)
    return builder.finish(), nodes


@pytest.mark.parametrize("size", VECTORS)
def test_a_blob_has_the_cid_that_ipfs_gives_it(size: int) -> None:
    assert cid.cid_of(pattern(size)) == VECTORS[size]


@pytest.mark.parametrize("size", [0, 1, cid.CHUNK])
def test_one_chunk_is_named_by_its_own_hash(size: int) -> None:
    name, nodes = tree(pattern(size))
    assert not nodes
    assert not cid.is_tree(name)
    assert cid.to_bytes(name) == b"\x01\x55\x12\x20" + sha256(pattern(size)).digest()


@pytest.mark.parametrize("cut", [1, 1000, cid.CHUNK - 1, cid.CHUNK, cid.CHUNK + 1, 10**7])
def test_the_cid_does_not_depend_on_how_the_bytes_come(cut: int) -> None:
    blob = pattern(3 * cid.CHUNK + 5)
    builder = cid.Builder()
    for start in range(0, len(blob), cut) if cut > 1 else [0]:
        builder.write(blob[start : start + cut] if cut > 1 else blob)
    assert builder.finish() == cid.cid_of(blob)


def test_children_of_a_tree_cover_the_blob() -> None:
    blob = pattern(175 * cid.CHUNK + 1)
    name, nodes = tree(blob)
    top = cid.children(nodes[name])
    assert [link.size for link in top] == [174 * cid.CHUNK, cid.CHUNK + 1]
    at = 0
    for link in top:
        for leaf in cid.children(nodes[cid.from_bytes(link.cid)], link):
            chunk = blob[at : at + leaf.size]
            assert cid.verify(cid.from_bytes(leaf.cid), chunk) == chunk
            at += leaf.size
    assert at == len(blob)


def test_a_last_node_with_one_chunk_is_still_a_node() -> None:
    name, nodes = tree(pattern(174 * cid.CHUNK + 7))
    last = cid.children(nodes[name])[1]
    assert (last.size, last.height) == (7, 1)
    (leaf,) = cid.children(nodes[cid.from_bytes(last.cid)], last)
    assert (leaf.size, leaf.height) == (7, 0)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_node_are_refused(data: bytes) -> None:
    with pytest.raises(Corrupt):
        cid.children(data)


@given(st.data())
def test_an_altered_node_is_refused_or_names_other_chunks(data: st.DataObject) -> None:
    name, nodes = tree(pattern(2 * cid.CHUNK + 9))
    node = bytearray(nodes[name])
    node[data.draw(st.integers(0, len(node) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        cid.verify(name, bytes(node))
    honest = cid.children(nodes[name])
    try:
        links = cid.children(bytes(node))
    except Corrupt:
        return
    assert [link.size for link in links] == [link.size for link in honest]


@given(st.binary(min_size=32, max_size=32), st.sampled_from([0x55, 0x70]))
def test_text_and_bytes_are_one_to_one(digest: bytes, codec: int) -> None:
    raw = bytes((1, codec, 0x12, 32)) + digest
    assert cid.to_bytes(cid.from_bytes(raw)) == raw


@given(st.one_of(st.text(max_size=70), st.from_regex(r"b[a-z2-7]{58}", fullmatch=True)))
def test_other_text_is_refused(text: str) -> None:
    try:
        raw = cid.to_bytes(text)
    except Corrupt:
        return
    assert cid.from_bytes(raw) == text


@pytest.mark.parametrize("raw", [b"", bytes(36), b"\x01\x55\x12\x20", b"\x01\x55\x12\x20" + bytes(33)])
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(Corrupt, match="is not a CID"):
        cid.from_bytes(raw)


def test_upper_case_and_spare_bits_are_not_canonical() -> None:
    name = cid.cid_of(b"crowdtrain")
    for other in (name.upper(), "B" + name[1:], name + "a", name[:-1], "z" + name[1:]):
        with pytest.raises(Corrupt):
            cid.to_bytes(other)


def test_random_blobs_differ() -> None:
    rng = random.Random(7)
    assert len({cid.cid_of(rng.randbytes(rng.randrange(600_000))) for _ in range(20)}) == 20
