"""From a state back into the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from crowdtrain import optim
from crowdtrain._training import load_into
from crowdtrain.lowering import lower
from crowdtrain_engine import DataError, State
from torch import nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.again = self.linear
        self.register_buffer("mask", torch.tensor([True, False, True]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.where(self.mask, self.norm(self.again(self.linear(x))), 0.0)
        return result


def state_of(model: nn.Module) -> State:
    def loss(output: torch.Tensor, _: Any) -> torch.Tensor:
        return output.sum()

    return lower(model, loss, optimizer=optim.AdamW(), example=(torch.ones(2, 3), ())).initial_state()


def changed(state: State, group: str, **tensors: Any) -> State:
    """The state with some tensors of a group replaced, or left out where they are None."""
    kept = {name: values for name, values in {**state[group], **tensors}.items() if values is not None}
    return State({**state, group: kept})


def test_everything_is_copied() -> None:
    torch.manual_seed(0)
    source = Model()
    source.norm.num_batches_tracked.fill_(7)
    source.norm.running_mean.uniform_()
    target = Model()
    target.mask.logical_not_()
    load_into(target, state_of(source))
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], tensor, rtol=0, atol=0)
    assert torch.equal(target.mask, source.mask)
    assert target.norm.num_batches_tracked.dtype is torch.int64


def test_the_model_does_not_share_memory_with_the_state() -> None:
    model = Model()
    state = state_of(model)
    load_into(model, state)
    with torch.no_grad():
        model.linear.weight.fill_(9.0)
    assert not (state["parameters"]["linear.weight"] == 9).any()


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "missing": ("parameters", {"linear.bias": None}, r"missing \['linear.bias'\]"),
    "unknown": ("parameters", {"other": np.zeros(3, np.float32)}, r"unknown \['other'\]"),
    "shape": (
        "parameters",
        {"linear.bias": np.zeros(4, np.float32)},
        r"parameters/linear.bias: float32 \(4,\)",
    ),
    "type": ("parameters", {"linear.bias": np.zeros(3, np.int32)}, "int32"),
    "buffer": ("buffers", {"norm.running_mean": None}, "buffers of the state and the model differ"),
    "buffer_type": (
        "buffers",
        {"norm.num_batches_tracked": np.float32(1)},
        "buffers/norm.num_batches_tracked",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(name: str) -> None:
    group, tensors, message = BAD[name]
    model = Model()
    state = changed(state_of(Model()), group, **tensors)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load_into(model, state)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_a_state_without_parameters_is_refused() -> None:
    with pytest.raises(DataError, match="no group 'parameters'"):
        load_into(Model(), State({"counters": {"step": np.uint32(0)}}))


def test_averaged_weights_go_before_parameters() -> None:
    model = Model()
    state = state_of(model)
    average = {"linear.weight": np.full((3, 3), 7, np.float32)}
    load_into(model, State({**state, "average": average}), parameters="average")
    assert (model.linear.weight == 7).all()
    np.testing.assert_array_equal(model.linear.bias.detach().numpy(), state["parameters"]["linear.bias"])
    with pytest.raises(DataError, match="no group 'average'"):
        load_into(model, state, parameters="average")
