"""The C++ header that shares Python's tables."""

from __future__ import annotations

from crowdtrain_engine import _codegen


def test_the_header_is_what_the_tables_say() -> None:
    committed = _codegen.HEADER.read_text(encoding="utf-8")
    assert committed == _codegen.header(), "run python -m crowdtrain_engine._codegen"
