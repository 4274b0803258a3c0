"""What makes a program valid. The Referee contract applies the rules for one nest in the same words.

A program that is not valid has no right execution, so these rules are part of the protocol: they look only
at the program, never at the machine. What a machine can afford is :func:`cost`, and each solver's own
choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crowdtrain_engine import program as p
from crowdtrain_engine._errors import ProgramError
from crowdtrain_engine.ops import BY_CODE, FIRST_ELEMENTARY

__all__ = ["Cost", "cost", "validate_links", "validate_nest", "validate_program"]


def validate_nest(nest: p.Nest, where: str) -> None:
    """Raises ProgramError, naming ``where``, if ``nest`` breaks a rule that can be checked on it alone."""
    counts = (
        (len(nest.outer), p.MAX_RANK, "outer rank"),
        (len(nest.fold), p.MAX_RANK, "fold rank"),
        (len(nest.operands), p.MAX_OPERANDS, "operand count"),
        (len(nest.immediates), p.MAX_IMMEDIATES, "immediate count"),
        (len(nest.body), p.MAX_BODY, "body length"),
    )
    for count, most, what in counts:
        if count > most:
            raise ProgramError(where, f"{what} is {count}, at most {most} is allowed")
    words = (nest.init, *nest.immediates)
    if not all(0 <= word < 2**32 for word in words):
        raise ProgramError(where, "init and immediates must be words")
    _check_shape(nest.outer, p.MAX_ELEMENTS, where, "output")
    _check_shape(nest.fold, p.MAX_FOLD, where, "fold")
    if math.prod(nest.outer) > 256 * p.MAX_WIDE_PAGES and nest.fold_length > p.MAX_WIDE_FOLD:
        raise ProgramError(
            where,
            f"{math.prod(nest.outer)} words with a fold of {nest.fold_length} make too long a dispute; "
            f"split the fold into two nests of at most {p.MAX_WIDE_FOLD}",
        )
    if not nest.fold and nest.init:
        raise ProgramError(where, "init must be 0 where there is no fold")
    extents = nest.outer + nest.fold
    for i, operand in enumerate(nest.operands):
        _check_operand(nest, operand, extents, i, f"{where} operand {i}")
    _check_body(nest, where)


def _check_shape(shape: tuple[int, ...], most: int, where: str, what: str) -> None:
    if not all(1 <= extent < 2**31 for extent in shape):
        raise ProgramError(where, f"{what} extents {shape} must be between 1 and 2^31 - 1")
    if math.prod(shape) > most:
        raise ProgramError(where, f"{what} has {math.prod(shape)} elements, at most {most} are allowed")


def _check_operand(
    nest: p.Nest, operand: p.Operand, extents: tuple[int, ...], number: int, where: str
) -> None:
    if isinstance(operand, p.Index):
        if not 0 <= operand.loop < len(extents):
            raise ProgramError(where, f"loop {operand.loop} does not exist, there are {len(extents)}")
        return
    if len(operand.axes) > p.MAX_RANK:
        raise ProgramError(where, f"rank is {len(operand.axes)}, at most {p.MAX_RANK} is allowed")
    if not 0 <= operand.value < p.MAX_VALUES or not 0 <= operand.fill < 2**32:
        raise ProgramError(where, "value or fill is out of range")
    # an open data dimension is 0 until the program is bound; validate_program refuses it everywhere else
    if not all(0 <= size < 2**31 for size in operand.shape) or 0 in operand.shape[1:]:
        raise ProgramError(where, f"shape {operand.shape} must have extents between 1 and 2^31 - 1")
    if math.prod(operand.shape) > p.MAX_ELEMENTS:
        raise ProgramError(
            where, f"has {math.prod(operand.shape)} elements, at most {p.MAX_ELEMENTS} are allowed"
        )
    for d, axis in enumerate(operand.axes):
        _check_axis(axis, extents, number, f"{where} axis {d}")


def _check_axis(axis: p.Axis, extents: tuple[int, ...], number: int, where: str) -> None:
    if axis.mode is p.Mode.GATHER:
        if not 0 <= axis.operand < number:
            raise ProgramError(
                where, f"gathers by operand {axis.operand}, only operands before {number} may be used"
            )
        if axis.terms or axis.offset or axis.divisor != 1:
            raise ProgramError(where, "a gather has no affine form")
        return
    if axis.operand:
        raise ProgramError(where, "only a gather names an operand")
    if (axis.divisor != 1) if axis.mode is p.Mode.AFFINE else not 2 <= axis.divisor < 2**32:
        raise ProgramError(
            where, f"divisor {axis.divisor} must be 1 in an affine axis and at least 2 in a divided one"
        )
    loops = [loop for loop, _ in axis.terms]
    if loops != sorted(set(loops)) or not all(0 <= loop < len(extents) for loop in loops):
        raise ProgramError(where, f"loops {loops} must be ascending, each once, and below {len(extents)}")
    if not all(c != 0 and -(2**31) <= c < 2**31 for c in (*(c for _, c in axis.terms), axis.offset or 1)):
        raise ProgramError(where, "coefficients must be 32-bit and not 0, the offset 32-bit")
    reach = abs(axis.offset) + sum(abs(c) * (extents[loop] - 1) for loop, c in axis.terms)
    if reach >= p.MAX_REACH:
        raise ProgramError(where, f"an index may reach {reach}, the bound is {p.MAX_REACH}")


def _check_body(nest: p.Nest, where: str) -> None:
    """Raises ProgramError unless every reference of the body points at something before it."""
    first = 1 + len(nest.operands) + len(nest.immediates)
    lowest = 0 if nest.fold else 1
    for i, ins in enumerate(nest.body):
        op = BY_CODE.get(ins.code)
        if op is None:
            raise ProgramError(where, f"instruction {i}: opcode 0x{ins.code:02x} does not exist")
        refs = (ins.a, ins.b, ins.c)
        for ref in refs[: op.arity]:
            if not lowest <= ref < first + i:
                raise ProgramError(
                    where, f"instruction {i} ({op.name}): reference {ref} is not defined there"
                )
        if any(refs[op.arity :]):
            raise ProgramError(where, f"instruction {i} ({op.name}): unused references must be 0")
    elementary = sum(ins.code >= FIRST_ELEMENTARY for ins in nest.body)
    if elementary > p.MAX_ELEMENTARY:
        raise ProgramError(
            where, f"{elementary} elementary functions in a body, at most {p.MAX_ELEMENTARY} are allowed"
        )
    if not lowest <= nest.result < first + len(nest.body):
        raise ProgramError(where, f"result reference {nest.result} is not defined")


def validate_program(program: p.Program) -> None:
    """Raises ProgramError, naming the part and the rule, if ``program`` is not valid."""
    program.header.validate()
    for i, nest in enumerate(program.nests):
        nest.validate(_where(program, i))
    validate_links(program)


def validate_links(program: p.Program) -> None:
    """Raises ProgramError unless nests read, and the next state takes, what is there, with all its words.

    Header and nests, each judged alone, are valid already.
    """
    for i, nest in enumerate(program.nests):
        for read in nest.reads:
            _check_read(program, read, program.first_nest + i, _where(program, i))
    for i, (kind, value) in enumerate(zip(program.state, program.next, strict=True)):
        if not program.types[value].fits(kind):
            name = program.labels.state[i]
            raise ProgramError("header", f"state {name} becomes value {value}, of another type")


def _where(program: p.Program, nest: int) -> str:
    return f"nest {nest} ({program.labels.nests[nest]})"


def _check_read(program: p.Program, read: p.Read, before: int, where: str) -> None:
    if read.value >= before:
        raise ProgramError(where, f"reads value {read.value}, which is not computed before it")
    known = program.types[read.value]
    if read.shape != known.shape and (0 in known.shape or math.prod(read.shape) != known.size):
        raise ProgramError(
            where,
            f"reads value {read.value} ({program.value_name(read.value)}) under the shape {read.shape}, "
            f"it has other words, or open rows: {known.shape}",
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step needs, for a machine to decide whether it can afford it."""

    operations: int
    """body operations, all elements and fold iterations"""
    memory: int
    """bytes of all values if none is reused"""


def cost(program: p.Program) -> Cost:
    """Upper bounds for one step of a valid program."""
    operations = sum(nest.type.size * nest.fold_length * max(1, len(nest.body)) for nest in program.nests)
    return Cost(operations, 4 * sum(kind.size for kind in program.types))
