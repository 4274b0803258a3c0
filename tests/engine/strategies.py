"""Hypothesis strategies: valid programs of every kind, and the words that they run on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from crowdtrain_engine import Axis, DType, Index, Instruction, Mode, Nest, Program, Read, TensorType
from crowdtrain_engine.ops import BY_NAME, NAN, OPS
from engine.products import FMA, WHICH, convolution, matrix_product, one_nest
from hypothesis import strategies as st
from numpy.typing import NDArray

__all__ = [
    "SPECIAL", "Case", "cases", "contractions", "convolutions", "deep_products", "layouts", "nests", "programs",
    "rowwise", "scatters", "unions", "updates",
    "words",
]  # fmt: skip

Words = NDArray[np.uint32]

SPECIAL = [
    0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, NAN, 0xFFC00001, 0x7F800001,
    0x00000001, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x4F000000, 0xCF000000, 0x4F800000,
    0x7FFFFFFF, 0xFFFFFFFF, 0x00000002, 0x0000001F, 0x33800000, 0x4B800000,
]  # fmt: skip
"""±0, ±1, ±infinity, NaNs quiet and signalling, subnormals, extremes of f32, i32 and u32, small integers"""


def words(rng: np.random.Generator, count: int) -> Words:
    """``count`` words: ordinary floats, alone or mixed with small integers, special values and any bits."""
    floats = rng.standard_normal(count).astype(np.float32).view(np.uint32)
    if rng.integers(2):  # long folds over special values are all NaN in the end
        return floats
    small = rng.integers(0, 8, count, dtype=np.uint32)
    any_bits = rng.integers(0, 2**32, count, dtype=np.uint32)
    special = rng.choice(np.array(SPECIAL, np.uint32), count)
    kind = rng.choice(4, count, p=rng.dirichlet([2.0, 0.5, 0.5, 0.5]))
    return np.select([kind == 0, kind == 1, kind == 2], [floats, small, any_bits], special)


@dataclass(frozen=True)
class Case:
    """A program and the words of its state and data tensors, flat."""

    program: Program
    state: tuple[Words, ...]
    data: tuple[Words, ...]


def shapes(most_words: int, max_rank: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of at most ``most_words`` words; long and thin ones too."""
    extent = st.integers(1, 5) | st.integers(1, 40) | st.just(most_words)

    def fit(extents: list[int]) -> tuple[int, ...]:
        shape: list[int] = []
        for wanted in extents:
            shape.append(max(1, min(wanted, most_words // math.prod(shape))))
        return tuple(shape)

    extents: st.SearchStrategy[list[int]] = st.lists(extent, max_size=max_rank)
    return extents.map(fit)


@st.composite
def same_words(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Mostly this shape, sometimes another of as many words."""
    if draw(st.integers(0, 3)):
        return shape
    first = draw(st.sampled_from([d for d in (1, 2, 3, 5, 8) if math.prod(shape) % d == 0]))
    return (first, math.prod(shape) // first)


@st.composite
def axes(draw: st.DrawFn, size: int, extents: Sequence[int], gatherable: Sequence[int]) -> Axis:
    """An axis of a tensor dimension: often one that fits a loop, sometimes any."""
    if gatherable and draw(st.integers(0, 7)) == 0:
        operand: int = draw(st.sampled_from(gatherable))
        return Axis(size, mode=Mode.GATHER, operand=operand)
    fitting = [loop for loop, extent in enumerate(extents) if extent == size]
    if draw(st.integers(0, 2)) and fitting:
        fit: int = draw(st.sampled_from(fitting))
        return Axis(size, ((fit, 1),))
    loops = draw(st.sets(st.sampled_from(range(len(extents))), max_size=3)) if extents else set()
    coefficient = st.one_of(st.just(1), st.integers(-3, 3), st.integers(-(2**31), 2**31 - 1)).filter(bool)
    terms = tuple((loop, draw(coefficient)) for loop in sorted(loops))
    offset = draw(st.one_of(st.just(0), st.integers(-4, 4), st.integers(-(2**31), 2**31 - 1)))
    mode = draw(st.sampled_from([Mode.AFFINE, Mode.AFFINE, Mode.EXACT, Mode.FLOOR]))
    if mode is Mode.AFFINE:
        return Axis(size, terms, offset)
    return Axis(size, terms, offset, mode, draw(st.one_of(st.integers(2, 5), st.integers(2, 2**32 - 1))))


@st.composite
def bodies(
    draw: st.DrawFn, operands: int, immediates: int, has_fold: bool
) -> tuple[tuple[Instruction, ...], int]:
    """Instructions and the reference of the result."""
    lowest, first = (0 if has_fold else 1), 1 + operands + immediates
    body = []
    for i in range(draw(st.integers(0, 10))):
        op = draw(st.sampled_from(OPS))
        # what was just computed is more interesting than what came long before
        newest = max(lowest, first + i - 3)
        reference = st.one_of(st.integers(lowest, first + i - 1), st.integers(newest, first + i - 1))
        body.append(Instruction(op.code, *(draw(reference) for _ in range(op.arity))))
    last = first + len(body) - 1
    return tuple(body), draw(st.one_of(st.just(last), st.integers(lowest, last)))


@st.composite
def known_bodies(draw: st.DrawFn, operands: int, immediates: int) -> tuple[tuple[Instruction, ...], int]:
    """A fold whose last step has a kernel of its own, after a few instructions without the accumulator."""
    first = 1 + operands + immediates
    body: list[Instruction] = []
    for i in range(draw(st.integers(0, 2))):
        op = draw(st.sampled_from(OPS))
        body.append(Instruction(op.code, *(draw(st.integers(1, first + i - 1)) for _ in range(op.arity))))
    x, y = (draw(st.integers(1, first + len(body) - 1)) for _ in range(2))
    either_way = draw(st.permutations([0, x]))
    step = draw(st.sampled_from(["fadd", "ffma", "flt"]))
    if step == "fadd":
        body.append(Instruction(BY_NAME["fadd"].code, *either_way))
    elif step == "ffma":
        body.append(Instruction(BY_NAME["ffma"].code, x, y, 0))
    else:
        body.append(Instruction(BY_NAME["flt"].code, *either_way))
        chosen = draw(st.permutations([0, x]))
        body.append(Instruction(BY_NAME["select"].code, first + len(body) - 1, *chosen))
    return tuple(body), first + len(body) - 1


@st.composite
def nests(
    draw: st.DrawFn, shapes_before: Sequence[tuple[int, ...]], outer: tuple[int, ...] | None = None
) -> Nest:
    """A valid nest that reads values of these shapes."""
    if outer is None:
        outer = draw(shapes(draw(st.sampled_from([1, 12, 200, 3000]))))
    fold = draw(st.one_of(st.just(()), shapes(40, 3)))
    extents = outer + fold
    operands: list[Read | Index] = []
    for number in range(draw(st.integers(0, 4))):
        if extents and draw(st.integers(0, 7)) == 0:
            operands.append(Index(draw(st.integers(0, len(extents) - 1))))
            continue
        value = draw(st.sampled_from(range(len(shapes_before))))
        shape = draw(same_words(shapes_before[value]))
        dimensions = tuple(draw(axes(size, extents, range(number))) for size in shape)
        operands.append(Read(value, dimensions, draw(st.sampled_from([0, NAN, 0xFF800000, 5]))))
    immediates = tuple(draw(st.lists(st.sampled_from(SPECIAL), max_size=3)))
    if not (operands or immediates or fold):
        immediates = (0x3F800000,)
    if fold and (operands or immediates) and draw(st.booleans()):
        body, result = draw(known_bodies(len(operands), len(immediates)))
    else:
        body, result = draw(bodies(len(operands), len(immediates), bool(fold)))
    init = draw(st.sampled_from(SPECIAL)) if fold else 0
    return Nest(draw(st.sampled_from(DType)), outer, tuple(operands), body, result, fold, init, immediates)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A valid program of a few nests that read one another."""
    state = [
        TensorType(draw(st.sampled_from(DType)), draw(shapes(300))) for _ in range(draw(st.integers(1, 3)))
    ]
    data = [
        TensorType(draw(st.sampled_from(DType)), draw(shapes(300))) for _ in range(draw(st.integers(0, 2)))
    ]
    types = [*state, *data]
    made = []
    for _ in range(draw(st.integers(1, 6))):
        outer = draw(st.one_of(st.none(), st.sampled_from([kind.shape for kind in types])))
        made.append(draw(nests([kind.shape for kind in types], outer)))
        types.append(made[-1].type)
    following = tuple(draw(st.sampled_from([v for v, kind in enumerate(types) if kind == s])) for s in state)
    logs = tuple(draw(st.lists(st.integers(0, len(types) - 1), max_size=2)))
    return Program((len(state),), tuple(state), tuple(data), tuple(made), following, logs)


@st.composite
def updates(draw: st.DrawFn) -> Program:
    """Maps of one size that read one another, mostly word by word, and give the next state, as optimizers do."""
    kind = TensorType(DType.f32, draw(st.sampled_from([(1,), (7,), (1030,), (3, 700), (40, 40)])))
    state = draw(st.integers(1, 4))
    made: list[Nest] = []
    for value in range(state, state + draw(st.integers(1, 8))):
        reads = tuple(draw(neighbours(kind.shape, value)) for _ in range(draw(st.integers(1, 3))))
        body, result = draw(bodies(len(reads), 0, has_fold=False))
        made.append(Nest(kind.dtype, kind.shape, reads, body, result))
    values = st.integers(0, state + len(made) - 1)
    following = tuple(draw(st.lists(values, min_size=state, max_size=state)))
    return Program(
        (state,), (kind,) * state, (), tuple(made), following, tuple(draw(st.lists(values, max_size=2)))
    )


@st.composite
def unions(draw: st.DrawFn) -> Program:
    """Concatenations of pieces along one dimension, with or without gaps between them."""
    shape = draw(st.sampled_from([(), (3,), (5, 40)])), draw(st.sampled_from([(), (1,), (7,), (33,), (2, 9)]))
    widths = draw(st.lists(st.integers(1, 20), min_size=2, max_size=5))
    starts, end = [], 0
    for width in widths:
        starts.append(end + draw(st.sampled_from([0, 0, 3])))
        end = starts[-1] + width
    dim, outer = len(shape[0]), (*shape[0], end + draw(st.sampled_from([0, 2])), *shape[1])
    types, reads = [], []
    for value, (width, start) in enumerate(zip(widths, starts, strict=True)):
        axes = [Axis(extent, ((loop, 1),)) for loop, extent in enumerate(outer)]
        axes[dim] = Axis(width, ((dim, 1),), -start)
        types.append(TensorType(DType.f32, tuple(axis.size for axis in axes)))
        reads.append(Read(value, tuple(axes)))
    count = len(reads)
    body = [Instruction(BY_NAME["ior"].code, 1, 2)]
    for i in range(2, count):
        body.append(Instruction(BY_NAME["ior"].code, *draw(st.permutations([count + i - 1, i + 1]))))
    nest = Nest(DType.f32, outer, tuple(reads), tuple(body), count + len(body))
    return Program((count,), tuple(types), (), (nest,), tuple(range(count)), (count,))


@st.composite
def rowwise(draw: st.DrawFn) -> Program:
    """Maps and folds over rows that read one another mostly row by row, as normalizations and softmax do."""
    rows = draw(st.sampled_from([(3,), (40,), (5, 8), (33, 2), (64, 3)]))
    width = draw(st.sampled_from([1, 7, 9, 64, 300]))
    full = TensorType(DType.f32, (*rows, width))
    types, made = [full, full], []
    for _ in range(draw(st.integers(1, 7))):
        has_fold = draw(st.booleans())
        outer = rows if has_fold else full.shape
        reads = []
        for _ in range(draw(st.integers(1, 3))):
            value = draw(st.integers(0, len(types) - 1))
            terms = [((loop, 1),) for loop in range(len(rows) + 1)]
            sizes = list(full.shape)
            if types[value].shape != full.shape:
                terms[-1], sizes[-1] = (), 1
            where = draw(st.sampled_from(["here", "here", "here", "next row", "next word"]))
            offsets = [0] * len(sizes)
            if where == "next row":
                offsets[0] = 1
            elif where == "next word":
                offsets[-1] = 1
            axes = (Axis(n, t, o) for n, t, o in zip(sizes, terms, offsets, strict=True))
            reads.append(Read(value, tuple(axes), draw(st.sampled_from([0, NAN]))))
        if has_fold and draw(st.integers(0, 3)):
            body, result = draw(known_bodies(len(reads), 0))
        else:
            body, result = draw(bodies(len(reads), 0, has_fold))
        fold = (width,) if has_fold else ()
        init = draw(st.sampled_from(SPECIAL)) if fold else 0
        made.append(Nest(DType.f32, outer, tuple(reads), body, result, fold, init))
        types.append(made[-1].type)
    values = [value for value, kind in enumerate(types) if kind == full]
    following = (draw(st.sampled_from(values)), draw(st.sampled_from(values)))
    return Program((2,), (full, full), (), tuple(made), following, (len(types) - 1,))


@st.composite
def layouts(draw: st.DrawFn) -> Program:
    """A map or a fold whose operands lie in any order: repeated, transposed, with a stride, or spread with gaps."""
    extents: list[int] = []
    for _ in range(draw(st.integers(2, 4))):
        extent = draw(st.sampled_from([2, 3, 8, 14, 16, 24, 65, 128, 512, 520]))
        extents.append(max(1, min(extent, 10_000 // math.prod(extents))))
    folded = draw(st.sampled_from([0, 0, 1, 2]))
    loops, reads = range(len(extents)), []
    for number in range(draw(st.integers(1, 3))):
        order = draw(st.sampled_from([loops, loops, loops[::-1], (*loops[:-2], *loops[:-3:-1])]))
        without = draw(st.sampled_from([-1, -1, *loops]))
        odd = draw(st.booleans())
        axes = []
        for loop in order:
            size, where = extents[loop], draw(st.sampled_from(["here", "stride", "gaps"])) if odd else "here"
            if loop == without:
                continue
            if where == "here":
                axes.append(Axis(size, ((loop, 1),)))
            elif where == "stride":
                axes.append(Axis(2 * size, ((loop, 2),), draw(st.integers(0, 1))))
            else:
                axes.append(Axis((size + 1) // 2, ((loop, 1),), draw(st.integers(-1, 0)), Mode.EXACT, 2))
        reads.append(Read(number, tuple(axes), draw(st.sampled_from([0, NAN]))))
    if folded and draw(st.integers(0, 3)):
        body, result = draw(known_bodies(len(reads), 0))
    else:
        body, result = draw(bodies(len(reads), 0, folded > 0))
    outer, fold = tuple(extents[: len(extents) - folded]), tuple(extents[len(extents) - folded :])
    nest = Nest(
        DType.f32, outer, tuple(reads), body, result, fold, draw(st.sampled_from(SPECIAL)) if fold else 0
    )
    return one_nest(nest, [read.shape for read in reads])


@st.composite
def neighbours(draw: st.DrawFn, shape: tuple[int, ...], before: int) -> Read:
    """A read of a value of this shape at the same place, or next to it, or from the other end, or at one place."""
    terms: list[tuple[tuple[int, int], ...]] = [((loop, 1),) for loop in range(len(shape))]
    how = draw(st.sampled_from(["here", "here", "here", "next", "mirrored", "first"]))
    offsets = [0] * len(shape)
    if how == "next":
        offsets[-1] = 1
    elif how == "mirrored":
        terms, offsets = [((loop, -1),) for loop in range(len(shape))], [extent - 1 for extent in shape]
    elif how == "first":
        terms[-1] = ()
    axes = tuple(Axis(n, t, o) for n, t, o in zip(shape, terms, offsets, strict=True))
    return Read(draw(st.integers(0, before - 1)), axes)


@st.composite
def cases(draw: st.DrawFn, of: st.SearchStrategy[Program] | None = None) -> Case:
    """A program (of ``of``) with words to run on."""
    program = draw(programs() if of is None else of)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    state, data = (tuple(words(rng, kind.size) for kind in kinds) for kinds in (program.state, program.data))
    return Case(program, state, data)


@st.composite
def scatters(draw: st.DrawFn) -> Program:
    """Folds that add, or put, something where places say: the last loops of those named, in any order of loops.

    State 0 holds sources, states 1 … words of which the low bits are places.
    """
    outer = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    fold = tuple(
        draw(
            st.lists(st.sampled_from([1, 2, 5, 300]), min_size=1, max_size=2).filter(
                lambda f: math.prod(f) < 400
            )
        )
    )
    extents = outer + fold
    loops = range(len(outer))
    named = draw(st.lists(st.sampled_from(loops), min_size=1, max_size=2, unique=True))
    free = [loop for loop in range(len(extents)) if loop not in named]

    def read(value: int, over: Sequence[int]) -> Read:
        return Read(
            value, tuple(Axis(extents[loop], ((loop, 1),)) for loop in over), draw(st.sampled_from([0, 5]))
        )

    over = [draw(st.permutations(draw(st.sampled_from([free, free[-len(fold) :]])))) for _ in named]
    source = draw(st.permutations(free))
    kinds = [TensorType(DType.f32, tuple(extents[loop] for loop in at)) for at in (source, *over)]
    first = len(kinds)
    low_bits = [
        Nest(
            DType.u32,
            kind.shape,
            (Read(value, tuple(Axis(n, ((loop, 1),)) for loop, n in enumerate(kind.shape))),),
            (Instruction(BY_NAME["iand"].code, 1, 2),),
            3,
            immediates=(draw(st.sampled_from([3, 15])),),
        )
        for value, kind in enumerate(kinds[1:], start=1)
    ]
    operands = [read(0, source)]
    operands += [operand for i, at in enumerate(over) for operand in (read(first + i, at), Index(named[i]))]
    body = [
        Instruction(BY_NAME["ieq"].code, *draw(st.permutations([2 * i + 2, 2 * i + 3])))
        for i in range(len(named))
    ]
    match = len(operands) + 1
    if len(named) > 1:
        body.append(Instruction(BY_NAME["iand"].code, match, match + 1))
        match = len(operands) + len(body)
    changed = 1
    if draw(st.integers(0, 3)):
        body.append(
            Instruction(BY_NAME[draw(st.sampled_from(["fadd", "iadd"]))].code, *draw(st.permutations([0, 1])))
        )
        changed = len(operands) + len(body)
    body.append(Instruction(BY_NAME["select"].code, match, changed, 0))
    result = len(operands) + len(body)
    nest = Nest(DType.f32, outer, tuple(operands), tuple(body), result, fold, draw(st.sampled_from(SPECIAL)))
    return Program(
        (first,), tuple(kinds), (), (*low_bits, nest), tuple(range(first)), (first + len(low_bits),)
    )


@st.composite
def contractions(draw: st.DrawFn) -> Program:
    """Matrix products: batched, operands transposed, loops in any order, several loops to an index."""
    kinds = [kind for kind in "mnkb" for _ in range(draw(st.integers(0 if kind == "b" else 1, 2)))]
    left = {"m": 40, "n": 70, "k": 40, "b": 4}
    extents = []
    for kind in kinds:
        extents.append(draw(st.sampled_from([e for e in (1, 2, 3, 5, 8, 17, 33, 64) if e <= left[kind]])))
        left[kind] //= extents[-1]
    outer = draw(st.permutations([i for i, kind in enumerate(kinds) if kind != "k"]))
    fold = draw(st.permutations([i for i, kind in enumerate(kinds) if kind == "k"]))
    loop = {old: new for new, old in enumerate([*outer, *fold])}
    reads, shapes_read = [], []
    for value, own in enumerate(("mkb", "nkb")):
        dimensions = draw(st.permutations([i for i, kind in enumerate(kinds) if kind in own]))
        reads.append(Read(value, tuple(Axis(extents[i], ((loop[i], 1),)) for i in dimensions)))
        shapes_read.append(tuple(extents[i] for i in dimensions))
    x, y = draw(st.permutations([1, 2]))
    nest = Nest(
        DType.f32,
        tuple(extents[i] for i in outer),
        tuple(reads),
        (Instruction(FMA, x, y, 0),),
        3,
        tuple(extents[i] for i in fold),
        draw(st.sampled_from([0, 0, 0x3F800000, 0x80000000, 0x7F800001])),
    )
    return one_nest(nest, shapes_read)


def deep_products() -> st.SearchStrategy[Program]:
    """Matrix products whose fold takes several blocks, whose rows may be enough for threads to share columns."""
    return st.builds(
        matrix_product,
        st.integers(2, 120) | st.integers(1020, 1100),
        st.integers(2, 40),
        st.integers(500, 1100),
        transposed=st.booleans(),
    )


def convolutions() -> st.SearchStrategy[Program]:
    """Convolutions and their gradients, with strides, padding and dilation."""
    return st.builds(
        convolution,
        st.sampled_from(WHICH),
        batch=st.integers(1, 3),
        inputs=st.sampled_from([1, 3, 7]),
        outputs=st.sampled_from([1, 3, 7, 16]),
        size=st.tuples(st.integers(1, 9), st.integers(1, 20)),
        kernel=st.integers(1, 3),
        stride=st.integers(1, 2),
        dilation=st.integers(1, 2),
        padding=st.integers(0, 2),
    )
