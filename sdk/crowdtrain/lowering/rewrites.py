"""Rewrites of a traced graph that give better nests: one operation instead of many that add up or undo each other.

First, operations are replaced by simpler ones: equal operations are done once, a slice of what was put together is
taken from the part, views of views become one. Then constants that no program could compute are computed. At last, sums
of several terms, as gradients of what is used at every step of a sequence are: sums of products become one product,
sums of sums one sum, and slices put into zeros are put side by side.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from crowdtrain.lowering.table import TABLE

__all__ = ["rewrite"]

_aten = torch.ops.aten

Rule = Callable[[Graph, Node], Node | None]
"""What may stand in place of a node, or None."""


def rewrite(module: GraphModule) -> None:
    """Rewrites the graph of ``module`` in place; it computes the same but for the order of sums."""
    _simplify(module.graph)
    _compute_constants(module)
    module.graph.eliminate_dead_code()
    _join_sums(module.graph)
    module.graph.eliminate_dead_code()


_DTYPES = (torch.float32, torch.int64, torch.int32, torch.bool)


def _compute_constants(module: GraphModule) -> None:
    """What follows from constants by operations or types that no program has is computed here and now."""
    foreign: dict[Node, bool] = {}
    for node in module.graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr":
            foreign[node] = getattr(module, str(node.target)).dtype not in _DTYPES
        elif node.op == "call_function" and _is_pure(node) and all(source in foreign for source in sources):
            foreign[node] = not _is_ours(node) or any(foreign[source] for source in sources)
    values: dict[Node, Any] = {}
    for node in [node for node, is_foreign in foreign.items() if is_foreign]:
        value = node.meta.get("val")
        wanted = any(not foreign.get(user) for user in node.users)
        if wanted and isinstance(value, torch.Tensor) and value.dtype in _DTYPES:
            name = f"constant_{node.name}"
            module.register_buffer(name, _value(module, node, values))
            with module.graph.inserting_before(node):
                known = module.graph.get_attr(name)
            known.meta = dict(node.meta)
            node.replace_all_uses_with(known)


def _is_ours(node: Node) -> bool:
    """Whether an operation can be lowered, as far as its name and the types of its results say."""
    results = node.meta.get("val")
    return (node.target is operator.getitem or str(node.target) in TABLE) and all(
        not isinstance(result, torch.Tensor) or result.dtype in _DTYPES
        for result in (results if isinstance(results, list | tuple) else [results])
    )


def _value(module: GraphModule, node: Node, values: dict[Node, Any]) -> Any:
    """What a node gives that follows from constants; ``values`` are those known already."""
    if node not in values:
        if node.op == "get_attr":
            values[node] = getattr(module, str(node.target))
        else:
            target: Any = node.target
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: _value(module, n, values))
            with torch.no_grad():
                values[node] = target(*args, **kwargs)
    return values[node]


def _simplify(graph: Graph) -> None:
    known: dict[object, Node] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        while (rule := _RULES.get(node.target)) and (simpler := rule(graph, node)):
            node.replace_all_uses_with(simpler)
            graph.erase_node(node)
            node = simpler
        if _is_pure(node):
            first = known.setdefault(_key(node), node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)


def _is_pure(node: Node) -> bool:
    """Whether doing it twice gives the same twice."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.target is operator.getitem
    return not schema.is_mutable and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())


def _key(node: Node) -> object:
    def fixed(value: Any) -> object:
        if isinstance(value, list | tuple):
            return tuple(map(fixed, value))
        return value if isinstance(value, Node) else (type(value), value)

    return node.target, fixed(node.args), tuple((k, fixed(v)) for k, v in sorted(node.kwargs.items()))


def _instead(graph: Graph, node: Node, target: Any, *args: Any) -> Node:
    """Another operation that gives what ``node`` gives."""
    with graph.inserting_before(node):
        other = graph.call_function(target, args)
    other.meta = dict(node.meta)
    return other


def _call(graph: Graph, before: Node, like: Node, target: Any, *args: Any) -> Node:
    """A new operation in front of ``before``, at the place in the user's model of ``like``."""
    with graph.inserting_before(before):
        node = graph.call_function(target, args)
    node.meta = dict(like.meta)
    values = map_arg(args, lambda n: n.meta["val"])
    with like.meta["val"].fake_mode:
        node.meta["val"] = target(*values)
    return node


def _args(node: Node) -> Any:
    """Arguments of an operation, whose types follow from its schema."""
    return node.args


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _is(node: object, target: Any) -> TypeGuard[Node]:
    return isinstance(node, Node) and node.target is target


def _same(_: Graph, node: Node) -> Node | None:
    return node.args[0] if isinstance(node.args[0], Node) else None


def _permute(graph: Graph, node: Node) -> Node | None:
    source, dims = _args(node)
    rank = len(_shape(node))
    order = [d % rank for d in dims]
    if _is(source, _aten.permute.default):
        source, inner = _args(source)
        order = [inner[d] % rank for d in order]
    if order == list(range(rank)):
        return source  # type: ignore[no-any-return]
    if source is not node.args[0]:
        return _instead(graph, node, _aten.permute.default, source, order)
    return None


def _view(graph: Graph, node: Node) -> Node | None:
    source = node.args[0]
    assert isinstance(source, Node)
    if _shape(source) == _shape(node):
        return source
    if source.target in (_aten.view.default, _aten._unsafe_view.default):
        return _instead(graph, node, _aten.view.default, source.args[0], list(_shape(node)))
    if _is(source, _aten.sum.dim_IntList) and len(source.args) == 3 and source.args[2] and not source.kwargs:
        inner, dims, _ = _args(source)
        rank = len(_shape(inner))
        gone = {d % rank for d in dims}
        if _shape(node) == tuple(n for d, n in enumerate(_shape(inner)) if d not in gone):
            return _instead(graph, node, _aten.sum.dim_IntList, inner, dims)
    return None


def _part(graph: Graph, node: Node) -> Node | None:
    """A part of a split is a slice."""
    source, number = _args(node)
    if not _is(source, _aten.split_with_sizes.default):
        return None
    whole, sizes, *dim = _args(source)
    start = sum(sizes[:number])
    return _sliced(graph, node, whole, dim[0] if dim else 0, start, start + sizes[number])


def _slice(graph: Graph, node: Node) -> Node | None:
    found = _range(node)
    if found is None:
        return None
    dim, start, stop = found
    simpler = _sliced(graph, node, node.args[0], dim, start, stop)
    return None if _is(simpler, _aten.slice.Tensor) and simpler.args[0] is node.args[0] else simpler


def _range(node: Node) -> tuple[int, int, int] | None:
    """Dimension, start and stop of a slice or slice_scatter whose step is 1."""
    whole, *rest = _args(node)
    if node.target is _aten.slice_scatter.default:
        del rest[0]
    options: dict[str, Any] = {
        **dict(zip(("dim", "start", "end", "step"), rest, strict=False)),
        **node.kwargs,
    }
    start, stop, step = options.get("start"), options.get("end"), options.get("step")
    shape = _shape(whole)
    d: int = options.get("dim", 0) % len(shape)
    if step not in (None, 1):
        return None
    first, last, _ = slice(start, stop).indices(shape[d])
    return d, first, last


def _sliced(graph: Graph, node: Node, whole: Any, dim: int, start: int, stop: int) -> Node:
    """A slice with step 1, taken from the part of ``whole`` in which it lies."""
    d = dim % len(_shape(whole))
    while True:
        if start == 0 and stop == _shape(whole)[d]:
            return whole  # type: ignore[no-any-return]
        inner = _part_around(whole, d, start, stop)
        if inner is None:
            return _instead(graph, node, _aten.slice.Tensor, whole, d, start, stop)
        whole, offset = inner
        start, stop = start - offset, stop - offset


def _part_around(whole: Node, d: int, start: int, stop: int) -> tuple[Node, int] | None:
    """The tensor of which ``whole`` was put together that holds this range of it, and where it begins."""
    if whole.target is _aten.slice_scatter.default:
        found = _range(whole)
        if found is None or found[0] != d:
            return None
        _, first, last = found
        if first <= start and stop <= last:
            return _args(whole)[1], first
        if stop <= first or last <= start:
            return _args(whole)[0], 0
    elif whole.target is _aten.cat.default:
        pieces, *dim = _args(whole)
        first = 0
        if (dim[0] if dim else 0) % len(_shape(whole)) == d:
            for piece in pieces:
                if len(_shape(piece)) != len(_shape(whole)):
                    continue
                last = first + _shape(piece)[d]
                if first <= start and stop <= last:
                    return piece, first
                first = last
    return None


def _is_zero(node: object) -> bool:
    """Whether it is a view of zeros."""
    while isinstance(node, Node) and node.target in _VIEWS:
        node = node.args[0]
    return _is(node, _aten.full.default) and bool(node.args[1] == 0)


_VIEWS = (
    _aten.expand.default, _aten.permute.default, _aten.select.int, _aten.slice.Tensor, _aten.squeeze.dims,
    _aten.unsqueeze.default, _aten.view.default,
)  # fmt: skip


def _product(graph: Graph, node: Node) -> Node | None:
    """A product with zeros, as the first step of a recurrent layer has it, is zero."""
    if any(map(_is_zero, node.args)):
        return _instead(graph, node, _aten.full.default, list(_shape(node)), 0.0)
    return None


def _biased_product(graph: Graph, node: Node) -> Node | None:
    if node.kwargs or not any(map(_is_zero, node.args[1:])):
        return None
    return _instead(graph, node, _aten.expand.default, node.args[0], list(_shape(node)))


def _select_backward(graph: Graph, node: Node) -> Node | None:
    gradient, sizes, dim, index = _args(node)
    zeros = _call(graph, node, node, _aten.full.default, list(sizes), 0.0)
    return _instead(graph, node, _aten.select_scatter.default, zeros, gradient, dim, index)


def _select_scatter(graph: Graph, node: Node) -> Node | None:
    whole, source, dim, index = _args(node)
    d = dim % len(_shape(whole))
    row = _call(graph, node, node, _aten.unsqueeze.default, source, d)
    at = index % _shape(whole)[d]
    return _instead(graph, node, _aten.slice_scatter.default, whole, row, d, at, at + 1)


def _slice_backward(graph: Graph, node: Node) -> Node | None:
    gradient, sizes, dim, start, end, step = _args(node)
    zeros = _call(graph, node, node, _aten.full.default, list(sizes), 0.0)
    return _instead(graph, node, _aten.slice_scatter.default, zeros, gradient, dim, start, end, step)


_RULES: dict[Any, Rule] = {
    _aten.select_backward.default: _select_backward,
    _aten.select_scatter.default: _select_scatter,
    _aten.slice_backward.default: _slice_backward,
    _aten.addmm.default: _biased_product,
    _aten.bmm.default: _product,
    _aten.mm.default: _product,
    _aten.alias.default: _same,
    _aten.clone.default: _same,
    _aten.detach.default: _same,
    _aten.permute.default: _permute,
    _aten.slice.Tensor: _slice,
    _aten._unsafe_view.default: _view,
    _aten.view.default: _view,
    operator.getitem: _part,
}


def _join_sums(graph: Graph) -> None:
    """Each sum of several terms, with as few terms as the rules make of them."""
    for root in [node for node in graph.nodes if _is_sum(node) and not _is_term(node)]:
        terms = list(_terms(root))
        user = min(root.users, default=None)
        if len(terms) < _LEAST_TERMS or user is None:
            continue
        joined = [term for term in terms if not _is_zero(term)]
        for join in (_join_products, _join_reductions, _join_slices):
            joined = join(graph, user, joined)
        if len(joined) < len(terms):
            total = joined[0] if joined else terms[0]
            for term in joined[1:]:
                total = _call(graph, user, root, _aten.add.Tensor, total, term)
            root.replace_all_uses_with(total)


_LEAST_TERMS = 3


def _is_sum(node: Node) -> bool:
    return (
        node.target is _aten.add.Tensor
        and not node.kwargs
        and all(isinstance(arg, Node) and _shape(arg) == _shape(node) for arg in node.args)
        and node.meta["val"].dtype is torch.float32
    )


def _is_term(node: Node) -> bool:
    """Whether it is only part of a longer sum."""
    return len(node.users) == 1 and _is_sum(next(iter(node.users)))


def _terms(node: Node) -> Iterator[Node]:
    """What is added up, in the order of the graph's additions."""
    stack = [node]
    while stack:
        term = stack.pop()
        if term is node or (_is_sum(term) and _is_term(term)):
            stack += reversed(_args(term))
        else:
            yield term


def _join_products(graph: Graph, user: Node, terms: list[Node]) -> list[Node]:
    """A sum of x · y as one product of all x side by side and all y below one another, where that is less to read and
    write than the products apart.
    """
    products = [term for term in terms if term.target is _aten.mm.default and len(term.users) == 1]
    if len(products) < _LEAST_TERMS:
        return terms
    pairs: list[tuple[Node, Node]] = [_args(product) for product in products]
    operands = sum(operator.mul(*_shape(x)) + operator.mul(*_shape(y)) for x, y in pairs)
    if operands > (len(products) - 1) * operator.mul(*_shape(products[0])):
        return terms
    lefts, rights = [_transposed(x) for x, _ in pairs], [y for _, y in pairs]
    order = _order(graph, user, lefts) or _order(graph, user, rights) or range(len(pairs))
    pairs = [pairs[i] for i in order]
    left = _beside(graph, user, products[0], [x for x, _ in pairs], 1)
    right = _beside(graph, user, products[0], [y for _, y in pairs], 0)
    product = _call(graph, user, products[0], _aten.mm.default, left, right)
    return [product, *(term for term in terms if term not in products)]


def _transposed(node: Node) -> Node:
    """What a transposed matrix is the transpose of; other nodes themselves."""
    return _args(node)[0] if _is(node, _aten.permute.default) else node


def _beside(graph: Graph, user: Node, like: Node, pieces: Sequence[Node], dim: int) -> Node:
    """Matrices joined along ``dim``; transposed ones are joined as they are stored."""
    if all(_is(piece, _aten.permute.default) for piece in pieces):
        joined = _joined(graph, user, like, [_transposed(piece) for piece in pieces], 1 - dim)
        return _call(graph, user, like, _aten.permute.default, joined, [1, 0])
    return _joined(graph, user, like, pieces, dim)


def _cats(graph: Graph, user: Node, dim: int) -> Iterator[Node]:
    """Concatenations along ``dim`` in front of ``user``."""
    for node in graph.find_nodes(op="call_function", target=_aten.cat.default):
        _, *at = _args(node)
        if node < user and (at[0] if at else 0) % len(_shape(node)) == dim:
            yield node


def _order(graph: Graph, user: Node, pieces: Sequence[Node]) -> list[int] | None:
    """The order in which rows stand next to one another in an existing tensor, if there is one."""
    parts = [_source(piece) for piece in pieces]
    if all(part is not None and part[:2] == parts[0][:2] for part in parts):  # type: ignore[index]
        return sorted(range(len(parts)), key=lambda i: parts[i][2])  # type: ignore[index]
    return _order_of_cat(graph, user, pieces)


def _source(piece: Node) -> tuple[Node, int, int] | None:
    """Of a slice or selection: the whole, the dimension, and where it begins."""
    if piece.target is _aten.slice.Tensor:
        found = _range(piece)
        return None if found is None else (_args(piece)[0], *found[:2])
    if piece.target is _aten.select.int:
        whole, dim, index = _args(piece)
        shape = _shape(whole)
        return whole, dim % len(shape), index % shape[dim]
    return None


def _order_of_cat(graph: Graph, user: Node, pieces: Sequence[Node]) -> list[int] | None:
    """The order in which ``pieces`` stand next to one another in an existing concatenation of rows."""
    numbers = {piece: i for i, piece in enumerate(pieces)}
    for cat in _cats(graph, user, 0):
        found = [numbers[piece] for piece in _args(cat)[0] if piece in numbers]
        if len(found) == len(pieces) == len(numbers):
            return found
    return None


def _joined(graph: Graph, user: Node, like: Node, pieces: Sequence[Node], dim: int) -> Node:
    """The concatenation of ``pieces``, as part of an existing tensor if there is one."""
    together = _reunited(graph, user, like, pieces, dim)
    if together is not None:
        return together
    for cat in _cats(graph, user, dim):
        whole: list[Node] = list(_args(cat)[0])
        for first in (i for i, piece in enumerate(whole) if piece is pieces[0]):
            if whole[first : first + len(pieces)] == list(pieces):
                start = sum(_shape(piece)[dim] for piece in whole[:first])
                stop = start + sum(_shape(piece)[dim] for piece in pieces)
                if stop - start == _shape(cat)[dim]:
                    return cat
                return _call(graph, user, like, _aten.slice.Tensor, cat, dim, start, stop)
    return _call(graph, user, like, _aten.cat.default, list(pieces), dim)


def _reunited(graph: Graph, user: Node, like: Node, pieces: Sequence[Node], dim: int) -> Node | None:
    """Adjacent slices of one tensor, or selections from it, joined along ``dim``: a view of it."""
    parts = [_source(piece) for piece in pieces]
    whole, d, first = parts[0] or (None, 0, 0)
    target = pieces[0].target
    if whole is None or any(piece.target is not target for piece in pieces):
        return None
    step = 1 if target is _aten.select.int else _shape(pieces[0])[d]
    if parts != [(whole, d, first + i * step) for i in range(len(parts))]:
        return None
    if target is _aten.slice.Tensor:
        if d != dim or any(_shape(piece)[d] != step for piece in pieces[:-1]):
            return None
        stop = first + sum(_shape(piece)[d] for piece in pieces)
        return _call(graph, user, like, _aten.slice.Tensor, whole, d, first, stop)
    some = _call(graph, user, like, _aten.slice.Tensor, whole, d, first, first + len(parts))
    others = [e for e in range(len(_shape(whole))) if e != d]
    turned = _call(graph, user, like, _aten.permute.default, some, [*others[:dim], d, *others[dim:]])
    shape = list(_shape(pieces[0]))
    shape[dim] *= len(parts)
    return _call(graph, user, like, _aten.reshape.default, turned, shape)


def _join_reductions(graph: Graph, user: Node, terms: list[Node]) -> list[Node]:
    """Sums over the same dimensions as one sum over what they sum side by side."""
    groups: dict[tuple[tuple[int, ...], tuple[bool, ...], tuple[int, ...]], list[Node]] = {}
    for term in terms:
        if term.target is _aten.sum.dim_IntList and len(term.users) == 1 and not term.kwargs and term.args[1]:
            inner, dims, *keep = _args(term)
            first = dims[0] % len(_shape(inner))
            rest = tuple(n for d, n in enumerate(_shape(inner)) if d != first)
            groups.setdefault((tuple(dims), tuple(keep), rest), []).append(term)
    joined = []
    for (dims, keep, _), sums in groups.items():
        if len(sums) < _LEAST_TERMS:
            continue
        pieces: list[Node] = [_args(term)[0] for term in sums]
        dim = dims[0] % len(_shape(pieces[0]))
        if dim == 0:
            pieces = [pieces[i] for i in _order(graph, user, pieces) or range(len(pieces))]
        whole = _joined(graph, user, sums[0], pieces, dim)
        joined.append(_call(graph, user, sums[0], _aten.sum.dim_IntList, whole, list(dims), *keep))
        terms = [term for term in terms if term not in sums]
    return [*joined, *terms]


def _join_slices(graph: Graph, user: Node, terms: list[Node]) -> list[Node]:
    """Slices put into zeros at places of their own, put side by side."""
    groups: dict[int, list[tuple[int, int, Node]]] = {}
    for term in terms:
        found = _range(term) if term.target is _aten.slice_scatter.default else None
        if found is not None and _is_zero(term.args[0]):
            dim, start, stop = found
            groups.setdefault(dim, []).append((start, stop, term))
    joined = []
    for dim, slices in groups.items():
        slices.sort(key=lambda item: item[:2])
        overlapping = any(second[0] < first[1] for first, second in pairwise(slices))
        if len(slices) >= _LEAST_TERMS and not overlapping:
            pieces = list(_with_gaps(graph, user, dim, slices))
            joined.append(_call(graph, user, slices[0][2], _aten.cat.default, pieces, dim))
            terms = [term for term in terms if all(term is not own for _, _, own in slices)]
    return [*joined, *terms]


def _with_gaps(graph: Graph, user: Node, dim: int, slices: list[tuple[int, int, Node]]) -> Iterator[Node]:
    """The slices' sources, in order, and zeros between them, before the first and after the last."""
    like, end = slices[0][2], 0
    shape = _shape(like)

    def zeros(extent: int) -> Iterator[Node]:
        if extent > 0:
            gap = [*shape[:dim], extent, *shape[dim + 1 :]]
            yield _call(graph, user, like, _aten.full.default, gap, 0.0)

    for start, stop, term in slices:
        yield from zeros(start - end)
        yield _args(term)[1]
        end = stop
    yield from zeros(shape[dim] - end)
