"""The instruction set of a nest's body: every operation on words, on one page.

A word is 32 bits. Operations of the `f32` family read words as IEEE-754 binary32 and round once, to nearest even;
subnormals are kept and every NaN result is the word ``NAN``. Integers wrap; shift counts are taken modulo 32.
Opcodes below ``FIRST_ELEMENTARY`` are primitive; the others are defined in :mod:`crowdtrain_engine.elementary` as
straight-line sequences of primitive ones. The tables of Solidity and of C++ are generated from this one.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BY_CODE", "BY_NAME", "FIRST_ELEMENTARY", "NAN", "OPS", "Op"]

NAN = 0x7FC00000
FIRST_ELEMENTARY = 0x40


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: its name, its byte in the encoding, how many words it reads, and what it computes."""

    name: str
    code: int
    arity: int
    meaning: str


OPS: tuple[Op, ...] = (
    # f32 arithmetic
    Op("fadd", 0x01, 2, "a + b"),
    Op("fsub", 0x02, 2, "a - b"),
    Op("fmul", 0x03, 2, "a * b"),
    Op("fdiv", 0x04, 2, "a / b"),
    Op("ffma", 0x05, 3, "a * b + c, rounded once"),
    Op("fsqrt", 0x06, 1, "square root of a"),
    Op("fneg", 0x07, 1, "-a (NaN gives NAN)"),
    Op("fabs", 0x08, 1, "|a| (NaN gives NAN)"),
    # compares give 1 or 0; with a NaN, 0
    Op("flt", 0x10, 2, "a < b as f32"),
    Op("fle", 0x11, 2, "a <= b as f32"),
    Op("feq", 0x12, 2, "a == b as f32"),
    Op("ilt", 0x18, 2, "a < b as i32"),
    Op("ult", 0x19, 2, "a < b as u32"),
    Op("ieq", 0x1A, 2, "a and b are the same word"),
    # integers
    Op("iadd", 0x20, 2, "a + b mod 2^32"),
    Op("isub", 0x21, 2, "a - b mod 2^32"),
    Op("imul", 0x22, 2, "a * b mod 2^32"),
    Op("umulh", 0x23, 2, "floor(a * b / 2^32) as u32"),
    Op("iand", 0x24, 2, "a and b, bit by bit"),
    Op("ior", 0x25, 2, "a or b, bit by bit"),
    Op("ixor", 0x26, 2, "a xor b, bit by bit"),
    Op("shl", 0x27, 2, "a << (b mod 32)"),
    Op("shr", 0x28, 2, "a >> (b mod 32) as u32"),
    Op("sar", 0x29, 2, "a >> (b mod 32) as i32"),
    Op("select", 0x30, 3, "b if a is not 0 else c"),
    # conversions
    Op("f2i", 0x38, 1, "f32 to i32: toward zero, saturating, NaN gives 0"),
    Op("f2u", 0x39, 1, "f32 to u32: toward zero, saturating, NaN gives 0"),
    Op("i2f", 0x3A, 1, "i32 to f32: to nearest even"),
    Op("u2f", 0x3B, 1, "u32 to f32: to nearest even"),
    # elementary functions, at most 2 ulp
    Op("exp", 0x40, 1, "e to the a"),
    Op("log", 0x41, 1, "natural logarithm of a"),
    Op("tanh", 0x42, 1, "hyperbolic tangent of a"),
    Op("erf", 0x43, 1, "error function of a"),
    Op("sigmoid", 0x44, 1, "1 / (1 + e to the -a)"),
    Op("sin", 0x45, 1, "sine of a"),
    Op("cos", 0x46, 1, "cosine of a"),
)

BY_NAME: dict[str, Op] = {op.name: op for op in OPS}
BY_CODE: dict[int, Op] = {op.code: op for op in OPS}
