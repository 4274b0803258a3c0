"""What a step's time is spent on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NestTime"]


@dataclass(frozen=True, slots=True)
class NestTime:
    """Nests that a backend runs together, and how long they took."""

    nests: tuple[int, ...]
    """their numbers"""
    kind: str
    """what runs them: the backend's word for a single nest's plan, ``"rows"`` where several run together by rows"""
    seconds: float
    """in all steps together"""
