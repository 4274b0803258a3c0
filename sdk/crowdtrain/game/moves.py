"""The moves of a dispute as values: decided in one place, sent in another."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from crowdtrain.chain import Chain, GameId, PageOpening, ProgramLeaf, Receipt, ValueProof

__all__ = [
    "DisputeNext", "Move", "PickCheckpoint", "PickChild", "PickPartial", "PickStep", "PickWord", "Prove",
    "ProveInvalidHeader", "ProveInvalidNest", "ProveNext", "RevealChildren", "RevealPage", "RevealPartials",
    "RevealStates", "RevealStep", "RevealTrace",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Move:
    """A move that answers ``position`` of ``game``. Fields are the arguments of the Chain's method
    ``call``.
    """

    call: ClassVar[str]
    game: GameId
    position: bytes

    def send(self, chain: Chain) -> Receipt:
        """Makes the move. Raises what the Chain's method raises."""
        receipt: Receipt = getattr(chain, self.call)(*(getattr(self, field.name) for field in fields(self)))
        return receipt


@dataclass(frozen=True, slots=True)
class RevealTrace(Move):
    call = "reveal_trace"
    checkpoints: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PickCheckpoint(Move):
    call = "pick_checkpoint"
    checkpoint: int
    before: bytes
    before_proof: tuple[bytes, ...]
    after: bytes
    after_proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RevealStates(Move):
    call = "reveal_states"
    states: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PickStep(Move):
    call = "pick_step"
    step: int
    before: bytes
    before_proof: tuple[bytes, ...]
    after: bytes
    after_proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RevealStep(Move):
    call = "reveal_step"
    header: ProgramLeaf
    children: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RevealChildren(Move):
    call = "reveal_children"
    children: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PickChild(Move):
    call = "pick_child"
    child: int
    node: bytes
    proof: tuple[bytes, ...]
    leaf: ProgramLeaf


@dataclass(frozen=True, slots=True)
class DisputeNext(Move):
    call = "dispute_next"
    header: ProgramLeaf


@dataclass(frozen=True, slots=True)
class RevealPage(Move):
    call = "reveal_page"
    words: bytes


@dataclass(frozen=True, slots=True)
class PickWord(Move):
    call = "pick_word"
    word: int
    page: bytes


@dataclass(frozen=True, slots=True)
class RevealPartials(Move):
    call = "reveal_partials"
    partials: bytes


@dataclass(frozen=True, slots=True)
class PickPartial(Move):
    call = "pick_partial"
    piece: int
    partials: bytes


@dataclass(frozen=True, slots=True)
class Prove(Move):
    call = "prove"
    header: ProgramLeaf
    nest: ProgramLeaf
    values: tuple[ValueProof, ...]
    pages: tuple[PageOpening, ...]


@dataclass(frozen=True, slots=True)
class ProveNext(Move):
    call = "prove_next"
    header: ProgramLeaf
    value: ValueProof


@dataclass(frozen=True, slots=True)
class ProveInvalidNest(Move):
    call = "prove_invalid_nest"
    header: ProgramLeaf
    index: int
    nest: ProgramLeaf
    read: int
    producer: ProgramLeaf


@dataclass(frozen=True, slots=True)
class ProveInvalidHeader(Move):
    call = "prove_invalid_header"
    header: ProgramLeaf
    tensor: int
    producer: ProgramLeaf
