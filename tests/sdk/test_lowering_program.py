"""The program that comes out: its state and data, nests and labels, and that it is the same each time."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import crowdtrain.optim as optim
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain._training import LoweredProgram
from crowdtrain.lowering import lower
from crowdtrain_engine import Dataset, DType, Mode, Program, Read, TensorType, execute
from torch import nn


class Digits(nn.Module):
    """The size of network that the demo trains."""

    def __init__(self) -> None:
        super().__init__()
        for number, (inside, outside) in enumerate([(1, 16), (16, 32), (32, 32)], start=1):
            self.add_module(f"conv{number}", nn.Conv2d(inside, outside, 3, padding=1))
            self.add_module(f"bn{number}", nn.BatchNorm2d(outside))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.pool(F.relu(self.bn2(self.conv2(x))))
        x = self.pool(F.relu(self.bn3(self.conv3(x))))
        result: torch.Tensor = self.head(x.flatten(1))
        return result


def digits(batch: int = 32) -> LoweredProgram:
    torch.manual_seed(0)
    example = (torch.zeros(batch, 1, 8, 8), torch.zeros(batch, dtype=torch.int64))
    return lower(Digits(), F.cross_entropy, optimizer=optim.AdamW(lr=1e-3), example=example)


def mlp(**options: object) -> LoweredProgram:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    example = (torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64))
    return lower(model, F.cross_entropy, optimizer=optim.AdamW(lr=1e-3, **options), example=example)  # type: ignore[arg-type]


def test_the_demos_network_is_a_small_program() -> None:
    program = digits().bind((1437, 1437, 120))
    program.validate()
    assert len(program.state) + len(program.nests) <= 250
    assert len(program.encode()) < 40_000


def test_state_groups_and_their_first_values() -> None:
    program = digits(4)
    state = program.initial_state()
    assert tuple(state) == ("parameters", "buffers", "first_moment", "second_moment", "counters")
    state.check(program)
    model = Digits()
    assert set(state["parameters"]) == {name for name, _ in model.named_parameters()}
    assert set(state["first_moment"]) == set(state["second_moment"]) == set(state["parameters"])
    assert state["buffers"]["bn1.num_batches_tracked"].dtype == np.int32
    assert {name: values.dtype for name, values in state["counters"].items()} == {
        "step": np.uint32, "loss": np.float32, "bias_correction1": np.float32, "bias_correction2": np.float32,
    }  # fmt: skip
    assert not any(values.any() for values in state["second_moment"].values())


def test_the_initial_state_is_a_copy_of_the_model() -> None:
    model = nn.Linear(3, 2)
    program = lower(model, F.mse_loss, optimizer=optim.SGD(), example=(torch.ones(2, 3), torch.ones(2, 2)))
    before = model.weight.detach().numpy().copy()
    with torch.no_grad():
        model.weight.zero_()
    np.testing.assert_array_equal(program.initial_state()["parameters"]["weight"], before)


def test_data_are_open_and_read_through_step_and_order() -> None:
    program = mlp()
    assert program.labels.data == ("inputs", "targets", "order")
    assert program.data == (
        TensorType(DType.f32, (0, 6)), TensorType(DType.i32, (0,)), TensorType(DType.u32, (0, 4)),
    )  # fmt: skip
    assert program.is_open
    step, order, rows = program.nests[0].reads
    assert program.value_name(step.value) == "step"
    assert program.value_name(order.value) == "order"
    assert [axis.mode for axis in order.axes] == [Mode.GATHER, Mode.AFFINE]
    assert [axis.mode for axis in rows.axes] == [Mode.GATHER, Mode.AFFINE]


def test_the_loss_is_logged_and_kept_and_steps_are_counted() -> None:
    program = mlp()
    data = Dataset(np.ones((5, 6), np.float32), np.zeros(5, np.int64), order=np.zeros((3, 4), np.int64))
    state, logs = execute(program, program.initial_state(), data, steps=3, backend="reference")
    assert program.labels.logs == ("loss",)
    assert state["counters"]["loss"] == logs["loss"][-1]
    assert state["counters"]["step"] == 3
    np.testing.assert_allclose(state["counters"]["bias_correction1"], 1 - 0.9**3, rtol=1e-6)
    np.testing.assert_allclose(state["counters"]["bias_correction2"], 1 - 0.999**3, rtol=1e-6)


def test_a_step_beyond_the_order_reads_nothing() -> None:
    program = mlp()
    data = Dataset(np.ones((5, 6), np.float32), np.ones(5, np.int64), order=np.zeros((1, 4), np.int64))
    bound = program.bind(data.rows)
    state, _ = execute(bound, program.initial_state(), data, steps=1, backend="reference")
    from crowdtrain_engine.execution import Executor

    values = Executor(bound, state, data, backend="reference").values()
    batch = values[bound.first_nest], values[bound.first_nest + 1]
    assert not batch[0].any()
    assert not batch[1].any()


def test_labels_say_module_and_part() -> None:
    labels = digits(4).labels.nests
    for label in (
        "batch: inputs",
        "conv1: forward",
        "conv1: weight gradient",
        "conv2: input gradient",
        "conv3: bias gradient",
        "bn1: mean",
        "bn2: running variance",
        "bn3: weight gradient",
        "pool: maximum",
        "head: forward",
        "head: weight gradient",
        "head: input gradient",
        "head: bias gradient",
        "loss: log softmax",
        "counters: step",
        "optimizer: conv1.weight: first moment",
        "optimizer: head.bias: second moment",
        "optimizer: head.bias: update",
    ):
        assert label in labels
    assert not any("conv1: input gradient" in label for label in labels)


def test_transposing_and_broadcasting_make_no_nests() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 5, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            turned = self.weight.permute(2, 0, 1).unsqueeze(1).expand(2, 4, 3, 5)
            return (turned[:, 0, 1:].flip(-1).transpose(1, 2) * x.view(1, 5, 2)).exp()

    def loss(output: torch.Tensor, _: object) -> torch.Tensor:
        return output.sum()

    program = lower(Turned(), loss, optimizer=optim.SGD(), example=(torch.ones(1, 10), ()))
    assert program.labels.nests[1:3] == ("model: exp", "loss: sum")


def test_flattening_before_a_linear_layer_keeps_products_plain() -> None:
    program = digits(4)
    products = [
        nest
        for nest, label in zip(program.nests, program.labels.nests, strict=True)
        if label.startswith("head: ")
    ]
    assert {(nest.outer, nest.fold) for nest in products} >= {
        ((4, 10), (128,)), ((10, 128), (4,)), ((4, 128), (10,)),
    }  # fmt: skip


def test_an_optimizer_is_one_nest_for_each_parameter_and_slot() -> None:
    program = mlp()
    updates = [
        label for label in program.labels.nests if label.startswith("optimizer: ") and label.count(":") == 2
    ]
    assert len(updates) == 3 * 4
    assert len(set(updates)) == len(updates)


def test_tensors_in_the_code_become_constants() -> None:
    table = torch.arange(6.0).reshape(3, 2)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.linear(x + table[1]) + torch.tensor([1.0, 2.0])
            return result

    program = lower(
        Shifted(), F.mse_loss, optimizer=optim.SGD(), example=(torch.ones(2, 2), torch.ones(2, 2))
    )
    state = program.initial_state()
    assert tuple(state) == ("parameters", "counters", "constants")
    assert sorted(values.shape for values in state["constants"].values()) == [(2,), (3, 2)]
    data = Dataset(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), order=np.array([[0, 1]]))
    after, _ = execute(program, state, data, steps=1, backend="reference")
    for name, values in state["constants"].items():
        np.testing.assert_array_equal(after["constants"][name], values)


def test_encoding_and_decoding_keep_the_root() -> None:
    program = digits(4).bind((8, 8, 2))
    decoded = Program.decode(program.encode())
    assert decoded.root == program.root
    assert decoded.labels == program.labels
    assert decoded.nests == program.nests


def test_lowering_twice_gives_the_same_root() -> None:
    assert digits(4).root == digits(4).root
    assert mlp().root != mlp(weight_decay=0.5).root


@pytest.mark.parametrize("seed", ["1", "2"])
def test_other_processes_give_the_same_root(seed: str) -> None:
    root = Path(__file__).parents[2]
    folders = [root / name for name in ("engine", "sdk", "tests", "tests/sdk")]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    code = "from test_lowering_program import digits; print(digits(4).root.hex())"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == digits(4).root.hex()


def test_every_read_is_of_something_that_exists() -> None:
    program = mlp()
    for number, nest in enumerate(program.nests):
        for operand in nest.operands:
            if isinstance(operand, Read):
                assert operand.value < program.first_nest + number
                assert math.prod(operand.shape) == program.types[operand.value].size


@pytest.mark.slow
def test_a_large_model_is_lowered_in_little_time_and_memory() -> None:
    """A 12-layer, 768-wide GPT: at most 20 s, 2 GB and 5 MB."""
    code = """
import resource, time, torch
import crowdtrain as ct
from zoo.language import GPT, next_token_loss
torch.set_num_threads(1)
model, tokens = GPT(50257, 768, 12, 12, 1024), torch.zeros(4, 1024, dtype=torch.int64)
start = time.process_time()
program = ct.lower(model, next_token_loss, optimizer=ct.optim.AdamW(), example=(tokens, tokens))
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.process_time() - start, kilobytes / 1e6, len(program.encode()) / 1e6)
"""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root / f) for f in ("engine", "sdk", "tests")),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    seconds, gigabytes, megabytes = map(float, result.stdout.split())
    assert seconds < 20
    assert gigabytes < 2
    assert megabytes < 5
