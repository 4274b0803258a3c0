"""Paths of modules: what is in common is merged over those that have it, what is not stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import crowdtrain as ct
import numpy as np
import pytest
import torch
from crowdtrain import strategies
from crowdtrain.chain import INITIAL
from crowdtrain.strategies import Blueprint, Path, Quantized, Traffic
from crowdtrain_engine import DataError
from strategies_support import RATE, WIDTH, arrays, datasets, network, orders, training
from torch import nn

ROUNDS, STEPS = 3, 2
MEAN = ct.optim.SGD(lr=1.0)
TRUNK, HEAD = ("0.*", "1.*"), "3.*"


def paths(*modules: Mapping[str, str | Sequence[str]]) -> list[Path]:
    data = datasets(len(modules), ROUNDS * STEPS)
    return [Path(training(), own, mine) for own, mine in zip(data, modules, strict=True)]


def grid() -> list[Path]:
    """Two modules on two levels each, and the four paths through them."""
    return paths(*({f"first {k // 2}": TRUNK, f"second {k % 2}": HEAD} for k in range(4)))


def planned(given: Sequence[Path], **options: object) -> Blueprint:
    return strategies.dipaco(given, rounds=ROUNDS, steps=STEPS, **options)  # type: ignore[arg-type]


def mixed(**options: object) -> Blueprint:
    made: Blueprint = strategies.mixture(
        training(), datasets(3, ROUNDS * STEPS), experts=HEAD, rounds=ROUNDS, steps=STEPS, **options  # type: ignore[arg-type]
    )  # fmt: skip
    return made


MAKERS: dict[str, Callable[[], Blueprint]] = {
    "DiPaCo": lambda: planned(grid(), outer=ct.optim.SGD(lr=0.7, momentum=0.9, nesterov=True)),
    "DiPaCo, codes": lambda: planned(grid(), codec=Quantized(4), broadcast=Quantized(8)),
    "mixture": mixed,
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_backend_gives_the_same_words(name: str) -> None:
    blueprint = MAKERS[name]()
    native = strategies.carry_out(blueprint, threads=2).state.root
    assert native == strategies.carry_out(blueprint, backend="reference").state.root
    assert blueprint.plan.root == MAKERS[name]().plan.root


# ------------------------------------------------------------------ relations


@pytest.mark.parametrize("modules", [{"all": "*"}, {"trunk": TRUNK, "head": HEAD}])
@pytest.mark.parametrize(
    "codes", [{}, {"codec": Quantized(4)}, {"codec": Quantized(4), "broadcast": Quantized(8)}]
)
def test_modules_that_all_have_in_common_are_diloco(
    modules: dict[str, str | Sequence[str]], codes: dict[str, object]
) -> None:
    outer = ct.optim.SGD(lr=0.7, momentum=0.9, nesterov=True)
    made = strategies.carry_out(planned(paths(modules, modules), outer=outer, **codes))
    diloco = strategies.diloco(
        training(), datasets(2, ROUNDS * STEPS), rounds=ROUNDS, steps=STEPS, outer=outer, **codes  # type: ignore[arg-type]
    )  # fmt: skip
    expected = strategies.carry_out(diloco)
    assert made.losses(1) == expected.losses(1)
    for k in range(2):
        mine = strategies.of_path(made.state, k)
        for group in ("parameters", "buffers"):
            assert {n: t.tobytes() for n, t in mine[group].items()} == {
                n: t.tobytes() for n, t in expected.state[group].items()
            }


def test_a_path_alone_trains_as_on_its_own() -> None:
    (own, _) = datasets(2, ROUNDS * STEPS)
    made = strategies.carry_out(planned(paths({"mine": "*"}, {"yours": "*"}))).state
    alone, _ = ct.execute(training(), training().initial_state(), own, steps=ROUNDS * STEPS)
    mine = strategies.of_path(made, 0)
    assert all(mine["parameters"][n].tobytes() == t.tobytes() for n, t in alone["parameters"].items())


def eager(firsts: Sequence[int], seconds: Sequence[int]) -> list[nn.Module]:
    """Workers with AdamW of their own; after each round a module is the mean over those with the same number."""
    inputs, targets = map(torch.from_numpy, arrays())
    models = [network() for _ in firsts]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=RATE) for model in models]
    order = orders(len(models), ROUNDS * STEPS)
    for round_ in range(ROUNDS):
        for k, model in enumerate(models):
            for samples in order[k][round_ * STEPS : (round_ + 1) * STEPS]:
                optimizers[k].zero_grad()
                nn.functional.mse_loss(model(inputs[samples]), targets[samples]).backward()
                optimizers[k].step()
        states = [{n: t.clone() for n, t in model.state_dict().items()} for model in models]
        for k, model in enumerate(models):
            for name, tensor in model.state_dict().items():
                numbers = seconds if name.startswith("3.") else firsts
                parts = [state[name] for j, state in enumerate(states) if numbers[j] == numbers[k]]
                tensor.copy_(sum(parts) / len(parts) if tensor.is_floating_point() else parts[0])
    return models


@pytest.mark.parametrize(
    ("make", "firsts", "seconds"),
    [
        (lambda: planned(grid(), outer=MEAN), (0, 0, 1, 1), (0, 1, 0, 1)),
        (lambda: mixed(outer=MEAN), (0, 0, 0), (0, 1, 2)),
        (lambda: mixed(outer=MEAN, shards=["law", "code", "law"]), (0, 0, 0), (0, 1, 0)),
    ],
)
def test_each_path_is_what_pytorch_makes_of_it(
    make: Callable[[], Blueprint], firsts: Sequence[int], seconds: Sequence[int]
) -> None:
    state = strategies.carry_out(make()).state
    for k, model in enumerate(eager(firsts, seconds)):
        found = network()
        ct.load_into(found, strategies.of_path(state, k))
        for (name, expected), tensor in zip(
            model.state_dict().items(), found.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-4, msg=f"{name} of path {k}")


def test_training_goes_on_from_a_result() -> None:
    """Where the last result is, experts included; moments begin anew."""
    first = strategies.carry_out(mixed()).state
    again = strategies.carry_out(mixed(state=first))
    for k, path in enumerate(again.state[f"parameters of path {k}"] for k in range(3)):
        before = strategies.of_path(first, k)["parameters"]
        moved = max(float(np.abs(path[n] - t).max()) for n, t in before.items())
        assert 0 < moved < 2 * RATE * ROUNDS * STEPS
    firsts = [strategies.of_path(first, k)["parameters"]["3.weight"].tobytes() for k in range(3)]
    assert len(set(firsts)) == 3


# ------------------------------------------------------------------ what travels


def test_private_modules_never_leave_their_worker() -> None:
    blueprint = mixed(codec=Quantized(8), broadcast=Quantized(8))
    private: dict[tuple[int, int], int] = {}
    for index, role in enumerate(blueprint.roles):
        if role.what == "train":
            groups = blueprint.program(index).labels.groups
            private |= {
                (index, g): role.worker
                for g, name in enumerate(groups)
                if name.startswith("module expert") and role.worker is not None
            }
    assert len(private) == 3 * ROUNDS
    for spec, role in zip(blueprint.plan.segments, blueprint.roles, strict=True):
        for source in spec.inputs:
            if source.segment != INITIAL and (source.segment, source.group) in private:
                assert private[source.segment, source.group] == role.worker


def test_what_travels_is_the_trunk() -> None:
    whole, trunk = Traffic(), Traffic()
    strategies.carry_out(planned(paths({"all": "*"}, {"all": "*"})), traffic=whole)
    strategies.carry_out(planned(paths({"t": TRUNK, "0": HEAD}, {"t": TRUNK, "1": HEAD})), traffic=trunk)
    head = 4 * (16 + 1)
    for worker in range(2):
        saved = whole.up[worker] - trunk.up[worker]
        assert ROUNDS * head <= saved <= ROUNDS * (head + 400)


def test_paths_may_differ_outside_what_they_have_in_common() -> None:
    torch.manual_seed(8)
    other = nn.Sequential(*network()[:3], nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))
    example = torch.zeros(8, WIDTH), torch.zeros(8, 1)
    program = ct.lower(other, nn.functional.mse_loss, optimizer=ct.optim.SGD(lr=0.1), example=example)
    first, second = datasets(2, ROUNDS * STEPS)
    both = [
        Path(training(), first, {"trunk": TRUNK, "small": HEAD}),
        Path(program, second, {"trunk": TRUNK, "large": ("3.*", "5.*")}),
    ]
    state = strategies.carry_out(planned(both)).state
    small, large = (strategies.of_path(state, k) for k in range(2))
    assert small["parameters"]["0.weight"].tobytes() == large["parameters"]["0.weight"].tobytes()
    assert small["buffers"]["1.running_var"].tobytes() == large["buffers"]["1.running_var"].tobytes()
    ct.load_into(other, large)
    ct.load_into(network(), small)


def test_workers_draw_numbers_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    example = torch.zeros(8, WIDTH), torch.zeros(8, 1)
    program = ct.lower(model, nn.functional.mse_loss, optimizer=MEAN, example=example, seed=2**32 - 1)
    blueprint = strategies.local_sgd(program, datasets(3, 1), rounds=1, steps=1)
    seeds = [
        int(g["seed"]) for name, g in blueprint.initial.items() if name.startswith("counters") and "seed" in g
    ]
    assert sorted(seeds) == [0, 1, 2**32 - 1]


# ------------------------------------------------------------------ what cannot be


def begun_differently() -> list[Path]:
    torch.manual_seed(9)
    example = torch.zeros(8, WIDTH), torch.zeros(8, 1)
    other = nn.Sequential(nn.Linear(WIDTH, 16, bias=False), *network()[1:])
    program = ct.lower(other, nn.functional.mse_loss, optimizer=MEAN, example=example)
    first, second = datasets(2, ROUNDS * STEPS)
    return [Path(training(), first, {"all": "*"}), Path(program, second, {"all": "*"})]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: planned([]), "at least one worker"),
        (lambda: planned(paths({"t": TRUNK})), r"path 0: 3\.weight, 3\.bias of 2 that are in no module"),
        (lambda: planned(paths({"a": "*", "b": "3.*"})), r"3\.weight is in two modules, a and b"),
        (lambda: planned(paths({"a": "*", "b": "4.*"})), "module b has no parameter"),
        (lambda: planned(begun_differently()), "module all of worker 1 begins as other tensors"),
        (lambda: mixed(shards=[0, 1]), "3 workers have data, 2 shards"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be(make: Callable[[], Blueprint], message: str) -> None:
    with pytest.raises(ct.PlanError, match=message):
        make()


def test_a_path_that_is_not_there() -> None:
    state = strategies.carry_out(mixed()).state
    with pytest.raises(DataError, match="nothing of path 3"):
        strategies.of_path(state, 3)
