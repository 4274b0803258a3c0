"""Everything that this package raises on purpose.

EngineError
├── ProgramError      a program, header or nest that is not valid (also a ValueError)
├── DataError         a tensor, state or dataset that does not fit its program (also a ValueError)
└── BackendError      a backend or instruction set that does not exist or cannot run here
"""

from __future__ import annotations

__all__ = ["BackendError", "DataError", "EngineError", "ProgramError"]


class EngineError(Exception):
    """Base of all errors of the engine."""


class ProgramError(EngineError, ValueError):
    """A program is not valid. ``where`` names the part (``"header"``, ``"nest 12"``), ``why`` the rule it breaks."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class DataError(EngineError, ValueError):
    """A tensor, state or dataset does not fit what the program declares."""


class BackendError(EngineError):
    """A backend, or an instruction set of the native backend, that does not exist or cannot run on this machine."""
