"""A small model, its programs and the data of workers, for tests of strategies."""

from __future__ import annotations

from functools import cache

import crowdtrain as ct
import numpy as np
import torch
from crowdtrain.lowering.builder import Builder
from crowdtrain.strategies import Codec
from crowdtrain_engine import Dataset, DType, State, TensorType
from crowdtrain_engine.state import Array
from torch import nn

BATCH, SAMPLES, WIDTH = 8, 64, 6
RATE = 1e-2


def network() -> nn.Module:
    """Two layers, with batch norm between them."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDTH, 16, bias=False), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1))


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of the shapes that :func:`dataset` has."""
    return torch.zeros(BATCH, WIDTH), torch.zeros(BATCH, 1)


@cache
def training(seed: int = 0) -> ct.LoweredProgram:
    """A training step with AdamW."""
    return ct.lower(
        network(), nn.functional.mse_loss, optimizer=ct.optim.AdamW(lr=RATE), example=example(), seed=seed
    )


@cache
def gradients() -> ct.LoweredProgram:
    """The gradients of a step."""
    return ct.lower_gradients(network(), nn.functional.mse_loss, example=example())


def arrays() -> tuple[Array, Array]:
    """Inputs and targets."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((SAMPLES, WIDTH)).astype(np.float32)
    return inputs, np.sin(inputs.sum(1, keepdims=True)).astype(np.float32)


def orders(workers: int, steps: int) -> list[Array]:
    """Which samples each worker reads in each step."""
    rng = np.random.default_rng(2)
    return [
        np.stack([rng.choice(SAMPLES, BATCH, replace=False) for _ in range(steps)]) for _ in range(workers)
    ]


def datasets(workers: int, steps: int) -> list[Dataset]:
    """The data of each worker."""
    return [Dataset(*arrays(), order=order) for order in orders(workers, steps)]


def sent(codec: Codec, tensor: Array, backend: str = "native") -> Array:
    """What a receiver makes of ``tensor``."""
    b = Builder()
    kind = TensorType(DType.f32, tensor.shape)
    before, after = b.state("tensor", "tensor", kind), b.state("received", "received", kind)
    code = codec.encode(b, before, "code")
    for part, made in codec.parts(tensor.shape).items():
        assert code[part].type.fits(made)
    received = codec.decode(b, code, tensor.shape, "received")
    b.next(after, b.stored(b.pointwise(lambda x: x * 1.0 + 0.0, received, what="received")))
    program = b.finish()
    groups = {"tensor": {"tensor": tensor}, "received": {"received": np.zeros_like(tensor)}}
    if b.constants:
        groups["constants"] = dict(b.constants)
    state, _ = ct.execute(program, State(groups), Dataset.from_tensors({}), steps=1, backend=backend)
    return state["received"]["received"]
