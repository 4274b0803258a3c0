"""What lowering raises.

LoweringError
├── InvalidOption          an argument of ``lower`` that makes no sense, alone or for this model
├── UnsupportedModel       parameters, buffers, examples or a loss that no program can hold
├── UnsupportedOperation   an operation that has no lowering: ``operation``, ``module``, ``source``, ``hint``
└── DataDependent          Python code that needs a tensor's values while the model is traced

"""

from __future__ import annotations

from dataclasses import dataclass

from crowdtrain._errors import LoweringError

__all__ = [
    "DataDependent",
    "InvalidOption",
    "LoweringError",
    "Place",
    "UnsupportedModel",
    "UnsupportedOperation",
]


@dataclass(frozen=True)
class Place:
    """Where in the user's model something comes from."""

    module: str = ""
    """dotted path of the innermost module; empty for the model itself"""
    source: str = ""
    """``file:line: code`` of the user's innermost line"""
    backward: bool = False
    """whether it is the gradient of what stands there"""

    def __str__(self) -> str:
        text = f"module {self.module!r}" if self.module else "the model itself"
        return f"{text}, {self.source}" if self.source else text


class InvalidOption(LoweringError, ValueError):
    """An argument that makes no sense, alone or for this model."""


class UnsupportedModel(LoweringError, ValueError):
    """Parameters, buffers, examples or a loss that cannot be part of a program."""


class UnsupportedOperation(LoweringError):
    """An operation that cannot be lowered."""

    def __init__(self, operation: str, place: Place, why: str = "", hint: str = "") -> None:
        text = f"{operation} cannot be lowered"
        if why:
            text += f" ({why})"
        text += f"; it is used {'in the gradient of' if place.backward else 'by'} {place}"
        super().__init__(f"{text}. {hint}" if hint else text)
        self.operation = operation
        self.module = place.module
        self.source = place.source
        self.hint = hint


class DataDependent(LoweringError):
    """Python code that depends on the values of a tensor, which are known only when a program runs."""

    def __init__(self, place: Place, why: str) -> None:
        super().__init__(
            f"{place}: {why}. A program is fixed before it sees any data, so Python can neither branch on "
            f"a tensor's values nor read them; express the choice with tensor operations such as torch.where"
        )
        self.module = place.module
        self.source = place.source
