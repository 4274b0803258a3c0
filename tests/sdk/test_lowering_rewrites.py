"""Rewrites of the traced graph: fewer and better nests, and the same results and gradients as PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import crowdtrain.optim as optim
import pytest
import torch
import torch.nn.functional as F
from crowdtrain.lowering import lower
from crowdtrain.lowering.rewrites import rewrite
from crowdtrain_engine import Program
from lowering_support import check, floats
from torch import nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from zoo.language import TaggingGRU, TaggingLSTM, next_token_loss

Op = Callable[..., torch.Tensor]


def count(program: Program, *parts: str) -> int:
    """Nests whose label has all of ``parts``."""
    return sum(all(part in label for part in parts) for label in program.labels.nests)


def graph_of(op: Op, *tensors: torch.Tensor) -> GraphModule:
    graph: GraphModule = make_fx(op, tracing_mode="fake")(*tensors)
    rewrite(graph)
    return graph


def operations(graph: GraphModule) -> list[str]:
    return [
        str(node.target).removeprefix("aten.") for node in graph.graph.nodes if node.op == "call_function"
    ]


def recurrent(x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """A recurrent layer as people write it by hand, over x [batch, time, features]."""
    h = torch.zeros(len(x), len(w))
    for t in range(x.shape[1]):
        h = torch.tanh(F.linear(x[:, t], w, c) + F.linear(h, u))
    return h


def test_gradients_of_a_recurrent_layer_are_one_product_for_each_weight() -> None:
    tensors = (
        floats(2, 6, 8),
        floats(16, 8, seed=1, low=-0.5, high=0.5),
        floats(16, 16, seed=2, low=-0.3, high=0.3),
        floats(16, seed=3),
    )
    program = check(recurrent, *tensors)
    steps = tensors[0].shape[1]
    gradients = [
        (nest.outer, nest.fold_length)
        for nest, label in zip(program.nests, program.labels.nests, strict=True)
        if nest.fold and "gradient" in label and nest.outer in {(16, 8), (16, 16)}
    ]
    assert sorted(gradients) == [((16, 8), 2 * steps), ((16, 16), 2 * (steps - 1))]


@pytest.mark.parametrize("kind", [TaggingLSTM, TaggingGRU])
def test_layers_of_pytorch_multiply_once_for_all_steps(kind: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(7, (2, 5))
    example = (tokens, tokens)
    program = lower(kind(7, 16, 2), next_token_loss, optimizer=optim.SGD(), example=example)
    gradients = ("weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1", "bias_hh_l0", "bias_hh_l1")
    for name in gradients:
        assert count(program, f"{name} gradient") == 1, name
    assert not count(program, "scatter", ": slice")


def test_a_slice_of_what_was_put_into_a_tensor_is_taken_from_its_source() -> None:
    def gates(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        first, second, third = y.unsafe_chunk(3, 1)
        first.sigmoid_()
        third.tanh_()
        return first * second + third * y[:, 2:4]

    program = check(gates, floats(3, 6))
    assert not count(program, "scatter")


def test_gradients_of_disjoint_slices_are_put_side_by_side() -> None:
    def pieces(x: torch.Tensor) -> torch.Tensor:
        return sum((x[:, k : k + 2].exp() * (k + 1) for k in range(1, 9, 2)), torch.zeros(()))

    program = check(pieces, floats(3, 12))
    assert count(program, "scatter") == count(program, "slice gradient") == 0
    assert sum(nest.outer == (3, 12) for nest in program.nests) <= 2


def test_stacking_copies_nothing_first() -> None:
    def stacked(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.exp(), x, x * 2], 1) * 3

    program = check(stacked, floats(4, 5))
    assert count(program, "copy") == 0
    check(lambda x: torch.stack([x, torch.zeros(4, 5), x * 2], -1), floats(4, 5))
    check(lambda x: torch.stack([x[0, 0], x[1, 1] * 2]), floats(4, 5))


def test_gradients_of_overlapping_slices_are_added() -> None:
    check(lambda x: sum((x[:, k : k + 3].exp() for k in range(5)), torch.zeros(())), floats(2, 7))


def test_sums_of_sums_of_rows() -> None:
    def rows(x: torch.Tensor, w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.cat([(x[k : k + 2] @ w + c).tanh() for k in range(0, 8, 2)]) + (w * c).sum(0)

    program = check(
        rows, floats(8, 5), floats(5, 6, seed=1), floats(6, seed=2)
    )  # 4 times 2 rows and 5 products
    assert sum(nest.outer == (6,) and nest.fold == (13,) for nest in program.nests) == 1


def test_the_same_operation_is_done_once_but_random_ones_are_not() -> None:
    def same(x: torch.Tensor) -> torch.Tensor:
        return (x.t().exp() + x.t().exp()) * (x + torch.rand(3, 3) * torch.rand(3, 3))

    found = operations(graph_of(same, torch.ones(3, 3)))
    assert found.count("exp.default") == 1
    assert found.count("rand.default") == 2


def test_numbers_of_different_types_are_different() -> None:
    graph = graph_of(lambda x: torch.full((2,), 1) + x * torch.full((2,), 1.0), torch.ones(2))
    assert operations(graph).count("full.default") == 2


def test_products_with_zeros_are_zero() -> None:
    def product(x: torch.Tensor, w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        zeros = torch.full((2, 4, 3), 0.0)
        return torch.addmm(c, zeros[0], w) + zeros[1] @ w + x

    found = operations(graph_of(product, torch.ones(4, 2), torch.ones(3, 2), torch.ones(2)))
    assert not {"mm.default", "addmm.default"} & set(found)
    check(product, floats(4, 2), floats(3, 2, seed=1), floats(2, seed=2))


def test_views_of_views_become_one() -> None:
    def turned(x: torch.Tensor) -> torch.Tensor:
        return x.permute(2, 0, 1).permute(1, 2, 0).reshape(24).view(2, 12).view(4, 6) + 1

    assert operations(graph_of(turned, torch.ones(2, 3, 4))) == ["view.default", "add.Tensor"]
