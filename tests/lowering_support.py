"""Runs a lowered operation or model beside PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import crowdtrain.optim
import numpy as np
import torch
from crowdtrain._training import LoweredProgram
from crowdtrain.lowering import lower
from crowdtrain.random import Draws
from crowdtrain_engine import Dataset, Program, State, execute
from crowdtrain_engine.state import Array
from torch.utils._python_dispatch import TorchDispatchMode
from zoo.table import Entry

Op = Callable[..., torch.Tensor]

torch.set_num_threads(
    1
)  # tensors here are tiny, and idle threads that spin take the processor from other tests


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def floats(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(rng(seed).uniform(low, high, shape).astype(np.float32))


def integers(*shape: int, below: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(rng(seed).integers(0, below, shape))


class Operation(torch.nn.Module):
    """An operation of parameters and fixed tensors; it keeps its result in a buffer."""

    def __init__(
        self, op: Op, tensors: Sequence[torch.Tensor], shape: Sequence[int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.op = op
        self.fixed: list[str | int] = []
        self.weights = torch.nn.ParameterList()
        for i, tensor in enumerate(tensors):
            if tensor.is_floating_point():
                self.fixed.append(len(self.weights))
                self.weights.append(torch.nn.Parameter(tensor.clone()))
            else:
                self.register_buffer(f"fixed{i}", tensor.clone())
                self.fixed.append(f"fixed{i}")
        self.register_buffer("result", torch.zeros(tuple(shape), dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        arguments = [self.weights[i] if isinstance(i, int) else getattr(self, i) for i in self.fixed]
        result = self.op(*arguments)
        self.result.copy_(result.detach())
        return result


def weighted(output: torch.Tensor, _: Any) -> torch.Tensor:
    """A loss in which every element of the output counts differently."""
    if not output.is_floating_point():
        output = output.to(torch.float32)
    n = output.numel()
    return (output.reshape(-1) * torch.linspace(0.5, 1.5, n)).sum()


@dataclass(frozen=True)
class Outcome:
    program: LoweredProgram
    result: Array
    gradients: list[Array]


def run(op: Op, *tensors: torch.Tensor, loss: Op = weighted) -> tuple[Outcome, Outcome]:
    """The operation lowered, and in PyTorch: results, and gradients of the floating-point tensors."""
    expected = op(*tensors)
    model = Operation(op, tensors, expected.shape, expected.dtype)
    if not expected.requires_grad and not any(t.is_floating_point() for t in tensors):
        raise ValueError("nothing to differentiate")
    program = lower(model, loss, optimizer=crowdtrain.optim.SGD(lr=1.0), example=(torch.zeros(1, 1), ()))
    before = program.initial_state()
    after, _ = execute(program, before, nothing(1), steps=1, backend="reference")
    native, _ = execute(program, before, nothing(1), steps=1, backend="native", threads=1)
    assert native.root == after.root, "the native backend and the reference differ"
    ours = [before["parameters"][name] - after["parameters"][name] for name in before["parameters"]]
    loss(model(torch.zeros(1, 1)), ()).backward()
    theirs = [zero(p.grad, p).numpy() for p in model.parameters()]
    result = after["buffers"]["result"]
    return Outcome(program, result, ours), Outcome(program, model.result.numpy(), theirs)


def zero(gradient: torch.Tensor | None, parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


def nothing(steps: int) -> Dataset:
    """Data for models that read none."""
    return Dataset(np.zeros((1, 1), np.float32), order=np.zeros((steps, 1), np.int64))


def check(op: Op, *tensors: torch.Tensor, tolerance: float = 1e-5, loss: Op = weighted) -> Program:
    """Asserts that lowered and PyTorch's results and gradients agree; the program, which is valid."""
    ours, theirs = run(op, *tensors, loss=loss)
    np.testing.assert_allclose(
        ours.result.astype(np.float64), theirs.result.astype(np.float64), rtol=tolerance, atol=tolerance
    )
    assert len(ours.gradients) == len(theirs.gradients)
    for mine, other in zip(ours.gradients, theirs.gradients, strict=True):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance * scale)
    ours.program.bind(nothing(1).rows).validate()
    return ours.program


def check_module(module: torch.nn.Module, *tensors: torch.Tensor, tolerance: float = 1e-5) -> None:
    """As :func:`check` for one call of a module with parameters and buffers; the buffers must agree too."""
    tensors = tuple(tensor.clone() for tensor in tensors)

    class Around(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(module)
            self.inputs = torch.nn.ParameterList(tensors)

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(*self.inputs)
            return result

    model = Around().train(module.training)
    program = lower(model, weighted, optimizer=crowdtrain.optim.SGD(lr=1.0), example=(torch.zeros(1, 1), ()))
    before = program.initial_state()
    after, logs = execute(program, before, nothing(1), steps=1, backend="reference")
    value = weighted(model(torch.zeros(1, 1)), ())
    value.backward()
    np.testing.assert_allclose(logs["loss"][0], value.item(), rtol=tolerance)
    for name, parameter in model.named_parameters():
        mine = before["parameters"][name] - after["parameters"][name]
        np.testing.assert_allclose(
            mine, zero(parameter.grad, parameter).numpy(), rtol=tolerance, atol=tolerance, err_msg=name
        )
    for name, buffer in model.named_buffers():
        np.testing.assert_allclose(after["buffers"][name], buffer.numpy(), rtol=tolerance, err_msg=name)


Samples = torch.Tensor | tuple[torch.Tensor, ...]


def rows_of(samples: Samples, rows: Any) -> Any:
    """Some samples: a tensor, or a tuple of tensors."""
    return tuple(t[rows] for t in samples) if isinstance(samples, tuple) else samples[rows]


def arrays_of(samples: Samples) -> Any:
    return tuple(t.numpy() for t in samples) if isinstance(samples, tuple) else samples.numpy()


_A = torch.ops.aten
_DRAWN: Mapping[Any, Callable[..., Array]] = {
    _A.bernoulli.default: lambda d, p: d.uniform(p.shape) < p.numpy(),
    _A.bernoulli_.Tensor: lambda d, x, p: d.uniform(x.shape) < p.numpy(),
    _A.bernoulli_.float: lambda d, x, p: d.bernoulli(x.shape, p),
    _A.exponential_.default: lambda d, x, rate=1.0: d.exponential(x.shape, rate),
    _A.normal.Tensor_Tensor: lambda d, mean, std: d.normal(mean.shape) * std.numpy() + mean.numpy(),
    _A.normal.Tensor_float: lambda d, mean, std=1.0: d.normal(mean.shape) * std + mean.numpy(),
    _A.normal.float_Tensor: lambda d, mean, std: d.normal(std.shape) * std.numpy() + mean,
    _A.normal.float_float: lambda d, mean, std, shape: d.normal(shape, mean, std),
    _A.normal_.default: lambda d, x, mean=0.0, std=1.0: d.normal(x.shape, mean, std),
    _A.rand.default: lambda d, shape: d.uniform(shape),
    _A.rand_like.default: lambda d, x: d.uniform(x.shape),
    _A.randint.default: lambda d, high, shape: d.integers(shape, 0, high),
    _A.randint.low: lambda d, low, high, shape: d.integers(shape, low, high),
    _A.randint_like.default: lambda d, x, high: d.integers(x.shape, 0, high),
    _A.randn.default: lambda d, shape: d.normal(shape),
    _A.randn_like.default: lambda d, x: d.normal(x.shape),
    _A.uniform_.default: lambda d, x, low=0.0, high=1.0: d.uniform(x.shape, low, high),
}


class DrawnByProgram(TorchDispatchMode):
    """Lets eager PyTorch draw the random numbers of a program's step; all of them, in order."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self._draws = draws

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _DRAWN:
            return result
        drawn = _DRAWN[func](self._draws, *args)
        with torch.no_grad():
            return result.copy_(torch.from_numpy(np.ascontiguousarray(drawn)))


def train_both(
    model: torch.nn.Module,
    loss: Op,
    optimizer: crowdtrain.optim.Optimizer,
    torch_optimizer: Callable[[Any], torch.optim.Optimizer],
    inputs: Samples,
    targets: Samples,
    *,
    steps: int,
    batch: int,
    backend: str = "native",
) -> tuple[LoweredProgram, State, Array, Array]:
    """Trains ``model`` lowered, and then itself eagerly, on the same batches with the same random numbers: losses of
    both.
    """
    count = len(inputs[0] if isinstance(inputs, tuple) else inputs)
    order = np.stack([rng(step).permutation(count)[:batch] for step in range(steps)])
    some = slice(batch)
    program = lower(model, loss, optimizer=optimizer, example=(rows_of(inputs, some), rows_of(targets, some)))
    data = Dataset(arrays_of(inputs), arrays_of(targets), order=order)
    state, logs = execute(program, program.initial_state(), data, steps=steps, backend=backend)
    eager = torch_optimizer(model.parameters())
    losses = []
    for step, rows in enumerate(order):
        eager.zero_grad()
        arguments = rows_of(inputs, rows)
        with DrawnByProgram(Draws(0, step, program.draws)):
            output = model(*arguments) if isinstance(arguments, tuple) else model(arguments)
            value = loss(output, rows_of(targets, rows))
        value.backward()
        eager.step()
        losses.append(value.item())
    return program, state, logs["loss"], np.array(losses)


def check_losses(entry: Entry) -> None:
    """A model of the zoo trains as eager PyTorch trains it: same weights and batches, 100 steps, same losses."""
    inputs, targets = entry.samples(3 * entry.batch)
    _, _, losses, expected = train_both(
        entry.make(), entry.loss, crowdtrain.optim.AdamW(lr=1e-3), lambda p: torch.optim.AdamW(p, lr=1e-3),
        inputs, targets, steps=100, batch=entry.batch,
    )  # fmt: skip
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert np.ptp(losses) > 0
