"""Evaluation programs: forward only, metrics added up in the state, weights from a training program's state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import crowdtrain as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain.chain import INITIAL, SegmentSpec, SegmentState, Source
from crowdtrain.jobs import JobFiles, publish_job
from crowdtrain.manifest import Manifest
from crowdtrain.plan import Plan
from crowdtrain.stores import FakeStore
from crowdtrain.tensors import save_state
from crowdtrain_engine import DataError, Dataset, State, execute
from lowering_support import floats, integers
from small_jobs import Sample, open_segment
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 3)
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(F.relu(self.norm(self.body(x)) + self.shift))
        return result


def accuracy(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (output.argmax(-1) == y).to(torch.float32).mean()


def right(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (output.argmax(-1) == y).sum()


METRICS = {"loss": F.cross_entropy, "accuracy": accuracy, "right": right}
INPUTS, TARGETS = floats(48, 6), integers(48, below=3)
BATCHES = np.arange(48).reshape(6, 8)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def evaluation(model: nn.Module, metrics: Any = METRICS, **options: Any) -> Any:
    return ct.lower_evaluation(model, metrics, example=(INPUTS[:8], TARGETS[:8]), **options)


def trained() -> State:
    program = ct.lower(
        net(), F.cross_entropy, optimizer=ct.optim.AdamW(lr=1e-2), example=(INPUTS[:8], TARGETS[:8])
    )
    data = Dataset(INPUTS.numpy(), TARGETS.numpy(), order=np.tile(BATCHES, (5, 1)))
    return execute(program, program.initial_state(), data, steps=30)[0]


def run(program: Any, state: State, steps: int = 6) -> tuple[State, Any]:
    data = Dataset(INPUTS.numpy(), TARGETS.numpy(), order=BATCHES)
    return execute(program, state, data, steps=steps, backend="native")


def test_a_model_trained_by_a_program_measures_as_in_pytorch() -> None:
    weights = trained()
    program = evaluation(net())
    before = program.initial_state(weights)
    state, logs = run(program, before)
    model = net()
    ct.load_into(model, weights)
    model.eval()
    assert set(logs) == set(METRICS)
    for i, rows in enumerate(BATCHES):
        for name, metric in METRICS.items():
            expected = metric(model(INPUTS[rows]), TARGETS[rows])
            np.testing.assert_allclose(logs[name][i], expected.item(), rtol=1e-5, err_msg=name)
    for name in METRICS:
        np.testing.assert_allclose(state["totals"][name], np.sum(logs[name]), rtol=1e-6)
    assert state["counters"]["step"] == 6
    assert 0.34 < state["totals"]["accuracy"] / 6 < 1
    # nothing of the model changes, and its groups can be those that a training segment put out
    roots = dict(zip(state, state.group_roots, strict=True))
    for name, root in zip(weights, weights.group_roots, strict=True):
        if name in ("parameters", "buffers"):
            assert roots[name] == root


def test_the_models_mode_is_eval_unless_told_otherwise_and_comes_back() -> None:
    model = net()
    model.norm.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    program = evaluation(model)
    assert {name: module.training for name, module in model.named_modules()} == modes
    state, _ = run(program, program.initial_state(), 1)
    assert state["buffers"]["norm.num_batches_tracked"] == 0
    model.norm.train()
    kept = evaluation(model, keep_mode=True)
    state, logs = run(kept, kept.initial_state(), 1)
    assert state["buffers"]["norm.num_batches_tracked"] == 1
    np.testing.assert_allclose(
        logs["loss"][0], F.cross_entropy(model(INPUTS[:8]), TARGETS[:8]).item(), rtol=1e-5
    )


def test_a_transformer_is_not_taken_along_pytorchs_fast_path() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True).requires_grad_(False)
    fast = torch.backends.mha.get_fastpath_enabled()
    x = floats(8, 4, 6)
    program = ct.lower_evaluation(layer, {"mean": lambda o, _: o.square().mean()}, example=(x, ()))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    data = Dataset(x.numpy(), order=np.arange(8)[None])
    _, logs = execute(program, program.initial_state(), data, steps=1)
    np.testing.assert_allclose(logs["mean"][0], layer.eval()(x).square().mean().item(), rtol=1e-5)


def test_there_is_no_backward_pass() -> None:
    labels = evaluation(net()).labels
    assert labels.groups == ("parameters", "buffers", "totals", "counters")
    assert not [label for label in labels.nests if "gradient" in label]
    assert any(label.startswith("metric loss: ") for label in labels.nests)


def test_metrics_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(
        ct.UnsupportedModel, match=r"metric all must be a tensor of one number, it is torch\.float32"
    ):
        evaluation(net(), {"all": lambda o, _: o})
    with pytest.raises(ct.UnsupportedModel, match=r"metric n must be .* it is int"):
        evaluation(net(), {"n": lambda o, _: 3})
    with pytest.raises(ct.DataDependent, match="item"):
        evaluation(net(), {"loss": lambda o, y: F.cross_entropy(o, y).item()})
    for none in ({}, {"a": 3}):
        with pytest.raises(ct.InvalidOption, match="metrics"):
            evaluation(net(), none)


def test_weights_of_another_model_are_refused() -> None:
    other = ct.lower(
        nn.Linear(6, 3), F.cross_entropy, optimizer=ct.optim.SGD(), example=(INPUTS[:8], TARGETS[:8])
    )
    with pytest.raises(DataError, match=r"body\.weight"):
        evaluation(net()).initial_state(other.initial_state())


def test_a_segment_of_evaluation_starts_from_what_a_segment_of_training_put_out() -> None:
    order = np.tile(BATCHES, (5, 1))
    example = (INPUTS[:8], TARGETS[:8])
    training = ct.lower(net(), F.cross_entropy, optimizer=ct.optim.AdamW(lr=1e-2), example=example)
    data = Dataset(INPUTS.numpy(), TARGETS.numpy(), order=order)
    measuring, first = evaluation(net()).bind(data.rows), training.initial_state()
    empty = evaluation(net()).initial_state()
    initial = State({**first, "totals": empty["totals"], "evaluation": empty["counters"]})
    groups, own = list(first), {"totals": len(first), "counters": len(first) + 1}
    trained = [Source(INITIAL, i) for i in range(len(groups))]
    measured = [Source(INITIAL, own[g]) if g in own else Source(0, groups.index(g)) for g in empty]
    training = training.bind(data.rows)
    plan = Plan(
        tuple(
            SegmentSpec(program.root, data.root, 30, 10, 1, tuple(inputs))
            for program, inputs in ((training, trained), (measuring, measured))
        )
    )
    store = FakeStore()
    manifest = publish_job(store, plan, [training, measuring], [data], initial)
    job = Sample(store, training, data, initial, plan, manifest).job
    after, _ = execute(training, first, data, steps=30)
    output = replace(
        open_segment(0),
        state=SegmentState.COMMITTED,
        group_roots=after.group_roots,
        output_root=after.root,
        cid=save_state(store, after),
    )
    files = JobFiles(store, job, Manifest.decode(store.get(manifest, 2**20)))
    state = files.load_input(1, lambda _: output)
    assert state.root == evaluation(net()).initial_state(after).root
    result, _ = execute(files.program(1), state, files.dataset(1), steps=30)
    assert result["counters"]["step"] == 30
    assert result["totals"]["accuracy"] / 30 > 0.34
