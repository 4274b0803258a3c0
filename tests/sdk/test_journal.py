"""The journal of transactions: on disk before anything is sent, one process at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from crowdtrain._errors import ConfigError
from crowdtrain.journal import KEPT, Entry, Fate, Journal

ENTRY = Entry(3, "0xaa", b"raw", "deposit", "0x11", b"data", 21_000, 2**70, 2**66)


def test_what_is_written_is_read_back_by_another_process(tmp_path: Path) -> None:
    first = Journal(tmp_path / "folder" / "journal.sqlite", "chain:account")
    first.add(ENTRY)
    first.close()
    assert list(Journal(tmp_path / "folder" / "journal.sqlite", "chain:account").all()) == [ENTRY]


def test_another_chain_or_account_has_its_own(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.sqlite", "one")
    first.add(ENTRY)
    first.close()
    other = Journal(tmp_path / "journal.sqlite", "two")
    assert list(other.all()) == list(other.unsettled(0)) == []


def test_only_one_process_uses_a_journal(tmp_path: Path) -> None:
    holder = Journal(tmp_path / "journal.sqlite", "scope")
    with pytest.raises(ConfigError, match="another process uses"):
        Journal(tmp_path / "journal.sqlite", "scope")
    holder.close()
    Journal(tmp_path / "journal.sqlite", "scope").close()


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        Journal(tmp_path / "journal.sqlite", "scope")
    with pytest.raises(ConfigError, match="cannot be used"):
        Journal(tmp_path / "journal.sqlite" / "inside", "scope")


@pytest.mark.parametrize("fate", [Fate.MINED, Fate.FAILED])
def test_what_is_in_a_block_is_settled_until_the_block_is_gone(fate: Fate) -> None:
    journal = Journal(None, "scope")
    journal.add(ENTRY)
    assert [entry.hash for entry in journal.unsettled(3)] == ["0xaa"]
    journal.mark(ENTRY, fate)
    assert journal.unsettled(4) == []
    assert [entry.fate for entry in journal.unsettled(3)] == [fate]


def test_what_was_settled_long_ago_is_forgotten() -> None:
    journal = Journal(None, "scope")
    for nonce in (1, 2, 3):
        journal.add(replace(ENTRY, nonce=nonce, hash=hex(nonce)))
    journal.mark(replace(ENTRY, nonce=1, hash="0x1"), Fate.MINED)
    latest = replace(ENTRY, nonce=2 + KEPT, hash="0xcc")
    journal.add(latest)
    journal.mark(latest, Fate.MINED)
    assert [entry.nonce for entry in journal.all()] == [2, 3, 2 + KEPT]


def test_of_two_with_one_nonce_one_is_dropped() -> None:
    journal = Journal(None, "scope")
    dearer = replace(ENTRY, hash="0xbb", max_fee=2**71)
    journal.add(ENTRY)
    journal.add(dearer)
    assert [entry.hash for entry in journal.unsettled(3)] == ["0xaa", "0xbb"]
    journal.mark(ENTRY, Fate.MINED)
    assert [entry.fate for entry in journal.all()] == [Fate.MINED, Fate.DROPPED]
    assert journal.unsettled(4) == []
