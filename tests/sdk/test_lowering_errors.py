"""What cannot be lowered is refused with a typed error that names operation, module and the user's line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import crowdtrain.optim
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain._errors import CrowdtrainError
from crowdtrain.lowering import DataDependent, LoweringError, UnsupportedModel, UnsupportedOperation, lower
from crowdtrain_engine import Dataset, execute
from torch import nn

Op = Callable[[torch.Tensor], torch.Tensor]


class Inner(nn.Module):
    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.scale
        return self.op(x)


class Outer(nn.Module):
    def __init__(self, op: Op) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), Inner(op)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def total(output: torch.Tensor, _: Any) -> torch.Tensor:
    return output.float().sum()


def lower_it(model: nn.Module, loss: Any = total, example: Any = None) -> Any:
    example = (torch.ones(2, 3), ()) if example is None else example
    return lower(model, loss, optimizer=crowdtrain.optim.SGD(), example=example)


def line_of(function: Callable[..., Any], text: str) -> str:
    lines, first = inspect.getsourcelines(function)
    (number,) = [first + i for i, line in enumerate(lines) if text in line]
    return f"{__file__}:{number}: "


def unsupported(x: torch.Tensor) -> torch.Tensor:
    y = x + 1
    return torch.linalg.inv(y @ y.T)


def test_an_unsupported_operation_names_itself_its_module_and_line() -> None:
    with pytest.raises(UnsupportedOperation) as caught:
        lower_it(Outer(unsupported))
    error = caught.value
    assert error.operation == "aten.linalg_inv_ex.default"
    assert error.module == "blocks.1"
    assert error.source.startswith(line_of(unsupported, "linalg.inv"))
    assert error.source.endswith("return torch.linalg.inv(y @ y.T)")
    for part in (error.operation, "'blocks.1'", error.source):
        assert part in str(error)
    assert isinstance(error, LoweringError)
    assert isinstance(error, CrowdtrainError)


def forward_only(x: torch.Tensor) -> torch.Tensor:
    return torch.lgamma(x)


def test_a_gradient_that_cannot_be_lowered_names_the_forward_line() -> None:
    from crowdtrain.lowering.table import TABLE

    def silent(b: Any, x: Any, *_: Any) -> Any:
        return x

    added = {"aten.lgamma.default": silent}
    assert not set(added) & set(TABLE)
    TABLE.update(added)
    try:
        with pytest.raises(UnsupportedOperation, match=r"in the gradient of module 'blocks\.1'") as caught:
            lower_it(Outer(forward_only))
    finally:
        for name in added:
            del TABLE[name]
    assert caught.value.operation == "aten.digamma.default"
    assert caught.value.source.startswith(line_of(forward_only, "lgamma"))


def test_without_a_line_of_the_users_the_call_of_lower_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.RReLU())
    with pytest.raises(UnsupportedOperation) as caught:
        lower_it(model)
    assert caught.value.module == "1"
    assert caught.value.source.startswith(f"{__file__}:")
    assert "leaky_relu" in caught.value.hint
    assert caught.value.hint in str(caught.value)


HINTS: dict[str, tuple[Op, str]] = {
    "multinomial": (lambda x: x[torch.multinomial(x.detach().abs(), 1)], "gumbel_softmax"),
    "permutation": (lambda x: x[torch.randperm(len(x))], "argsort"),
    "double": (lambda x: x.double() * 2, "float32"),
    "half": (lambda x: x.half() * 2, "float32"),
    "selection": (lambda x: x[x > 0], "torch.where"),
    "places": (lambda x: torch.nonzero(x).float() * x.sum(), "Keep shapes fixed"),
    "masked_assignment": (lambda x: _masked(x), "torch.where"),
    "large_number": (lambda x: x + torch.full((3,), 2**40), "32 bits"),
    "strides": (lambda x: x.as_strided((2, 2), (1, 1)), "permute"),
    "inverse": (lambda x: torch.linalg.inv(x @ x.T), "iteration made of products"),
    "factors": (lambda x: torch.linalg.cholesky(x @ x.T), "iteration made of products"),
    "spectrum": (lambda x: torch.fft.rfft(x).abs(), "cosines"),
    "bags": (lambda x: F.embedding_bag(torch.zeros(1, 2, dtype=torch.long), x), "each bag"),
    "distances": (F.pdist, "above the diagonal"),
    "grid": (
        lambda x: F.grid_sample(x.reshape(1, 1, 2, 3), torch.zeros(1, 1, 1, 2), align_corners=False),
        "interpolate",
    ),
    "margins": (lambda x: F.multi_margin_loss(x, torch.zeros(2, dtype=torch.long)), "gather and clamp"),
}


def _masked(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y[x > 0] = x[0, :1].expand(1)[0]
    return y


@pytest.mark.parametrize("name", HINTS)
def test_what_to_use_instead_is_said(name: str) -> None:
    op, hint = HINTS[name]
    with pytest.raises(UnsupportedOperation, match=hint):
        lower_it(Outer(op))


def branch(x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:
        return x
    return -x


READS: dict[str, Op] = {
    "branch": branch,
    "item": lambda x: x * x.sum().item(),
    "float": lambda x: x * float(x[0, 0]),
    "int": lambda x: x[:, : int(x[0, 0])],
    "list": lambda x: x * x.tolist()[0][0],
    "numpy": lambda x: x * float(x.detach().numpy()[0, 0]),
    "while": lambda x: x * 2 if (x > 0).all() else x,
    "constant_until_changed": lambda x: x * 2 if torch.zeros(3).add_(x.detach()[0]).sum() > 0 else x,
    "constant_changed_elsewhere": lambda x: _changed_elsewhere(x),
    "random": lambda x: x * 2 if torch.rand(3).sum() > 0 else x,
    "inside_of_pytorch": lambda x: F.gaussian_nll_loss(x, x, x.abs() + 1) * x,
    "equal": lambda x: x * 2 if torch.equal(x, x + 1) else x,
}


def _changed_elsewhere(x: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros(2, 3)
    zeros[0].copy_(x.detach()[0])
    return x * 2 if zeros.sum() > 0 else x


@pytest.mark.parametrize("name", READS)
def test_python_that_reads_values_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(DataDependent, match=r"before it sees any data.*torch\.where") as caught:
        lower_it(Outer(READS[name]))
    assert caught.value.module == "blocks.1"
    assert caught.value.source.startswith(__file__)


def test_the_line_of_a_branch_is_named() -> None:
    with pytest.raises(DataDependent) as caught:
        lower_it(Outer(branch))
    assert caught.value.source.startswith(line_of(branch, "if x.sum()"))


def test_fixed_numbers_may_be_read() -> None:
    counts = torch.tensor([2, 3])
    program = lower_it(Outer(lambda x: x * counts.tolist()[0]))
    program.bind((2, 1)).validate()


def test_python_may_branch_on_what_follows_from_constants() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        mask = torch.full((3, 3), 2.0).triu(1)
        mask[0] += 1
        if mask.sum() == 9.0 and bool((mask == mask.clone()).all()):
            return x * int(mask[0, 1])
        return torch.linalg.inv(x)

    program = lower_it(Outer(masked))
    data = Dataset(np.ones((2, 3), np.float32), (), order=np.array([[0, 1]]))
    _, logs = execute(program, program.initial_state(), data, steps=1, backend="reference")
    assert logs["loss"] == [18.0]


def _parameter(value: torch.Tensor) -> nn.Module:
    model = Inner(torch.relu)
    model.extra = nn.Parameter(value, requires_grad=value.is_floating_point())
    return model


def _buffer(value: torch.Tensor) -> nn.Module:
    model = Inner(torch.relu)
    model.register_buffer("extra", value)
    return model


MODELS: dict[str, tuple[nn.Module, str]] = {
    "double": (_parameter(torch.ones(2, dtype=torch.float64)), "parameter extra is torch.float64"),
    "integer": (_parameter(torch.ones(2, dtype=torch.int64)), "parameter extra is torch.int64"),
    "empty": (_parameter(torch.ones(0, 3)), "parameter extra has no elements"),
    "meta": (_parameter(torch.ones(2, device="meta")), "parameter extra must be a dense tensor"),
    "byte_buffer": (_buffer(torch.ones(2, dtype=torch.uint8)), "buffer extra is torch.uint8"),
    "large_buffer": (_buffer(torch.tensor([2**40])), "beyond 32 bits"),
    "empty_buffer": (_buffer(torch.ones(0)), "buffer extra has no elements"),
    "frozen": (Inner(torch.relu).requires_grad_(False), "nothing to train"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_no_program_can_hold(name: str) -> None:
    model, message = MODELS[name]
    with pytest.raises(UnsupportedModel, match=message):
        lower_it(model)


LOSSES: dict[str, tuple[Any, str]] = {
    "vector": (lambda o, y: o.sum(1), r"it is torch.float32 \(2,\); reduce it"),
    "integer": (lambda o, y: o.sum().long(), "it is torch.int64"),
    "number": (lambda o, y: 3.0, "it is float"),
    "detached": (lambda o, y: o.detach().sum(), "nothing to train"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_are_no_single_number(name: str) -> None:
    loss, message = LOSSES[name]
    with pytest.raises(UnsupportedModel, match=message):
        lower_it(Inner(torch.relu), loss)


def test_a_loss_with_weights_of_its_own() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, output: torch.Tensor, _: Any) -> torch.Tensor:
            return output.sum() * self.scale

    with pytest.raises(UnsupportedModel, match=r"no parameter of the model.*'loss'"):
        lower_it(Inner(torch.relu), Scaled())


def test_names_that_cannot_be_labels() -> None:
    model = Inner(torch.relu)
    model.register_parameter("a\nb", nn.Parameter(torch.ones(2)))
    with pytest.raises(LoweringError, match="printable"):
        lower_it(model)


def test_lowering_inside_no_grad_and_from_read_only_arrays() -> None:
    array = np.ones((2, 3), np.float32)
    array.flags.writeable = False
    with torch.no_grad():
        assert lower_it(Inner(torch.relu), example=(array, ())).nests


EXAMPLES: dict[str, tuple[Any, str]] = {
    "lengths": ((torch.ones(2, 3), torch.ones(3)), "one first dimension"),
    "scalar": ((torch.ones(2, 3), torch.tensor(1.0)), "one first dimension"),
    "nothing": (((), ()), "one first dimension"),
    "empty": ((torch.ones(0, 3), ()), "has no elements"),
    "bytes": ((np.ones((2, 3), np.uint8), ()), "inputs is torch.uint8"),
    "words": ((["a", "b"], ()), "must be tensors or arrays"),
    "one": (torch.ones(1, 2, 3), "a pair"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_that_are_no_batch(name: str) -> None:
    example, message = EXAMPLES[name]
    with pytest.raises(UnsupportedModel, match=message):
        lower_it(Inner(torch.relu), example=example)


def test_a_mistake_in_the_model_stays_pytorchs_error_and_says_where() -> None:
    with pytest.raises(RuntimeError, match="same reduction dim") as caught:
        lower_it(Outer(lambda x: F.linear(x, x.new_ones(2, 4))))
    (note,) = caught.value.__notes__
    assert "blocks.1" in note
    assert __file__ in note


def test_what_pytorch_has_no_gradient_of_is_named() -> None:
    with pytest.raises(UnsupportedOperation, match=r"_unique2.* in the gradient of module 'blocks\.1'"):
        lower_it(Outer(lambda x: torch.unique(x) * x.sum()))


class InPlace(nn.Module):
    def __init__(self, target: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.counts = torch.zeros(3)
        self.target = target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            getattr(self, self.target).add_(1)
        return x * self.weight * self.counts


@pytest.mark.parametrize("target", ["weight", "counts"])
def test_operations_in_place_on_what_is_no_buffer(target: str) -> None:
    with pytest.raises(LoweringError, match=r"buffer"):
        lower_it(InPlace(target))


class Shared(nn.Module):
    """One module under two names, and one weight in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.first
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.again(self.second(self.first(x))))
        return result


@pytest.mark.parametrize("fails", [True, False])
def test_lowering_leaves_the_model_as_it_was(fails: bool) -> None:
    model = Shared()
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    if fails:
        with pytest.raises(UnsupportedOperation):
            lower_it(nn.Sequential(model, Inner(unsupported)))
    else:
        lower_it(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[name][0]
        assert torch.equal(tensor, before[name][1])
    assert all(parameter.grad is None for parameter in model.parameters())
