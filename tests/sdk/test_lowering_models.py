"""Lowered models train as PyTorch trains them: same weights, same batches, same losses."""

from __future__ import annotations

from collections.abc import Callable

import crowdtrain.optim as ours
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain.lowering import lower
from crowdtrain_engine import Dataset, execute
from lowering_support import floats, integers, train_both
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class ConvNet(nn.Module):
    """Convolutions, batch norm, both poolings, a linear head after flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 2 * 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 1)
        result: torch.Tensor = self.head(x.flatten(1))
        return result


def test_convolutional_network_with_batch_norm() -> None:
    torch.manual_seed(2)
    model = ConvNet()
    program, state, losses, expected = train_both(
        model,
        F.cross_entropy,
        ours.AdamW(lr=5e-3),
        lambda p: torch.optim.AdamW(p, lr=5e-3),
        floats(24, 1, 8, 8),
        integers(24, below=3),
        steps=20,
        batch=6,
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert len(program.state) + len(program.nests) <= 250
    for key, buffer in model.named_buffers():
        if "running_var" in key or "num_batches" in key:
            np.testing.assert_allclose(state["buffers"][key], buffer.numpy(), rtol=1e-3, err_msg=key)


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss])
def test_regression_with_frozen_shared_and_unused_parameters(loss: Loss) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(5, 5)
            self.b = nn.Linear(5, 5)
            self.b.weight = self.a.weight
            self.unused = nn.Linear(3, 3)
            self.frozen = nn.Linear(5, 2)
            self.frozen.weight.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.frozen(torch.tanh(self.b(self.a(x))) + self.a(x))
            return result

    torch.manual_seed(3)
    model = Tied()
    before = {name: tensor.detach().clone().numpy() for name, tensor in model.named_parameters()}
    _, state, losses, expected = train_both(
        model,
        loss,
        ours.Adam(lr=1e-2),
        lambda p: torch.optim.Adam(p, lr=1e-2),
        floats(30, 5),
        floats(30, 2, seed=1),
        steps=30,
        batch=10,
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert set(state["first_moment"]) == {"a.weight", "a.bias", "b.bias", "frozen.bias"}
    for name in ("unused.weight", "unused.bias", "frozen.weight"):
        np.testing.assert_array_equal(state["parameters"][name], before[name])


def test_evaluation_mode_uses_running_statistics() -> None:
    torch.manual_seed(4)
    model = ConvNet().eval()
    model.bn1.running_mean.uniform_(-0.5, 0.5)
    model.bn2.running_var.uniform_(0.5, 2)
    _, state, losses, expected = train_both(
        model,
        F.cross_entropy,
        ours.SGD(lr=0.05),
        lambda p: torch.optim.SGD(p, lr=0.05),
        floats(12, 1, 8, 8),
        integers(12, below=3),
        steps=5,
        batch=4,
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_array_equal(state["buffers"]["bn1.running_mean"], model.bn1.running_mean.numpy())


def test_several_inputs_and_targets_and_integers() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.linear = nn.Linear(4, 3)
            self.register_buffer("mask", torch.tensor([True, False, True, True]))

        def forward(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.linear(torch.where(self.mask, x, self.table(words).mean(1)))
            return result

    def loss(output: torch.Tensor, targets: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        classes, weights = targets
        return (F.cross_entropy(output, classes, reduction="none") * weights).mean()

    torch.manual_seed(5)
    model = Mixed()
    inputs, targets = (floats(9, 4), integers(9, 2, below=7)), (integers(9, below=3), floats(9, low=0))
    program = lower(
        model, loss, optimizer=ours.SGD(lr=0.1),
        example=(tuple(t[:3] for t in inputs), tuple(t[:3] for t in targets)),
    )  # fmt: skip
    assert program.labels.data == ("inputs.0", "inputs.1", "targets.0", "targets.1", "order")
    order = np.array([[0, 1, 2], [5, 3, 8], [4, 4, 6]])
    data = Dataset(tuple(t.numpy() for t in inputs), tuple(t.numpy() for t in targets), order=order)
    _, logs = execute(program, program.initial_state(), data, steps=3, backend="reference")
    eager = torch.optim.SGD(model.parameters(), lr=0.1)
    for rows, logged in zip(order, logs["loss"], strict=True):
        eager.zero_grad()
        value = loss(model(inputs[0][rows], inputs[1][rows]), (targets[0][rows], targets[1][rows]))
        value.backward()
        eager.step()
        np.testing.assert_allclose(logged, value.item(), rtol=1e-5)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(8, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.gru(self.lstm(x)[0])[0][:, -1])
        return result


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.encoder(F.pad(x, (0, 5), value=0.5)).mean(1))
        return result


@pytest.mark.parametrize("kind", [Recurrent, Attentive])
def test_layers_that_pytorch_fuses_are_taken_apart(kind: Callable[[], nn.Module]) -> None:
    torch.manual_seed(8)
    fused = torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()
    _, _, losses, expected = train_both(
        kind(), F.cross_entropy, ours.AdamW(lr=1e-2), lambda p: torch.optim.AdamW(p, lr=1e-2),
        floats(12, 4, 3), integers(12, below=3), steps=5, batch=4,
    )  # fmt: skip
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert fused == (torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled())


def test_a_buffer_that_is_replaced_in_forward_is_kept() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1)
            self.register_buffer("seen", torch.tensor(0))
            self.register_buffer("average", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + len(x)
            self.average.mul_(0.5).add_(x.mean(0))
            result: torch.Tensor = self.linear(x - self.average.detach())
            return result

    torch.manual_seed(6)
    model = Counting()
    _, state, losses, expected = train_both(
        model, F.mse_loss, ours.SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1),
        floats(9, 3), floats(9, 1, seed=1), steps=4, batch=3,
    )  # fmt: skip
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert state["buffers"]["seen"] == 12
    np.testing.assert_allclose(state["buffers"]["average"], model.average.numpy(), rtol=1e-6)


def test_a_long_run_stays_closer_to_double_precision_than_pytorch_must() -> None:
    """Batch norm and Adam amplify rounding: eager float32 itself parts from float64 here, so that is the measure."""
    torch.manual_seed(7)
    inputs, targets = floats(200, 1, 8, 8), integers(200, below=3)
    order = np.stack([np.random.default_rng(step).permutation(200)[:32] for step in range(100)])
    model = ConvNet()
    program = lower(
        model, F.cross_entropy, optimizer=ours.AdamW(lr=2e-3), example=(inputs[:32], targets[:32])
    )
    data = Dataset(inputs.numpy(), targets.numpy(), order=order)
    _, logs = execute(program, program.initial_state(), data, steps=100, backend="native")
    double, images = model.double(), inputs.double()
    optimizer = torch.optim.AdamW(double.parameters(), lr=2e-3)
    for rows, logged in zip(order, logs["loss"], strict=True):
        optimizer.zero_grad()
        value = F.cross_entropy(double(images[rows]), targets[rows])
        value.backward()
        optimizer.step()
        np.testing.assert_allclose(logged, value.item(), rtol=1e-3)
