"""Codecs: how a change of weights travels. Each can be written into a program, so that it is verified like the rest.

A codec turns a tensor of f32 numbers into a few tensors of words and back. What is lost on the way stays with the
sender, who adds it to what is sent next (error feedback: Karimireddy and others, 2019, arXiv 1901.09847).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from crowdtrain_engine import DType, TensorType

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Expr,
    Word,
    const,
    convert,
    eq,
    fabs,
    lt,
    maximum,
    minimum,
    operation,
    select,
    word_of,
)  # fmt: skip
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.tensor import Tensor, reshape

__all__ = ["Codec", "Cosine", "Exact", "Quantized", "TopK"]

f32, u32 = DType.f32, DType.u32
Code = Mapping[str, Tensor]
"""The parts of an encoded tensor, by name."""


class Codec(ABC):
    """How a tensor of f32 numbers is sent."""

    @abstractmethod
    def parts(self, shape: tuple[int, ...]) -> dict[str, TensorType]:
        """Name and type of each part of the code of a tensor of this shape."""

    @abstractmethod
    def encode(self, b: Builder, tensor: Tensor, what: str) -> dict[str, Tensor]:
        """The code of ``tensor``, stored."""

    @abstractmethod
    def decode(self, b: Builder, code: Code, shape: tuple[int, ...], what: str) -> Tensor:
        """The tensor that a receiver makes of a code."""

    @property
    def is_exact(self) -> bool:
        """Whether nothing is lost."""
        return False

    def bits(self, shape: tuple[int, ...]) -> float:
        """Bits that are sent for each number of a tensor of this shape."""
        return 32 * sum(kind.size for kind in self.parts(shape).values()) / math.prod(shape)


@dataclass(frozen=True)
class Exact(Codec):
    """The numbers as they are: 32 bits each."""

    def parts(self, shape: tuple[int, ...]) -> dict[str, TensorType]:
        return {"number": TensorType(f32, shape)}

    def encode(self, b: Builder, tensor: Tensor, what: str) -> dict[str, Tensor]:
        return {"number": b.stored(tensor)}

    def decode(self, b: Builder, code: Code, shape: tuple[int, ...], what: str) -> Tensor:
        return code["number"]

    @property
    def is_exact(self) -> bool:
        return True


@dataclass(frozen=True)
class Quantized(Codec):
    """Numbers of 2, 4 or 8 bits, times a scale for each ``block`` of them.

    With 4 and 8 bits they are whole, and the scale makes the largest of a block the largest of them. With 2 bits they
    are -1.5, -0.5, 0.5 and 1.5, and the scale is the mean size of the block's numbers. Raises ValueError for other
    widths, and for a block that does not fill words.
    """

    width: int = 8
    block: int = 256

    def __post_init__(self) -> None:
        if self.width not in (2, 4, 8):
            raise ValueError(f"width must be 2, 4 or 8 bits, it is {self.width}")
        if not 1 <= self.block <= 2**16 or self.block % self._in_word:
            raise ValueError(f"block must be a multiple of {self._in_word} up to 65536, it is {self.block}")

    @property
    def _in_word(self) -> int:
        return 32 // self.width

    @property
    def _center(self) -> float:
        """What stands for 0, between the least level 0 and the greatest."""
        return 1.5 if self.width == 2 else float(2 ** (self.width - 1))

    def parts(self, shape: tuple[int, ...]) -> dict[str, TensorType]:
        size = math.prod(shape)
        blocks, words = -(-size // self.block), -(-size // self._in_word)
        return {"scale": TensorType(f32, (blocks,)), "code": TensorType(u32, (words,))}

    def encode(self, b: Builder, tensor: Tensor, what: str) -> dict[str, Tensor]:
        size = tensor.size
        numbers = reshape(b.stored(tensor), (size,))
        parts = self.parts(tensor.shape)
        scale = self._scale(b, numbers, what)
        inverse = b.stored(b.pointwise(_inverse, scale, what=f"{what}: inverse scale"))
        greatest = float(2**self.width - 1)

        def level(i: Index) -> Expr:
            exact = numbers.read((i,)) * inverse[i // self.block] + (self._center + 0.5)  # cut to the nearest
            return convert(maximum(minimum(exact, greatest), 0.0), u32)

        packed = _packed(b, parts["code"].shape, self._in_word, self.width, level, f"{what}: code")
        return {"scale": scale, "code": packed}

    def _scale(self, b: Builder, numbers: Tensor, what: str) -> Tensor:
        (blocks,), size = self.parts(numbers.shape)["scale"].shape, numbers.size
        averages = self.width == 2

        def gather(acc: Expr, block: Index, i: Index) -> Expr:
            number = fabs(numbers.read((block * self.block + i,)))
            return acc + number if averages else maximum(acc, number)

        sizes = b.fold((blocks,), (self.block,), gather, f"{what}: sizes of blocks")
        share = 1.0 / (self.block if averages else self._center - 1)
        rest = size - (blocks - 1) * self.block if averages else self.block

        def scaled(block: Index) -> Expr:
            if rest == self.block:
                return sizes[block] * share
            return sizes[block] * select(eq(word_of(block), const(blocks - 1, u32)), 1.0 / rest, share)

        return b.map((blocks,), scaled, f"{what}: scale")

    def decode(self, b: Builder, code: Code, shape: tuple[int, ...], what: str) -> Tensor:
        def number(i: Index) -> Expr:
            place = operation("iand", u32, word_of(i), const(self._in_word - 1, u32)) * self.width
            shifted = operation("shr", u32, code["code"][i // self._in_word], place)
            level = operation("iand", u32, shifted, const(2**self.width - 1, u32))
            return (convert(level, f32) - self._center) * code["scale"][i // self.block]

        return reshape(Tensor(f32, (math.prod(shape),), number, label=what), shape)


def _packed(
    b: Builder, words: tuple[int, ...], in_word: int, width: int, level: Callable[[Index], Expr], what: str
) -> Tensor:
    """Integers of ``width`` bits, ``in_word`` of them in each word, the first in its lowest bits."""

    def step(acc: Expr, word: Index, k: Index) -> Expr:
        shifted = operation("shl", u32, level(word * in_word + k), word_of(k) * width)
        return operation("ior", u32, acc, shifted)

    return b.fold(words, (in_word,), step, what, init=const(0, u32))


def _inverse(scale: Expr) -> Expr:
    return select(eq(scale, 0.0), 0.0, 1.0 / scale)


@dataclass(frozen=True)
class TopK(Codec):
    """The ``keep`` largest of each ``block`` of numbers, by size, as ``values`` has them; the others are 0.

    The positions take ``log2(block)`` bits each. Where two differ in their last bits only, the first counts as larger.
    Raises ValueError unless ``block`` is a power of two from 4 to 4096, and ``keep`` from 1 to a quarter of it, and 4.
    """

    block: int = 64
    keep: int = 1
    values: Quantized = Quantized(8)

    def __post_init__(self) -> None:
        if self.block.bit_count() != 1 or not 4 <= self.block <= 4096:
            raise ValueError(f"block must be a power of two from 4 to 4096, it is {self.block}")
        if not 1 <= self.keep <= min(4, self.block // 4):
            raise ValueError(f"keep must be 1 to {min(4, self.block // 4)}, it is {self.keep}")

    @property
    def _width(self) -> int:
        return self.block.bit_length() - 1

    @property
    def _in_word(self) -> int:
        return 32 // self._width

    def _kept(self, shape: tuple[int, ...]) -> int:
        return -(-math.prod(shape) // self.block) * self.keep

    def parts(self, shape: tuple[int, ...]) -> dict[str, TensorType]:
        kept = self._kept(shape)
        values = {f"value {name}": kind for name, kind in self.values.parts((kept,)).items()}
        return {"position": TensorType(u32, (-(-kept // self._in_word),)), **values}

    def encode(self, b: Builder, tensor: Tensor, what: str) -> dict[str, Tensor]:
        size = tensor.size
        numbers = reshape(b.stored(tensor), (size,))
        blocks, kept, low = -(-size // self.block), self._kept(tensor.shape), self.block - 1

        def key(i: Index, within: Index) -> Expr:
            """Size in the high bits; in the low ones the position, the first being the greatest."""
            size_of = operation("iand", u32, _word(fabs(numbers.read((i,)))), const(~low & 0xFFFFFFFF, u32))
            return operation("ior", u32, size_of, const(low, u32) - word_of(within))

        keys: list[Tensor] = []
        for k in range(self.keep):

            def larger(acc: Expr, block: Index, within: Index, k: int = k) -> Expr:
                own = key(block * self.block + within, within)
                if k:
                    own = select(lt(own, keys[k - 1][block]), own, const(0, u32))
                return select(lt(acc, own), own, acc)

            zero = const(0, u32)
            keys.append(b.fold((blocks,), (self.block,), larger, f"{what}: largest", init=zero))

        def position(i: Index) -> Expr:
            """Of the ``i``-th number that is kept: ``keep`` of each block, the largest first."""
            found = [
                operation("iand", u32, keys[k][i // self.keep], const(low, u32)) for k in range(self.keep)
            ]
            which = const(low, u32) - found[0]
            for k in range(1, self.keep):
                is_kth = eq(word_of(i % self.keep), const(k, u32))
                which = select(is_kth, const(low, u32) - found[k], which)
            return which

        positions = b.map((kept,), position, f"{what}: positions")

        def value(i: Index) -> Expr:
            return numbers.read((i // self.keep * self.block + Index.of(Word(positions[i], 0, low)),))

        chosen = b.map((kept,), value, f"{what}: largest numbers")

        code = self.values.encode(b, chosen, what)
        words = self.parts(tensor.shape)["position"].shape
        packed = _packed(
            b, words, self._in_word, self._width, lambda i: positions.read((i,)), f"{what}: positions, packed"
        )
        return {"position": packed, **{f"value {name}": part for name, part in code.items()}}

    def decode(self, b: Builder, code: Code, shape: tuple[int, ...], what: str) -> Tensor:
        size, kept = math.prod(shape), self._kept(shape)
        blocks, width = kept // self.keep, self._width
        values = self.values.decode(
            b,
            {name.removeprefix("value "): part for name, part in code.items() if name != "position"},
            (kept,),
            what,
        )
        numbers = b.stored(values)

        def place(i: Index) -> Expr:
            shift = (word_of(i) - word_of(i // self._in_word) * self._in_word) * width
            word = operation("shr", u32, code["position"][i // self._in_word], shift)
            return operation("iand", u32, word, const(self.block - 1, u32))

        places = b.map((kept,), place, f"{what}: positions")

        def number(block: Index, within: Index) -> Expr:
            total: Expr = const(0.0)
            for k in range(self.keep):
                i = block * self.keep + k
                total = select(eq(places[i], word_of(within)), numbers[i], total)
            return total

        dense = b.map((blocks, self.block), number, what)
        flat = reshape(dense, (blocks * self.block,))
        return reshape(Tensor(f32, (size,), lambda i: flat[i], label=what), shape)


def _word(number: Expr) -> Expr:
    """The bits of a number as an integer: operations are on words, whatever those mean."""
    return replace(number, dtype=u32)


@dataclass(frozen=True)
class Cosine(Codec):
    """``codec`` of the numbers' discrete cosine transform, in chunks of ``chunk``: slow changes become few numbers.

    As in DeMo (Peng and others, 2024, arXiv 2411.19870). Raises ValueError for a chunk below 2 or above 256.
    """

    codec: Codec = TopK()
    chunk: int = 64

    def __post_init__(self) -> None:
        if not 2 <= self.chunk <= 256:
            raise ValueError(f"chunk must be 2 to 256, it is {self.chunk}")

    def _chunks(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return -(-math.prod(shape) // self.chunk), self.chunk

    def parts(self, shape: tuple[int, ...]) -> dict[str, TensorType]:
        return self.codec.parts(self._chunks(shape))

    def _basis(self, b: Builder) -> Tensor:
        """Row k: the k-th cosine, so that the matrix is orthogonal."""
        n = self.chunk
        k, i = np.arange(n)[:, None], np.arange(n)[None, :]
        basis = np.cos(math.pi * (2 * i + 1) * k / (2 * n)) * np.where(
            k == 0, math.sqrt(1 / n), math.sqrt(2 / n)
        )
        return b.table(basis.astype(np.float32), "cosines")

    def encode(self, b: Builder, tensor: Tensor, what: str) -> dict[str, Tensor]:
        basis, shape = self._basis(b), self._chunks(tensor.shape)
        numbers = reshape(b.stored(tensor), (tensor.size,))

        def product(chunk: Index, k: Index, i: Index) -> tuple[Expr, Expr]:
            return numbers.read((chunk * self.chunk + i,)), basis[k, i]

        spectrum = b.contract(shape, (self.chunk,), product, f"{what}: cosine transform")
        return self.codec.encode(b, spectrum, what)

    def decode(self, b: Builder, code: Code, shape: tuple[int, ...], what: str) -> Tensor:
        basis, chunks = self._basis(b), self._chunks(shape)
        spectrum = b.stored(self.codec.decode(b, code, chunks, what))

        def product(chunk: Index, i: Index, k: Index) -> tuple[Expr, Expr]:
            return spectrum[chunk, k], basis[k, i]

        numbers = b.contract(chunks, (self.chunk,), product, f"{what}: inverse cosine transform")
        flat = reshape(numbers, (math.prod(chunks),))
        return reshape(Tensor(f32, (math.prod(shape),), lambda i: flat[i], label=what), shape)
