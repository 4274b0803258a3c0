"""Strategies in which a model is made of modules, and each worker trains some of them: a path.

A module that several paths have is merged over these alone; one that a single path has never leaves its worker.
``price`` is what the whole plan costs, in token units. All raise PlanError for numbers or paths of which no plan can be
made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from crowdtrain_engine import DataError, Dataset, State

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.optim.rule import Optimizer
from crowdtrain.strategies.blueprint import Blueprint, Draft
from crowdtrain.strategies.codecs import Codec
from crowdtrain.strategies.crew import BUFFERS, PARAMETERS, Layout, Team, positive, trained
from crowdtrain.strategies.merging import ElasticMerging, Merging
from crowdtrain.strategies.outer import outer_optimizer

__all__ = ["Path", "dipaco", "mixture", "of_path"]

Patterns = str | Sequence[str]
"""Names of parameters and buffers, with wildcards."""


@dataclass(frozen=True)
class Path:
    """A worker's model: the program that trains it, its data, and which of its parameters and buffers make up which
    module. Each is in one module; a key that other paths have too is a module in common."""

    program: LoweredProgram
    data: Dataset
    modules: Mapping[str, Patterns]


def dipaco(
    paths: Sequence[Path],
    *,
    rounds: int,
    steps: int,
    outer: Optimizer | None = None,
    codec: Codec | None = None,
    broadcast: Codec | None = None,
    decay: float = 1.0,
    quorum: int | None = None,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """DiPaCo: every path trains for ``steps`` steps, then each module is merged over the paths that go through it.

    Douillard and others, 2024, arXiv 2403.10616. The other arguments are those of
    :func:`~crowdtrain.strategies.diloco`, which this is for paths that have all modules in common; each module has an
    outer optimizer and codes of its own. The result holds the model of every path: see :func:`of_path`, and ``state``,
    where training begins, is one like it.

    With ``quorum`` merges do not wait for all: while so many of the paths are there, none of them waits for one that is
    missing. So a merge goes on when no more of its module's members are missing than of all paths may be, and with one
    at least; those that are there when it is claimed are merged, as in
    :func:`~crowdtrain.strategies.elastic_diloco`: the mean is theirs alone, who comes late adds the change to that of
    the next round, and a path that has lost a round goes on from the newest modules in common, with its own modules and
    moments of the round before. Raises PlanError for a quorum that cannot be.
    """
    positive(rounds=rounds, steps=steps)
    if quorum is not None and not 1 <= quorum <= len(paths):
        raise PlanError(f"{len(paths)} paths, but a quorum of {quorum}")
    draft = Draft()
    layouts: dict[object, Layout] = {}
    having = Counter(key for path in paths for key in path.modules)
    clocked = [quorum is not None and any(having[key] > 1 for key in path.modules) for path in paths]
    team = Team(
        draft,
        [_layout(paths, k, state, layouts, clocked[k]) for k in range(len(paths))],
        [path.data for path in paths],
    )
    through = {
        part: [k for k, layout in enumerate(team.layouts) if part in layout.parts]
        for part in dict.fromkeys(part for layout in team.layouts for part in layout.parts)
    }
    optimizer = outer or outer_optimizer(rounds)
    merges: list[Merging] = []
    for part, members in through.items():
        if len(members) == 1:
            team.keep(members[0], part)
        elif quorum is None:
            merges.append(
                Merging(team, part, optimizer, codec=codec, broadcast=broadcast, decay=decay, members=members)
            )
        else:
            needed = max(1, len(members) - (len(paths) - quorum))
            merges.append(
                ElasticMerging(
                    team, part, optimizer, quorum=needed, steps=[steps] * len(members),
                    codec=codec, broadcast=broadcast, decay=decay, members=members,
                )
            )  # fmt: skip
    for round_ in range(rounds):
        for k in range(team.workers):
            mine = [merging for merging in merges if k in merging.members]
            start = {group: ref for merging in mine for group, ref in merging.start(k).items()}
            out = team.train(k, round_, steps, start)
            for merging in mine:
                merging.gather(k, round_, out)
        for merging in merges:
            merging.merge(round_)
    pieces = [piece for k in range(team.workers) for piece in team.result(k, _of(k))]
    return draft.finish(pieces, price=price)


def mixture(
    program: LoweredProgram,
    data: Sequence[Dataset],
    *,
    experts: Patterns,
    rounds: int,
    steps: int,
    shards: Sequence[Hashable] | None = None,
    outer: Optimizer | None = None,
    codec: Codec | None = None,
    broadcast: Codec | None = None,
    decay: float = 1.0,
    quorum: int | None = None,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """A mixture of experts over shards of the data: all workers train one trunk, each with an expert of its own.

    ``program`` trains the trunk with one expert, whose parameters ``experts`` names. Experts never leave their workers,
    unless ``shards`` says that several workers have data of one kind: they then share an expert. Whoever uses the model
    sends an input to the expert of its shard, as the paths of DiPaCo are chosen (arXiv 2403.10616). The result and the
    other arguments are those of :func:`dipaco`: with a ``quorum`` of the workers the trunk is merged over those who are
    there, and whoever is missing is left out.
    """
    kinds = range(len(data)) if shards is None else shards
    if len(kinds) != len(data):
        raise PlanError(f"{len(data)} workers have data, {len(kinds)} shards are named")
    patterns = (experts,) if isinstance(experts, str) else tuple(experts)
    trunk = [name for names in _named(program).values() for name in names if not _fits(name, patterns)]
    paths = [
        Path(program, own, {"trunk": trunk, f"expert {kind}": patterns})
        for own, kind in zip(data, kinds, strict=True)
    ]
    return dipaco(
        paths, rounds=rounds, steps=steps, outer=outer, codec=codec, broadcast=broadcast, decay=decay,
        quorum=quorum, state=state, price=price,
    )  # fmt: skip


def of_path(state: State, number: int) -> State:
    """The model of one path out of the result of all, for ``load_into``. Raises DataError if there is none."""
    found = {
        group: state[f"{group}{_of(number)}"]
        for group in (PARAMETERS, BUFFERS)
        if f"{group}{_of(number)}" in state
    }
    if not found:
        raise DataError(f"the state has nothing{_of(number)}, it has {', '.join(state)}")
    return State(found)


def _of(number: int) -> str:
    return f" of path {number}"


def _named(program: LoweredProgram) -> dict[str, list[str]]:
    """What is in modules: trained parameters, and buffers."""
    return {PARAMETERS: trained(program), BUFFERS: list(program.initial.get(BUFFERS, ()))}


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _layout(
    paths: Sequence[Path], number: int, state: State | None, known: dict[object, Layout], clocked: bool
) -> Layout:
    """The groups of a path: parameters and buffers of each module."""
    path = paths[number]
    parts: dict[str, list[str]] = {}
    buffers: dict[str, list[str]] = {}
    owners: dict[tuple[str, str], str] = {}
    named = _named(path.program)
    for key, given in path.modules.items():
        patterns = (given,) if isinstance(given, str) else tuple(given)
        parts[f"module {key}"], held = (
            [name for name in names if _fits(name, patterns)] for names in named.values()
        )
        if held:
            buffers[f"{BUFFERS} of module {key}"] = held
        for kind, names in ((PARAMETERS, parts[f"module {key}"]), (BUFFERS, held)):
            for name in names:
                if owners.setdefault((kind, name), key) != key:
                    raise PlanError(
                        f"path {number}: {name} is in two modules, {owners[kind, name]} and {key}"
                    )
        if not parts[f"module {key}"]:
            raise PlanError(f"path {number}: module {key} has no parameter that is trained")
    left = [name for kind, names in named.items() for name in names if (kind, name) not in owners]
    if left:
        raise PlanError(f"path {number}: {', '.join(left[:3])} of {len(left)} that are in no module")
    begun = None if state is None else of_path(state, number)
    same = (id(path.program), str(parts), str(buffers), number if begun is not None else None)
    if same not in known:
        known[same] = Layout(path.program, parts, buffers, state=begun, clocked=clocked)
    return known[same]
