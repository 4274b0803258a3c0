"""The programs of a strategy besides training: encoding a change, merging changes, receiving a merge.

They are written with the same :class:`~crowdtrain.lowering.builder.Builder` as training, from the shapes of the
model's tensors alone, so that they are verified, and disputed, like any other work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from crowdtrain_engine import DType, Nest, Program, Read, TensorType
from crowdtrain_engine.program import Operand
from crowdtrain_engine.state import Array

from crowdtrain._errors import PlanError
from crowdtrain._training import SQUARES
from crowdtrain.lowering.assembly import CONSTANTS
from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, const, eq, lt, select
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.lowering.update import clipped, total_squares
from crowdtrain.optim.rule import Counting, Optimizer, Slot, Update
from crowdtrain.optim.schedules import Schedule
from crowdtrain.strategies.codecs import Codec

__all__ = [
    "CLOCK",
    "WEIGHT",
    "Written",
    "change",
    "collect",
    "encode",
    "mean",
    "merge",
    "mix",
    "receive",
    "regroup",
]

Types = Mapping[str, TensorType]
"""Tensors of a group, by name."""

WEIGHT: Types = {"weight": TensorType(DType.f32, ())}
"""The group that says how much a worker's change counts."""

CLOCK: Types = {"step": TensorType(DType.u32, ())}
"""The group that says which step a worker's next one is."""

_ADDED = 8
"""tensors that are added in one nest"""


@dataclass(frozen=True)
class Written:
    """A program, and the tensors with which those of its groups begin that come from nowhere else."""

    program: Program
    initial: Mapping[str, Mapping[str, Array]] = field(repr=False)


class _Sheet:
    """A program being written: groups are declared, then tensors are computed."""

    def __init__(self) -> None:
        self.b = Builder()
        self.initial: dict[str, dict[str, Array]] = {}

    def group(self, name: str, types: Types, fill: float | None = None) -> dict[str, Tensor]:
        """A group of the state; with ``fill`` it begins as this number, otherwise it comes from elsewhere."""
        if fill is not None:
            self.initial[name] = {
                tensor: np.full(kind.shape, fill, kind.dtype.numpy) for tensor, kind in types.items()
            }
        return {tensor: self.b.state(name, tensor, kind) for tensor, kind in types.items()}

    def codes(self, name: str, types: Types, codec: Codec) -> dict[str, dict[str, Tensor]]:
        """A group of codes of tensors of these types: the parts of each."""
        parts = {
            (tensor, part): kind
            for tensor, shape in types.items()
            for part, kind in codec.parts(shape.shape).items()
        }
        declared = self.group(name, {code_name(*key): kind for key, kind in parts.items()})
        codes: dict[str, dict[str, Tensor]] = {tensor: {} for tensor in types}
        for tensor, part in parts:
            codes[tensor][part] = declared[code_name(tensor, part)]
        return codes

    def finish(self) -> Written:
        program = self.b.finish()
        if self.b.constants:
            self.initial[CONSTANTS] = dict(self.b.constants)
        return Written(program, self.initial)


def code_name(tensor: str, part: str) -> str:
    """Name of a part of a tensor's code in a group."""
    return f"{tensor} {part}"


def code_zeros(types: Types, codec: Codec) -> dict[str, Array]:
    """A group of codes of which every word is 0."""
    return {
        code_name(tensor, part): np.zeros(kind.shape, kind.dtype.numpy)
        for tensor, shape in types.items()
        for part, kind in codec.parts(shape.shape).items()
    }


def mean(b: Builder, tensors: Sequence[Tensor], what: str, shares: Sequence[Tensor] = ()) -> Tensor:
    """The mean of tensors of one shape: their sum, in their order, times one over their number; or the sum of each
    times its share."""
    if len(tensors) == 1 and not shares:
        return tensors[0]
    if shares:
        pairs = zip(tensors, shares, strict=True)
        tensors = [b.pointwise(lambda t, share: t * share, *pair, what=what) for pair in pairs]
    total = tensors[0]
    for start in range(1, len(tensors), _ADDED):
        part = tensors[start : start + _ADDED]
        total = b.pointwise(_added, total, *part, what=what)
        if start + _ADDED < len(tensors):
            total = b.stored(total)
    return total if shares else b.pointwise(lambda t: t * (1.0 / len(tensors)), total, what=what)


def _shares(b: Builder, counted: Sequence[Tensor], weights: Sequence[float | Tensor]) -> list[Tensor]:
    """Of each weight its part of all that are counted; 0 if they are 0."""
    if not counted:
        return []
    total = counted[0]
    for weight in counted[1:]:
        total = b.stored(b.pointwise(lambda t, w: t + w, total, weight, what="sum of weights"))

    def share(weight: Expr, whole: Expr) -> Expr:
        return select(lt(0.0, whole), weight / whole, 0.0)

    tensors = [weight if isinstance(weight, Tensor) else b.constant(weight) for weight in weights]
    return [b.stored(b.pointwise(share, weight, total, what="share")) for weight in tensors]


def _added(*terms: Expr) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def encode(
    types: Types,
    codec: Codec,
    *,
    decay: float = 1.0,
    weight: float | None = None,
    buffers: Types | None = None,
) -> Written:
    """A worker's change since the last merge, encoded.

    Groups: ``base`` (the tensors as the last merge left them), ``local`` (as the worker has them now), ``lost`` (what
    codes have not sent yet; absent if there is nothing to lose) and ``code``. Afterwards ``code`` is that of ``base -
    local + decay * lost``, and ``lost`` what it misses.

    With ``weight`` a merge may do without the worker: group ``weight`` becomes this number, and if the merge to which
    ``code`` was offered did not take it, what it said is sent once more, and its weight added. The merge before took
    the weight ``merged`` from the worker, the one before that ``earlier``; to it ``code`` was offered if ``fresh`` is
    0. Afterwards it is 1. A group of ``buffers`` stays as it is: it is there for a merge with the code, or not at all.
    """
    sheet = _Sheet()
    b = sheet.b
    if buffers:
        sheet.group("buffers", buffers)
    base, local = sheet.group("base", types), sheet.group("local", types)
    keeps = not codec.is_exact or weight is not None
    lost = sheet.group("lost", types, 0.0) if keeps else {}
    code = sheet.codes("code", types, codec)
    taken: Tensor | None = None
    if weight is not None:
        merged = sheet.group("merged", WEIGHT, 1.0)["weight"]
        earlier = sheet.group("earlier", WEIGHT, 1.0)["weight"]
        own = sheet.group("weight", WEIGHT, 0.0)["weight"]
        fresh = sheet.group("fresh", WEIGHT, 0.0)["weight"]
        taken = b.stored(
            b.pointwise(lambda f, e, m: select(eq(f, 0.0), e, m), fresh, earlier, merged, what="taken")
        )
        missed = b.pointwise(lambda w, t: select(eq(t, 0.0), w + weight, weight), own, taken, what="weight")
        b.next(own, missed)
        b.next(fresh, b.map((), lambda: const(1.0), "fresh"))
    for name, kind in types.items():
        with b.label(name):
            moved = b.pointwise(lambda was, now: was - now, base[name], local[name], what="change")
            if taken is not None:
                before = codec.decode(b, code[name], kind.shape, "what was sent before")
                moved = b.pointwise(
                    lambda m, c, w: m + select(eq(w, 0.0), c, 0.0),
                    moved,
                    before,
                    taken,
                    what="change, and what was missed",
                )
            _send(b, codec, moved, lost.get(name), decay, code[name], kind)
    return sheet.finish()


def change(types: Types, codec: Codec, *, decay: float = 1.0) -> Written:
    """As :func:`encode`, but of a group ``gradients`` instead of a difference: ``code`` of it and what was lost.

    With ``decay`` below 1 what is kept back is a momentum that leaks, as in DeMo (arXiv 2411.19870).
    """
    sheet = _Sheet()
    b = sheet.b
    gradients = sheet.group("gradients", types)
    lost = {} if codec.is_exact else sheet.group("lost", types, 0.0)
    code = sheet.codes("code", types, codec)
    for name, kind in types.items():
        with b.label(name):
            _send(b, codec, gradients[name], lost.get(name), decay, code[name], kind)
    return sheet.finish()


def _send(
    b: Builder,
    codec: Codec,
    moved: Tensor,
    lost: Tensor | None,
    decay: float,
    code: Mapping[str, Tensor],
    kind: TensorType,
) -> None:
    """Writes the nests that encode ``moved`` and what was lost before, and keep what is lost now."""
    if lost is None:
        for part, tensor in codec.encode(b, moved, "change").items():
            b.next(code[part], tensor)
        return
    due = b.stored(b.pointwise(lambda m, e: e * decay + m, moved, lost, what="change, with what was lost"))
    sent = codec.encode(b, due, "change")
    for part, tensor in sent.items():
        b.next(code[part], tensor)
    received = codec.decode(b, sent, kind.shape, "what is received")
    b.next(lost, b.stored(b.pointwise(lambda d, r: d - r, due, received, what="lost")))


def merge(
    types: Types,
    workers: int,
    optimizer: Optimizer,
    *,
    codec: Codec | None = None,
    broadcast: Codec | None = None,
    sign: bool = False,
    weights: Sequence[float] = (),
    buffers: Types | None = None,
    clocks: Sequence[int] = (),
) -> Written:
    """The outer step: the mean of the workers' changes is the gradient with which ``optimizer`` moves the tensors.

    Groups: ``parameters``, the optimizer's slots, ``counters`` (``step``: merges so far, and the optimizer's own), then
    the workers' codes ``change.0`` and so on, or without ``codec`` their tensors ``local.0`` and so on; and with
    ``buffers`` a group ``buffers`` and the workers' ``buffers.0`` and so on, whose numbers become their mean and whose
    integers those of the first worker.

    With ``weights``, those of one round of each worker, there are groups ``weight.0`` and so on as well, of what was
    sent: each change counts as much as its worker's weight, divided by the sum of what was sent, so that a change of
    two rounds, one of them late, moves the model no further than one. Where all are 0 nothing moves. With ``broadcast``
    the move itself is encoded: ``parameters`` become what a receiver makes of the group ``code``, and the rest waits in
    ``lost``. With ``sign`` the gradient is the sign of the mean (as signSGD, and DeMo). For each of ``clocks`` there is
    a group ``clock.N`` that moves on by so many steps.
    """
    sheet = _Sheet()
    b = sheet.b
    parameters = sheet.group("parameters", types)
    slots = _slots(sheet, types, optimizer)
    numbers = {"step": TensorType(DType.u32, ())}
    counters = sheet.group(
        "counters", numbers | {k: TensorType(DType.f32, ()) for k in optimizer.counters}, 0
    )
    for name, initial in optimizer.counters.items():
        sheet.initial["counters"][name] = np.asarray(initial, np.float32)
    lost = sheet.group("lost", types, 0.0) if broadcast is not None and not broadcast.is_exact else {}
    sent = sheet.codes("code", types, broadcast) if broadcast is not None else {}
    codes = [sheet.codes(f"change.{k}", types, codec) for k in range(workers)] if codec else []
    locals_ = [] if codec else [sheet.group(f"local.{k}", types) for k in range(workers)]
    counted = [sheet.group(f"weight.{k}", WEIGHT)["weight"] for k, _ in enumerate(weights)]
    own = sheet.group("buffers", buffers) if buffers else {}
    theirs = [sheet.group(f"buffers.{k}", buffers) for k in range(workers)] if buffers else []
    ticking = {count: sheet.group(f"clock.{count}", CLOCK)["step"] for count in clocks}

    step = counters["step"]
    with b.label("counters"):
        b.next(step, b.pointwise(lambda s: s + 1, step, what="step"))
    for count, clock in ticking.items():
        with b.label(f"clock.{count}"):
            b.next(clock, b.pointwise(lambda s, count=count: s + count, clock, what="step"))
    with b.label("optimizer"):
        rate = optimizer.lr
        lr = (
            b.settle(b.pointwise(rate.at, step, what="learning rate"))
            if isinstance(rate, Schedule)
            else b.constant(rate)
        )
        counting = Counting(b, {name: counters[name] for name in optimizer.counters}, None, step, lr)
        shared = optimizer.count(counting)
    for name, tensor in counting.new.items():
        b.next(counters[name], tensor)
    shares = _shares(b, counted, weights)
    for name, kind in types.items():
        with b.label(name):
            if codec is not None:
                changes = [codec.decode(b, code[name], kind.shape, "change") for code in codes]
                gradient = mean(b, changes, "mean change", shares)
            else:
                whole = mean(b, [local[name] for local in locals_], "mean")
                gradient = b.pointwise(
                    lambda was, now: was - now, parameters[name], whole, what="mean change"
                )
            if sign:
                gradient = b.pointwise(_sign, gradient, what="sign")
            own_slots = {slot: tensors[name] for slot, tensors in slots.items()}
            update = Update(counting, parameters[name], b.settle(gradient), own_slots, shared)
            optimizer.update(update)
            for slot, tensor in update.new.items():
                if slot != "parameter":
                    b.next(own_slots[slot], tensor)
            moved = update.new["parameter"]
            if broadcast is None:
                b.next(parameters[name], moved)
            else:
                _broadcast(b, broadcast, parameters[name], moved, lost.get(name), sent[name])
    _merge_buffers(b, own, theirs, _shares(b, counted, counted) if own else [])
    return sheet.finish()


def _broadcast(
    b: Builder, codec: Codec, was: Tensor, now: Tensor, lost: Tensor | None, code: Mapping[str, Tensor]
) -> None:
    """Writes the nests that encode a move and what was lost before, move as a receiver does, and keep what is lost."""
    move = b.pointwise(lambda now, was: now - was, now, was, what="move")
    if lost is not None:
        move = b.stored(b.pointwise(lambda m, e: m + e, move, lost, what="move, with what was lost"))
    sent = codec.encode(b, move, "move")
    for part, tensor in sent.items():
        b.next(code[part], tensor)
    received = codec.decode(b, sent, was.shape, "what is received")
    b.next(was, _moved(b, was, received))
    if lost is not None:
        b.next(lost, b.stored(b.pointwise(lambda m, r: m - r, move, received, what="lost")))


def _merge_buffers(
    b: Builder,
    own: Mapping[str, Tensor],
    theirs: Sequence[Mapping[str, Tensor]],
    shares: Sequence[Tensor] = (),
) -> None:
    """Numbers become their mean, integers those of the first worker."""
    for name, tensor in own.items():
        with b.label(name):
            values = [group[name] for group in theirs]
            averages = tensor.dtype is DType.f32
            b.next(tensor, b.stored(mean(b, values, "mean", shares)) if averages else values[0])


def collect(
    types: Types,
    workers: int,
    *,
    buffers: Types | None = None,
    norm: bool = False,
    bound: float | None = None,
) -> Written:
    """What comes before an update of which several know a part.

    With several workers, groups ``gradients.0`` and so on, whose mean ``gradients`` becomes; with ``buffers`` groups of
    that name, too, as in :func:`merge`. With ``norm`` the group ``squares`` becomes the squared norm of ``gradients``,
    each element of which counts as much as ``bound`` at most.
    """
    sheet = _Sheet()
    b = sheet.b
    apart = range(workers if workers > 1 else 0)
    gradients = sheet.group("gradients", types, 0.0 if apart else None) if types else {}
    squares = sheet.group(SQUARES, {SQUARES: TensorType(DType.f32, ())}, 0.0) if norm else {}
    parts = [sheet.group(f"gradients.{k}", types) for k in apart if types]
    own = sheet.group("buffers", buffers) if buffers and apart else {}
    theirs = [sheet.group(f"buffers.{k}", buffers) for k in apart] if buffers else []
    means = dict(gradients)
    if parts:
        for name, tensor in gradients.items():
            with b.label(name):
                means[name] = b.stored(mean(b, [part[name] for part in parts], "mean"))
                b.next(tensor, means[name])
    if norm:
        with b.label("clipping"):
            bounded = {name: clipped(b, tensor, bound) for name, tensor in means.items()}
            b.next(squares[SQUARES], total_squares(b, bounded))
    _merge_buffers(b, own, theirs)
    return sheet.finish()


def _slots(sheet: _Sheet, types: Types, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """Groups of the optimizer's slots: the tensors of each."""
    found: dict[str, dict[str, Slot]] = {}
    for name, kind in types.items():
        for slot, about in optimizer.slots(kind.shape).items():
            found.setdefault(slot, {})[name] = about
    groups = {}
    for slot, tensors in found.items():
        groups[slot] = sheet.group(slot, {n: TensorType(DType.f32, s.shape) for n, s in tensors.items()}, 0.0)
        for name, about in tensors.items():
            sheet.initial[slot][name] = np.full(about.shape, about.initial, np.float32)
    return groups


def _sign(number: Expr) -> Expr:
    return select(lt(0.0, number), 1.0, select(lt(number, 0.0), -1.0, 0.0))


def _moved(b: Builder, base: Tensor, move: Tensor) -> Tensor:
    return b.stored(b.pointwise(lambda p, m: p + m, base, move, what="as received"))


def receive(types: Types, codec: Codec) -> Written:
    """What a receiver makes of a merge that was sent as a code: groups ``base`` (the tensors as the merge before left
    them, afterwards as this one did) and ``code``."""
    sheet = _Sheet()
    b = sheet.b
    base = sheet.group("base", types)
    code = sheet.codes("code", types, codec)
    for name, kind in types.items():
        with b.label(name):
            received = codec.decode(b, code[name], kind.shape, "what is received")
            b.next(base[name], _moved(b, base[name], received))
    return sheet.finish()


def mix(types: Types, keep: float) -> Written:
    """What a worker goes on from when a merge arrives late: groups ``merged`` and ``local``, of which ``local`` becomes
    ``keep`` of itself and the rest of the other (Streaming DiLoCo, arXiv 2501.18512, equation 4)."""
    sheet = _Sheet()
    b = sheet.b
    merged, local = sheet.group("merged", types), sheet.group("local", types)
    for name in types:
        with b.label(name):
            mixed = b.pointwise(lambda m, w: m + (w - m) * keep, merged[name], local[name], what="mixed")
            b.next(local[name], b.stored(mixed))
    return sheet.finish()


def regroup(program: Program, groups: Mapping[str, Sequence[tuple[str, str]]]) -> Program:
    """``program`` with its state in other groups: for each, the tensors in it by their old group and name.

    It computes the same; only what travels together changes. A name that would come twice into a group takes its old
    group before it. Raises PlanError unless each tensor is in one group.
    """
    places = {
        (group, program.labels.state[i]): i
        for g, group in enumerate(program.labels.groups)
        for i in range(program.bounds[g], program.bounds[g + 1])
    }
    listed = [key for tensors in groups.values() for key in tensors]
    if sorted(listed) != sorted(places):
        missing, unknown = sorted(set(places) - set(listed)), sorted(set(listed) - set(places))
        raise PlanError(
            f"each tensor must be in one group: missing {missing[:3]}, unknown or twice {unknown[:3]}"
        )
    order = [places[key] for key in listed]
    number = {old: new for new, old in enumerate(order)}
    names = [
        name if sum(other == name for _, other in tensors) == 1 else f"{group}/{name}"
        for tensors in groups.values()
        for group, name in tensors
    ]

    def moved(operand: Operand) -> Operand:
        return (
            replace(operand, value=number.get(operand.value, operand.value))
            if isinstance(operand, Read)
            else operand
        )

    def renumbered(nest: Nest) -> Nest:
        return replace(nest, operands=tuple(map(moved, nest.operands)))

    return Program(
        groups=tuple(len(tensors) for tensors in groups.values()),
        state=tuple(program.state[old] for old in order),
        data=program.data,
        nests=tuple(map(renumbered, program.nests)),
        next=tuple(number.get(program.next[old], program.next[old]) for old in order),
        logs=tuple(number.get(value, value) for value in program.logs),
        labels=replace(program.labels, groups=tuple(groups), state=tuple(names)),
    )
