"""Elementary functions, each defined as a straight-line body over primitive operations."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FUNCTIONS", "Function"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one word: immediates and instructions ``(code, a, b, c)``, in the references of a nest's body.

    Reference 0 is unused, 1 is the argument, the next ``len(immediates)`` are the immediates, then one for each
    instruction; the last instruction is the result.
    """

    name: str
    immediates: tuple[int, ...]
    body: tuple[tuple[int, int, int, int], ...]


FUNCTIONS: dict[str, Function] = {}
