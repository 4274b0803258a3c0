"""Strategies give plans that hold, compute what their papers say, and the same words on every backend."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import crowdtrain as ct
import numpy as np
import pytest
import torch
from crowdtrain import strategies
from crowdtrain.chain import INITIAL
from crowdtrain.strategies import Blueprint, Quantized, TopK
from crowdtrain.strategies.programs import regroup
from crowdtrain_engine import State
from strategies_support import RATE, arrays, datasets, example, gradients, network, orders, training
from torch import nn

ADAMW = ct.optim.AdamW(lr=RATE)
MAKERS: dict[str, Callable[[], Blueprint]] = {
    "data parallel": lambda: strategies.data_parallel(gradients(), datasets(2, 4), steps=4, optimizer=ADAMW),
    "zero": lambda: strategies.zero(gradients(), datasets(2, 4), steps=4, optimizer=ADAMW, shards=2),
    "demo": lambda: strategies.demo(gradients(), datasets(2, 4), steps=4),
    "local SGD": lambda: strategies.local_sgd(training(), datasets(3, 6), rounds=2, steps=3),
    "lo-fi": lambda: strategies.lo_fi(training(), datasets(3, 4), steps=4),
    "DiLoCo": lambda: strategies.diloco(training(), datasets(2, 36), rounds=12, steps=3),
    "DiLoCo, codes": lambda: strategies.diloco(
        training(), datasets(2, 9), rounds=3, steps=3, codec=Quantized(4), broadcast=Quantized(8)
    ),
    "sparse": lambda: strategies.sparse_loco(training(), datasets(2, 6), rounds=2, steps=3, codec=TopK(16, 1)),
    "elastic": lambda: strategies.elastic_diloco(
        training(), datasets(3, 6), rounds=2, steps=[3, 2, 1], quorum=2, codec=Quantized(8)
    ),
    "streaming": lambda: strategies.streaming_diloco(
        training(), datasets(2, 8), rounds=2, steps=4, fragments=2, codec=Quantized(4)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_every_backend_gives_the_same_words(name: str) -> None:
    blueprint = MAKERS[name]()
    native = strategies.carry_out(blueprint, threads=2)
    reference = strategies.carry_out(blueprint, backend="reference")
    assert native.state.root == reference.state.root
    ct.load_into(network(), native.state)
    assert np.isfinite(native.losses()).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_plan_has_one_root(name: str) -> None:
    assert MAKERS[name]().plan.root == MAKERS[name]().plan.root


# ------------------------------------------------------------------ beside PyTorch


def eager_steps(model: nn.Module, optimizer: torch.optim.Optimizer, order: np.ndarray) -> None:
    inputs, targets = map(torch.from_numpy, arrays())
    for samples in order:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[samples]), targets[samples]).backward()
        optimizer.step()


def assert_close(state: State, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        expected = parameter.detach().numpy()
        np.testing.assert_allclose(state["parameters"][name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
    for name, buffer in model.named_buffers():
        np.testing.assert_allclose(state["buffers"][name], buffer.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def averaged(models: list[nn.Module]) -> nn.Module:
    result = network()
    with torch.no_grad():
        for name, tensor in result.state_dict().items():
            parts = [model.state_dict()[name] for model in models]
            tensor.copy_(sum(parts) / len(parts) if tensor.is_floating_point() else parts[0])
    return result


def test_data_parallel_is_the_mean_of_gradients() -> None:
    workers, steps = 3, 6
    outcome = strategies.carry_out(
        strategies.data_parallel(gradients(), datasets(workers, steps), steps=steps, optimizer=ADAMW)
    )
    model, inputs, targets = network(), *map(torch.from_numpy, arrays())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    order = orders(workers, steps)
    for step in range(steps):
        replicas = []
        for worker in range(workers):
            replica = network()
            replica.load_state_dict(model.state_dict())
            samples = order[worker][step]
            nn.functional.mse_loss(replica(inputs[samples]), targets[samples]).backward()
            replicas.append(replica)
        for parameter, *parts in zip(*(m.parameters() for m in (model, *replicas)), strict=True):
            parameter.grad = sum(part.grad for part in parts) / workers
        model.load_state_dict(model.state_dict() | dict(averaged(replicas).named_buffers()))
        optimizer.step()
    assert_close(outcome.state, model)


def test_shards_of_the_merge_change_nothing() -> None:
    whole = strategies.carry_out(MAKERS["data parallel"]())
    shards = strategies.carry_out(MAKERS["zero"]())
    assert {k: v.tobytes() for k, v in whole.state["parameters"].items()} == {
        k: v.tobytes() for k, v in shards.state["parameters"].items()
    }


def test_the_outer_optimizer_is_what_was_measured_to_keep_most() -> None:
    mean, momentum = ct.optim.SGD(lr=1.0), ct.optim.SGD(lr=1.0, momentum=0.5, nesterov=True)
    assert [strategies.outer_optimizer(rounds) for rounds in (1, 7, 8, 20, 125)] == [mean] * 2 + [
        momentum
    ] * 3


def test_diloco_is_its_paper() -> None:
    workers, rounds, steps = 2, 3, 4
    outer = ct.optim.SGD(lr=0.7, momentum=0.9, nesterov=True)
    outcome = strategies.carry_out(
        strategies.diloco(
            training(), datasets(workers, rounds * steps), rounds=rounds, steps=steps, outer=outer
        )
    )
    shared, replicas = network(), [network() for _ in range(workers)]
    inner = [torch.optim.AdamW(replica.parameters(), lr=RATE) for replica in replicas]
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    order = orders(workers, rounds * steps)
    for round_ in range(rounds):
        for worker, replica in enumerate(replicas):
            replica.load_state_dict(shared.state_dict())
            eager_steps(replica, inner[worker], order[worker][round_ * steps : (round_ + 1) * steps])
        merged = averaged(replicas)
        for parameter, mean in zip(shared.parameters(), merged.parameters(), strict=True):
            parameter.grad = parameter.detach() - mean.detach()
        optimizer.step()
        shared.load_state_dict(shared.state_dict() | dict(merged.named_buffers()))
    assert_close(outcome.state, shared)


def test_lo_fi_is_the_mean_of_independent_runs() -> None:
    workers, steps = 3, 5
    outcome = strategies.carry_out(strategies.lo_fi(training(), datasets(workers, steps), steps=steps))
    replicas = [network() for _ in range(workers)]
    for replica, order in zip(replicas, orders(workers, steps), strict=True):
        eager_steps(replica, torch.optim.AdamW(replica.parameters(), lr=RATE), order)
    assert_close(outcome.state, averaged(replicas))


# ------------------------------------------------------------------ relations


@pytest.mark.parametrize("codec", [None, Quantized(4)])
def test_streaming_one_fragment_without_overlap_is_diloco(codec: Quantized | None) -> None:
    streaming = strategies.streaming_diloco(
        training(),
        datasets(2, 6),
        rounds=2,
        steps=3,
        fragments=1,
        overlap=False,
        codec=codec,
        broadcast=codec,
    )
    diloco = strategies.diloco(training(), datasets(2, 6), rounds=2, steps=3, codec=codec, broadcast=codec)
    assert strategies.carry_out(streaming).state.root == strategies.carry_out(diloco).state.root


def test_a_late_fragment_is_mixed() -> None:
    """With keep=1 a merge changes no worker: each then trains as if alone."""
    alone = strategies.lo_fi(training(), datasets(1, 8), steps=8)
    together = strategies.streaming_diloco(
        training(), datasets(2, 8), rounds=2, steps=4, fragments=2, overlap=True, keep=1.0
    )
    losses = strategies.carry_out(together).losses(worker=0)
    np.testing.assert_allclose(losses, strategies.carry_out(alone).losses(worker=0), rtol=1e-5)


# ------------------------------------------------------------------ elastic merges


def elastic(quorum: int, *, outer: ct.optim.Optimizer | None = None, steps: int | list[int] = 3) -> Blueprint:
    return strategies.elastic_diloco(
        training(), datasets(2, 9), rounds=3, steps=steps, quorum=quorum, outer=outer or ct.optim.SGD(lr=1.0)
    )


def encodings(blueprint: Blueprint, worker: int) -> list[int]:
    return [i for i, role in enumerate(blueprint.roles) if (role.what, role.worker) == ("encode", worker)]


def test_with_everybody_there_it_is_diloco() -> None:
    whole = strategies.diloco(training(), datasets(2, 9), rounds=3, steps=3, outer=ct.optim.SGD(lr=1.0))
    expected = strategies.carry_out(whole).state["parameters"]
    found = strategies.carry_out(elastic(2)).state["parameters"]
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-4, atol=1e-6, err_msg=name)


ROUNDS = 5


@pytest.mark.parametrize(
    "trouble",
    [
        {0: "code late"},
        {0: "round lost"},
        {2: "round lost"},
        {1: "code late", 2: "round lost"},
        {1: "round lost", 3: "code late"},
    ],
)
def test_who_comes_late_joins_the_next_merge_and_what_was_lost_is_not_made_up(
    trouble: dict[int, str],
) -> None:
    """Each change counts once; who lost a round goes on with the moments before it, and with the rows after it."""
    blueprint = strategies.elastic_diloco(
        training(), datasets(2, 3 * ROUNDS), rounds=ROUNDS, steps=3, quorum=1, outer=ct.optim.SGD(lr=1.0)
    )
    late = [i for i in encodings(blueprint, 1) if trouble.get(blueprint.roles[i].round) == "code late"]
    lost = [
        i
        for i, role in enumerate(blueprint.roles)
        if role.worker == 1 and trouble.get(role.round) == "round lost"
    ]
    found = strategies.carry_out(blueprint, late=late, lost=lost).state
    models = [network(), network()]
    inner = [torch.optim.AdamW(model.parameters(), lr=RATE) for model in models]
    order, shared = orders(2, 3 * ROUNDS), network()
    unsent, missed = [torch.zeros_like(parameter) for parameter in shared.parameters()], 0
    for round_ in range(ROUNDS):
        what = trouble.get(round_)
        moments = copy.deepcopy(inner[1].state_dict())
        changes = []
        for k, model in enumerate(models):
            model.load_state_dict(shared.state_dict())
            eager_steps(model, inner[k], order[k][round_ * 3 : round_ * 3 + 3])
            pairs = zip(shared.parameters(), model.parameters(), strict=True)
            changes.append([was.detach() - now.detach() for was, now in pairs])
        changes[1] = [change + due for change, due in zip(changes[1], unsent, strict=True)]
        if what == "code late":
            unsent, missed = changes[1], missed + 1
        elif what == "round lost":
            inner[1].load_state_dict(moments)
        else:
            unsent = [torch.zeros_like(due) for due in unsent]
        there = models[:1] if what else [*models, *[models[1]] * missed]
        buffers = dict(averaged(there).named_buffers())
        with torch.no_grad():
            for parameter, *parts in zip(shared.parameters(), *changes[: len(there)], strict=True):
                parameter -= sum(parts) / len(there)
        shared.load_state_dict(shared.state_dict() | buffers)
        missed = missed if what else 0
    assert_close(found, shared)


def test_who_has_only_trained_does_not_count_for_the_quorum() -> None:
    blueprint = strategies.elastic_diloco(training(), datasets(2, 3), rounds=1, steps=3, quorum=1)
    late = [i for i, role in enumerate(blueprint.roles) if role.what == "encode"]
    with pytest.raises(ct.PlanError, match="optional inputs"):
        strategies.carry_out(blueprint, late=late)
    strategies.carry_out(blueprint, late=late[:1])


def test_changes_count_by_their_steps() -> None:
    """A worker whose steps are a hundredth of the other's hardly moves the model."""
    blueprint = strategies.elastic_diloco(
        training(), datasets(2, 100), rounds=1, steps=[100, 1], quorum=2, outer=ct.optim.SGD(lr=1.0)
    )
    alone = strategies.carry_out(strategies.lo_fi(training(), datasets(1, 100), steps=100)).state[
        "parameters"
    ]
    found = strategies.carry_out(blueprint).state["parameters"]
    start = training().initial["parameters"]
    for name, tensor in alone.items():
        np.testing.assert_allclose(
            found[name] - start[name], (tensor - start[name]) / 1.01, atol=2e-4, err_msg=name
        )


def test_a_quorum_that_is_missed() -> None:
    blueprint = elastic(2)
    with pytest.raises(ct.PlanError, match="optional inputs"):
        strategies.carry_out(blueprint, late={encodings(blueprint, worker=0)[1]})


def test_momentum_turns_at_every_third_merge() -> None:
    """Algorithm 3 of arXiv 2401.09135, on changes that are known because the workers' data are one sample."""
    outer = strategies.DelayedNesterov(lr=0.5, momentum=0.8, every=3)
    exact = strategies.diloco(training(), datasets(1, 14), rounds=7, steps=2, outer=outer)
    merged = [i for i, role in enumerate(exact.roles) if role.what == "merge"]
    trained = [i for i, role in enumerate(exact.roles) if role.what == "train"]
    states = _outputs(exact)
    parameter = training().initial["parameters"]["3.weight"].astype(np.float64)
    momentum, gathered = np.zeros_like(parameter), np.zeros_like(parameter)
    place = list(training().initial["parameters"]).index("3.weight")
    for turn, (train, merge) in enumerate(zip(trained, merged, strict=True)):
        change = parameter - states[train]["parameters"][place]
        gathered = gathered + change
        if (turn + 1) % 3 == 0:
            momentum = 0.8 * momentum + gathered / 3
            parameter = parameter - 0.5 * (0.8 * momentum + change / 3)
            gathered = np.zeros_like(parameter)
        else:
            parameter = parameter - 0.5 * change / 3
        np.testing.assert_allclose(states[merge]["parameters"][place], parameter, rtol=1e-4, atol=1e-6)
        parameter = states[merge]["parameters"][place].astype(np.float64)


def _outputs(blueprint: Blueprint) -> list[dict[str, list[np.ndarray]]]:
    """Output groups of every segment."""
    outputs: list[dict[str, list[np.ndarray]]] = []
    for index, spec in enumerate(blueprint.plan.segments):
        program = blueprint.program(index)
        groups = [
            list(list(blueprint.initial.values())[source.group].values())
            if source.segment == INITIAL
            else list(outputs[source.segment].values())[source.group]
            for source in spec.inputs
        ]
        state = State.from_tensors(program, [tensor for group in groups for tensor in group])
        after, _ = ct.execute(program, state, blueprint.dataset(index), steps=spec.steps)
        outputs.append({name: list(group.values()) for name, group in after.items()})
    return outputs


# ------------------------------------------------------------------ codes


def test_what_codes_lose_is_sent_later() -> None:
    """With error feedback, sparse changes add up to nearly what exact ones do; without it they do not."""
    exact = strategies.diloco(training(), datasets(1, 40), rounds=20, steps=2, outer=ct.optim.SGD(lr=1.0))
    target = strategies.carry_out(exact).state["parameters"]

    def distance(decay: float) -> float:
        made = strategies.diloco(
            training(), datasets(1, 40), rounds=20, steps=2, outer=ct.optim.SGD(lr=1.0),
            codec=TopK(16, 2, Quantized(8, 16)), decay=decay,
        )  # fmt: skip
        found = strategies.carry_out(made).state["parameters"]
        return float(sum(np.square(found[name] - target[name]).sum() for name in target))

    assert distance(1.0) < 0.8 * distance(0.0)


def test_moves_are_signs_of_what_all_sent() -> None:
    start = network().state_dict()
    moved = strategies.carry_out(strategies.demo(gradients(), datasets(2, 1), steps=1, lr=0.5)).state[
        "parameters"
    ]
    for name, tensor in moved.items():
        steps = np.unique(np.abs(tensor - start[name].numpy()).round(4))
        assert set(steps) <= {np.float32(0.0), np.float32(0.5)}, name


def test_regrouping_changes_no_word() -> None:
    program = training()
    names = list(program.initial["parameters"])
    groups = {
        "second": [("parameters", name) for name in names[2:]],
        "all else": [(group, name) for group in list(program.initial)[1:] for name in program.initial[group]],
        "first": [("parameters", name) for name in names[:2]],
    }
    regrouped = regroup(program, groups)
    (data,) = datasets(1, 3)
    before, _ = ct.execute(program, program.initial_state(), data, steps=3)
    start = State.from_tensors(
        regrouped, [program.initial[group][name] for tensors in groups.values() for group, name in tensors]
    )
    after, _ = ct.execute(regrouped, start, data, steps=3)
    for name in names[2:]:
        assert after["second"][name].tobytes() == before["parameters"][name].tobytes()
    for name in names[:2]:
        assert after["first"][name].tobytes() == before["parameters"][name].tobytes()


# ------------------------------------------------------------------ plans


def test_what_does_not_change_does_not_travel() -> None:
    model = network()
    model[0].requires_grad_(False)
    example = torch.zeros(8, 6), torch.zeros(8, 1)
    program = ct.lower(model, nn.functional.mse_loss, optimizer=ADAMW, example=example)
    blueprint = strategies.diloco(program, datasets(2, 4), rounds=2, steps=2)
    assert set(blueprint.initial["frozen"]) == {"0.weight"}
    frozen = list(blueprint.initial).index("frozen")
    sources = [s for spec in blueprint.plan.segments for s in spec.inputs if s.segment == INITIAL]
    assert any(source.group == frozen for source in sources)
    state = strategies.carry_out(blueprint).state
    assert state["parameters"]["0.weight"].tobytes() == model[0].weight.detach().numpy().tobytes()
    ct.load_into(model, state)


@pytest.mark.parametrize("price", [0, 1, 12345])
def test_the_price_is_shared_out_by_work(price: int) -> None:
    blueprint = strategies.diloco(training(), datasets(2, 6), rounds=2, steps=3, price=price)
    assert blueprint.plan.price == price
    by_role: dict[str, int] = {}
    for spec, role in zip(blueprint.plan.segments, blueprint.roles, strict=True):
        by_role[role.what] = by_role.get(role.what, 0) + spec.price
    assert price < 100 or by_role["train"] > 5 * by_role["merge"]


def test_training_begins_at_a_given_state() -> None:
    first = strategies.carry_out(strategies.lo_fi(training(), datasets(2, 3), steps=3)).state
    blueprint = strategies.lo_fi(training(), datasets(2, 3), steps=1, state=first)
    begun = blueprint.initial["parameters"]
    assert all(begun[name].tobytes() == tensor.tobytes() for name, tensor in first["parameters"].items())


def streamed(steps: int, fragments: int) -> Blueprint:
    return strategies.streaming_diloco(
        training(), datasets(1, steps), rounds=1, steps=steps, fragments=fragments
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strategies.diloco(training(), [], rounds=1, steps=1), "at least one worker"),
        (lambda: strategies.diloco(training(), datasets(1, 1), rounds=0, steps=1), "rounds must be at least 1"),
        (lambda: elastic(3), "a quorum of 3"),
        (lambda: elastic(1, steps=[1]), "steps of 1"),
        (lambda: streamed(steps=3, fragments=2), "equal parts"),
        (lambda: streamed(steps=99, fragments=99), "cannot be cut"),
        (lambda: strategies.data_parallel(training(), datasets(1, 1), steps=1, optimizer=ADAMW), "lower_gradients"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be(make: Callable[[], Blueprint], message: str) -> None:
    with pytest.raises(ct.PlanError, match=message):
        make()


def test_an_interval_of_nothing_is_refused() -> None:
    draft = strategies.Draft()
    program, (data,) = training(), datasets(1, 2)
    inputs = {group: draft.begin(group, tensors) for group, tensors in program.initial_state().items()}
    draft.add(program, data, inputs, role=strategies.Role("train"), steps=2, interval=0)
    with pytest.raises(ct.PlanError, match="interval must be 1 to 256, not 0"):
        draft.finish([])


# ------------------------------------------------------------------ the page


def test_the_first_example_of_the_page_trains() -> None:
    """As it stands, but for shorter rounds."""
    page = (Path(__file__).parents[2] / "docs" / "STRATEGIES.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert "rounds=40, steps=25" in code
    model = network()
    before = copy.deepcopy(model.state_dict())
    names = {
        "ct": ct, "strategies": strategies, "model": model, "loss": nn.functional.mse_loss, "batch": example(),
        "data": datasets(2, 4),
    }  # fmt: skip
    exec(code.replace("rounds=40, steps=25", "rounds=2, steps=2"), names)
    assert not torch.equal(model.state_dict()["3.weight"], before["3.weight"])
    for name, tensor in names["outcome"].state["parameters"].items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), tensor)
