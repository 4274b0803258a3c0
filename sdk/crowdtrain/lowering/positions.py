"""Makes every position one that a nest can express: by splitting loops, or by tables of positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from crowdtrain_engine import DType
from crowdtrain_engine.program import MAX_RANK

from crowdtrain.lowering.emit import is_axis
from crowdtrain.lowering.expr import Expr, Operation, Position, ReadExpr, Word
from crowdtrain.lowering.index import Atom, Exact, Index, Loop, Quotient, Remainder
from crowdtrain.lowering.tensor import Formula, Tensor, walk

__all__ = ["split_loops", "with_tables"]

MakeTable = Callable[[Sequence[int], Formula], Tensor]
"""Stores the words of a formula over a shape."""


def split_loops(shape: Sequence[int], over: Sequence[int], formula: Formula) -> tuple[list[list[Loop]], Expr]:
    """Loops for each dimension of ``shape``, then of ``over``, most significant first, and ``formula`` of
    them.

    A dimension is cut where that makes positions affine, unless the rank is too high.
    """
    parts = [[extent] for extent in (*shape, *over)]
    while True:
        loops = [[Loop(extent, d, p) for p, extent in enumerate(extents)] for d, extents in enumerate(parts)]
        expr = formula(*map(_joined, loops))
        cut = next(_cuts(expr, parts, len(shape)), None)
        if cut is None:
            return loops, expr
        loop, inner = cut
        parts[loop.dim][loop.part : loop.part + 1] = [loop.extent // inner, inner]


def _joined(parts: Sequence[Loop]) -> Index:
    index = Index()
    for loop in parts:
        index = index * loop.extent + Index.of(loop)
    return index


def _cuts(expr: Expr, parts: list[list[int]], rank: int) -> Iterator[tuple[Loop, int]]:
    """Loops to cut, with the extent of the inner part."""
    full = {
        is_outer: sum(map(len, parts[:rank] if is_outer else parts[rank:])) >= MAX_RANK
        for is_outer in (True, False)
    }
    for index in _positions(expr):
        if is_axis(index):
            continue
        for atom in (index.inner if isinstance(index, Exact) else index).atoms():
            if not isinstance(atom, Quotient | Remainder) or len(atom.inner.terms) != 1 or atom.inner.offset:
                continue
            loop, coefficient = atom.inner.terms[0]
            if not isinstance(loop, Loop) or coefficient != 1 or loop.extent % atom.divisor:
                continue
            if not full[loop.dim < rank] and loop.extent > atom.divisor:
                yield loop, atom.divisor


def _positions(expr: Expr) -> Iterator[Index | Exact]:
    """All positions at which ``expr`` reads, those inside words of positions too."""
    for node in walk(expr):
        if isinstance(node, ReadExpr):
            for index in node.indices:
                yield index
                for atom in (index.inner if isinstance(index, Exact) else index).atoms():
                    if isinstance(atom, Word):
                        yield from _positions(atom.expr)


def with_tables(expr: Expr, make: MakeTable, tables: dict[object, Tensor]) -> Expr:
    """``expr`` with every position that no axis can express read from a table, which ``make`` stores.

    ``tables`` holds those that exist already.
    """
    done: dict[Expr, Expr] = {}
    for node in walk(expr):
        if isinstance(node, ReadExpr):
            indices = tuple(_tabled(index, make, tables) for index in node.indices)
            done[node] = node if indices == node.indices else replace(node, indices=indices)
        elif isinstance(node, Operation):
            args = tuple(done[arg] for arg in node.args)
            done[node] = node if args == node.args else replace(node, args=args)
        else:
            done[node] = node
    return done[expr]


def _tabled(index: Index | Exact, make: MakeTable, tables: dict[object, Tensor]) -> Index | Exact:
    if isinstance(index, Exact):
        if not is_axis(index):
            raise ValueError(f"an exact position must be affine in the loops: {index}")
        return index
    if len(index.terms) == 1 and isinstance(index.terms[0][0], Word) and is_axis(index):
        word = index.terms[0][0]
        inner = with_tables(word.expr, make, tables)
        return index if inner is word.expr else Index.of(Word(inner))
    if is_axis(index):
        return index
    loops = sorted(_loops(index), key=lambda loop: loop.serial)
    key = _structure(index, loops)
    table = tables.get(key) if key else None
    if table is None:
        table = make(
            [loop.extent for loop in loops], lambda *at: _word(index, dict(zip(loops, at, strict=True)))
        )
        if key:
            tables[key] = table
    return Index.of(Word(table[tuple(map(Index.of, loops))]))


def _word(index: Index, at: Mapping[Atom, Index]) -> Expr:
    return Position(DType.u32, _moved(index, at))


def _loops(index: Index) -> set[Loop]:
    """Loops on which a position depends."""
    found: set[Loop] = set()
    for atom in index.atoms():
        if isinstance(atom, Loop):
            found.add(atom)
        elif isinstance(atom, Word):
            for node in walk(atom.expr):
                if isinstance(node, Position):
                    found |= _loops(node.index)
            for inner in _positions(atom.expr):
                found |= _loops(inner.inner if isinstance(inner, Exact) else inner)
    return found


def _moved(index: Index, at: Mapping[Atom, Index]) -> Index:
    """``index`` with other positions in place of its loops."""
    total = Index((), index.offset)
    for atom, coefficient in index.terms:
        if isinstance(atom, Quotient):
            moved = _moved(atom.inner, at) // atom.divisor
        elif isinstance(atom, Remainder):
            moved = _moved(atom.inner, at) % atom.divisor
        elif isinstance(atom, Word):
            moved = Index.of(Word(_moved_expr(atom.expr, at)))
        else:
            moved = at[atom]
        total = total + moved * coefficient
    return total


def _moved_expr(expr: Expr, at: Mapping[Atom, Index]) -> Expr:
    if isinstance(expr, ReadExpr):
        indices = tuple(
            Exact(_moved(i.inner, at), i.divisor) if isinstance(i, Exact) else _moved(i, at)
            for i in expr.indices
        )
        return replace(expr, indices=indices)
    if isinstance(expr, Position):
        return replace(expr, index=_moved(expr.index, at))
    if isinstance(expr, Operation):
        return replace(expr, args=tuple(_moved_expr(arg, at) for arg in expr.args))
    return expr


def _structure(index: Index, loops: Sequence[Loop]) -> object:
    """What makes two positions over such loops the same, or None if it reads words."""
    parts: list[object] = [index.offset]
    for atom, coefficient in index.terms:
        if isinstance(atom, Loop):
            parts.append((coefficient, loops.index(atom), atom.extent))
        elif isinstance(atom, Quotient | Remainder):
            inner = _structure(atom.inner, loops)
            if inner is None:
                return None
            parts.append((coefficient, type(atom), atom.divisor, inner))
        else:
            return None
    return tuple(parts)
