"""Paths of modules: what is in common is merged over those that have it, what is not stays where it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import crowdtrain as ct
import numpy as np
import pytest
import torch
from crowdtrain import strategies
from crowdtrain.chain import INITIAL
from crowdtrain.strategies import Blueprint, Exact, Path, Quantized, Traffic
from crowdtrain_engine import DataError, State
from strategies_support import RATE, WIDTH, arrays, datasets, network, orders, training
from torch import nn

ROUNDS, STEPS = 3, 2
MEAN = ct.optim.SGD(lr=1.0)
TRUNK, HEAD = ("0.*", "1.*"), "3.*"


Trouble = Mapping[tuple[int, int], str]
"""In which round of which path something went wrong, and what: ``code late`` or ``round lost``."""


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
    "mixture with a quorum": lambda: mixed(quorum=2, codec=Quantized(4), broadcast=Quantized(8)),
}


def segments(blueprint: Blueprint, trouble: Trouble, *what: str) -> list[int]:
    """What a worker does in rounds in which something went wrong."""
    return [
        i
        for i, role in enumerate(blueprint.roles)
        if role.what in what and role.worker is not None and (role.round, role.worker) in trouble
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_every_backend_gives_the_same_words(name: str) -> None:
    blueprint = MAKERS[name]()
    late = segments(blueprint, {(1, 1): "code late"}, "encode") if "quorum" in name else ()
    native = strategies.carry_out(blueprint, threads=2, late=late).state.root
    assert native == strategies.carry_out(blueprint, backend="reference", late=late).state.root
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


def eager(firsts: Sequence[int], seconds: Sequence[int], trouble: Trouble | None = None) -> list[nn.Module]:
    """Workers with AdamW of their own; after each round a module is the mean over those with the same number that are
    there. A late change counts in the next round as one of two; of a round that was lost nothing is left."""
    inputs, targets = map(torch.from_numpy, arrays())
    models = [network() for _ in firsts]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=RATE) for model in models]
    order = orders(len(models), ROUNDS * STEPS)
    unsent = [{n: torch.zeros_like(t) for n, t in model.state_dict().items()} for model in models]
    weights = [1] * len(models)
    for round_ in range(ROUNDS):
        what = [(trouble or {}).get((round_, k)) for k in range(len(models))]
        begun = copy.deepcopy([model.state_dict() for model in models])
        for k, model in enumerate(models):
            moments = copy.deepcopy(optimizers[k].state_dict())
            for samples in order[k][round_ * STEPS : (round_ + 1) * STEPS]:
                optimizers[k].zero_grad()
                nn.functional.mse_loss(model(inputs[samples]), targets[samples]).backward()
                optimizers[k].step()
            if what[k] == "round lost":
                optimizers[k].load_state_dict(moments)
        done = copy.deepcopy([model.state_dict() for model in models])
        parameters = {name for name, _ in models[0].named_parameters()}
        for k, model in enumerate(models):
            for name, tensor in model.state_dict().items():
                numbers = seconds if name.startswith("3.") else firsts
                members = [j for j, number in enumerate(numbers) if number == numbers[k]]
                if members == [k]:
                    tensor.copy_(begun[k][name] if what[k] == "round lost" else done[k][name])
                    continue
                there = [j for j in members if what[j] is None]
                whole = sum(weights[j] for j in there)
                if name in parameters:
                    changes = [begun[j][name] - done[j][name] + unsent[j][name] for j in there]
                    tensor.copy_(begun[k][name] - sum(changes) / whole)
                elif tensor.is_floating_point():
                    tensor.copy_(sum(weights[j] * done[j][name] for j in there) / whole)
        for k in range(len(models)):
            if what[k] == "code late":
                weights[k] += 1
                unsent[k] = {n: unsent[k][n] + begun[k][n] - t for n, t in done[k].items()}
            elif what[k] is None:
                weights[k] = 1
                unsent[k] = {n: torch.zeros_like(t) for n, t in done[k].items()}
    return models


def assert_close(state: State, models: Sequence[nn.Module]) -> None:
    for k, model in enumerate(models):
        found = network()
        ct.load_into(found, strategies.of_path(state, k))
        for (name, expected), tensor in zip(
            model.state_dict().items(), found.state_dict().values(), strict=True
        ):
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-4, msg=f"{name} of path {k}")


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
    assert_close(strategies.carry_out(make()).state, eager(firsts, seconds))


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


# ------------------------------------------------------------------ quorums


def shared(quorum: int | None) -> Blueprint:
    return mixed(outer=MEAN, shards=["law", "code", "law"], quorum=quorum)


@pytest.mark.parametrize(
    "trouble",
    [
        {},
        {(0, 2): "round lost"},
        {(1, 0): "round lost"},
        {(0, 1): "code late"},
        {(0, 1): "code late", (1, 1): "round lost"},
        {(0, 2): "round lost", (1, 2): "code late"},
        {(0, 0): "code late", (1, 2): "round lost"},
        {(2, 1): "code late"},
    ],
)
@pytest.mark.parametrize(
    ("make", "firsts", "seconds"),
    [
        (lambda: mixed(outer=MEAN, quorum=2), (0, 0, 0), (0, 1, 2)),
        (lambda: shared(2), (0, 0, 0), (0, 1, 0)),
        (lambda: planned(grid(), outer=MEAN, quorum=3), (0, 0, 1, 1), (0, 1, 0, 1)),
    ],
)
def test_a_merge_is_the_mean_over_those_who_are_there(
    make: Callable[[], Blueprint], firsts: Sequence[int], seconds: Sequence[int], trouble: Trouble
) -> None:
    """Who is late joins the next merge; who lost a round goes on from the newest trunk, with the expert before it."""
    blueprint = make()
    late = {key: what for key, what in trouble.items() if what == "code late"}
    lost = {key: what for key, what in trouble.items() if what == "round lost"}
    state = strategies.carry_out(
        blueprint, late=segments(blueprint, late, "encode"), lost=segments(blueprint, lost, "train", "encode")
    ).state
    assert_close(state, eager(firsts, seconds, trouble))


def test_the_words_are_those_of_the_mean_over_those_who_are_there() -> None:
    data = datasets(3, STEPS)
    blueprint = strategies.mixture(
        training(), data, experts=HEAD, rounds=1, steps=STEPS, outer=MEAN, quorum=2
    )
    gone = segments(blueprint, {(0, 1): "round lost"}, "train", "encode")
    state = strategies.carry_out(blueprint, lost=gone).state
    half = np.float32(0.5)
    start = training().initial_state()
    ends = [ct.execute(training(), start, own, steps=STEPS)[0] for own in data]
    for path, end in enumerate(ends):
        mine = strategies.of_path(state, path)
        for name, before in start["parameters"].items():
            first, last = (ends[k]["parameters"][name] for k in (0, 2))
            mean = before - ((before - first) * half + (before - last) * half)
            expected = end["parameters"][name] if name.startswith("3.") else mean
            assert mine["parameters"][name].tobytes() == expected.tobytes(), (path, name)
        for name in ("1.running_mean", "1.running_var"):
            first, last = (ends[k]["buffers"][name] for k in (0, 2))
            assert mine["buffers"][name].tobytes() == (first * half + last * half).tobytes()


@pytest.mark.parametrize("codes", [{"codec": Exact()}, {"codec": Quantized(4), "broadcast": Quantized(8)}])
def test_with_everybody_there_a_quorum_changes_no_word(codes: dict[str, object]) -> None:
    """Where a module has two members: their shares are exact. Of three the last bits may differ: each change is times a
    third, not their sum."""
    without, with_quorum = planned(grid(), **codes), planned(grid(), quorum=3, **codes)
    assert strategies.carry_out(without).state.root == strategies.carry_out(with_quorum).state.root
    if "broadcast" not in codes:
        whole, any_two = (strategies.carry_out(mixed(outer=MEAN, quorum=q, **codes)).state for q in (None, 2))
        for group, tensors in whole.items():
            for name, tensor in tensors.items():
                np.testing.assert_allclose(any_two[group][name], tensor, rtol=1e-4, atol=1e-6, err_msg=name)


def reached(blueprint: Blueprint, gone: set[int]) -> set[int]:
    """The segments that can ever be committed if those of some paths never are."""
    done: set[int] = set()
    for index, (spec, role) in enumerate(zip(blueprint.plan.segments, blueprint.roles, strict=True)):
        absent = spec.absent(done.__contains__)
        needed = {source.segment for source in spec.sources(absent)} - {INITIAL}
        if role.worker not in gone and needed <= done and spec.present(absent) >= spec.quorum:
            done.add(index)
    return done


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda quorum: mixed(quorum=quorum, codec=Quantized(8), broadcast=Quantized(8)), 3),
        (shared, 3),
        (lambda quorum: planned(grid(), quorum=quorum), 4),
    ],
)
def test_a_path_that_never_comes_back_stalls_nobody(
    make: Callable[[int | None], Blueprint], size: int
) -> None:
    """Nor do as many as are not needed for the quorum; without one, a single path does."""
    for gone in ({0}, {1}, {2}, {0, 1}, {0, 2}, {size - 2, size - 1}):
        blueprint = make(size - len(gone))
        done = reached(blueprint, gone)
        stalled = {role.worker for i, role in enumerate(blueprint.roles) if i not in done}
        nobodys = {None} if len(gone) > 1 else set()  # merges of modules all of whose members are gone
        assert gone <= stalled <= gone | nobodys
    waiting = make(None)
    assert max(waiting.roles[i].round for i in reached(waiting, {0})) < ROUNDS - 1


def test_a_quorum_that_is_missed() -> None:
    blueprint = mixed(quorum=2)
    missing = segments(blueprint, {(1, 0): "round lost", (1, 2): "round lost"}, "train", "encode")
    with pytest.raises(ct.PlanError, match="optional inputs"):
        strategies.carry_out(blueprint, lost=missing)


def test_paths_that_have_nothing_in_common_need_no_quorum() -> None:
    alone = paths({"mine": "*"}, {"yours": "*"})
    assert planned(alone, quorum=1).plan.root == planned(alone).plan.root
    assert not any(spec.fallbacks or spec.quorum for spec in mixed().plan.segments)


# ------------------------------------------------------------------ what travels


@pytest.mark.parametrize("quorum", [None, 2])
def test_private_modules_never_leave_their_worker(quorum: int | None) -> None:
    blueprint = mixed(codec=Quantized(8), broadcast=Quantized(8), quorum=quorum)
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
        for source in spec.all_sources:
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
        (lambda: mixed(quorum=4), "3 paths, but a quorum of 4"),
        (lambda: mixed(quorum=0), "3 paths, but a quorum of 0"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be(make: Callable[[], Blueprint], message: str) -> None:
    with pytest.raises(ct.PlanError, match=message):
        make()


def test_a_path_that_is_not_there() -> None:
    state = strategies.carry_out(mixed()).state
    with pytest.raises(DataError, match="nothing of path 3"):
        strategies.of_path(state, 3)
