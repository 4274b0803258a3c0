"""The table of lowerings: from the name of an ATen operation to the function that builds its nests.

A new operation is a new row: a function decorated with :func:`lowers`. It takes the builder and then the
operation's own arguments, with tensors as :class:`Tensor` and data types as ``DType``, and returns what the
operation returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from crowdtrain_engine import DType

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.errors import LoweringError
from crowdtrain.lowering.expr import Expr, convert, f32, i32, ne, u32
from crowdtrain.lowering.tensor import Tensor

__all__ = ["HINTS", "TABLE", "CannotLower", "Row", "as_dtype", "axes", "lowers", "number", "promote"]

Row = Callable[..., Any]

TABLE: dict[str, Row] = {}
"""Lowerings by names such as ``aten.add.Tensor``."""

_FACTORISED = (
    "Compute it before training and keep it in a buffer, if it depends on nothing that is trained; else take some "
    "steps of an iteration made of products"
)
_TRANSFORM = "Multiply by the matrix of the transform: a buffer of cosines and one of sines"
HINTS: dict[str, str] = {
    **dict.fromkeys(
        (
            "aten._linalg_det", "aten._linalg_eigh", "aten._linalg_slogdet", "aten._linalg_solve_ex",
            "aten._linalg_svd", "aten.linalg_cholesky_ex", "aten.linalg_inv_ex", "aten.linalg_qr",
        ),
        _FACTORISED,
    ),
    **dict.fromkeys(("aten._fft_c2c", "aten._fft_c2r", "aten._fft_r2c"), _TRANSFORM),
    "aten._embedding_bag": "Take embedding() and the sum, mean or max over each bag",
    "aten._local_scalar_dense": "Keep the value in a tensor instead of reading it with item()",
    "aten._pdist_forward": "Take the norms of differences, (x[:, None] - x).norm(dim=-1), and those above the diagonal",
    "aten.grid_sampler_2d": "Use interpolate if the grid is regular, else gather the four neighbours and weigh them",
    "aten.multi_margin_loss_backward": "Write it with gather and clamp",
    "aten.multinomial": "Compare uniform numbers with the cumulated probabilities, or use gumbel_softmax",
    "aten.rrelu_with_noise_functional": "Use leaky_relu, or a product with rand_like where x is negative",
    "aten.randperm": "Sort uniform numbers: torch.rand(n).argsort()",
}  # fmt: skip
"""What to use instead, by the name of an operation without its overload."""


class CannotLower(LoweringError):
    """A row cannot lower an operation with these arguments; ``why``, and what to use instead."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


def lowers(*names: str) -> Callable[[Row], Row]:
    """Enters a function as the lowering of the operations ``names``, without the leading ``aten.``"""

    def enter(row: Row) -> Row:
        for name in names:
            if f"aten.{name}" in TABLE:
                raise ValueError(f"aten.{name} has two lowerings")
            TABLE[f"aten.{name}"] = row
        return row

    return enter


def axes(dims: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Dimensions counted from 0, ascending; all of them for None or nothing."""
    if dims is None or dims == [] or dims == ():
        return tuple(range(rank))
    return tuple(sorted({d % rank if rank else 0 for d in ([dims] if isinstance(dims, int) else dims)}))


def promote(*values: Tensor | float | int) -> DType:
    """The type in which PyTorch computes with these: f32 before i32 before bool."""
    dtypes = {value.dtype for value in values if isinstance(value, Tensor)}
    for value in values:
        if isinstance(value, float):
            dtypes.add(f32)
        elif isinstance(value, int) and not isinstance(value, bool):
            dtypes.add(i32)
    return f32 if f32 in dtypes else i32 if i32 in dtypes else u32


def as_dtype(expr: Expr, dtype: DType) -> Expr:
    """``expr`` as PyTorch converts it: to bool, everything but 0 is true."""
    return ne(expr, 0) if dtype is u32 and expr.dtype is not u32 else convert(expr, dtype)


def number(b: Builder, value: Tensor | float | int, dtype: DType) -> Tensor:
    """``value`` as a tensor of type ``dtype``: a number becomes a constant."""
    if not isinstance(value, Tensor):
        return b.constant(value, dtype)
    if value.dtype is dtype:
        return value
    return b.pointwise(lambda v: as_dtype(v, dtype), value, what="conversion")
