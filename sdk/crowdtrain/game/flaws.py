"""Programs that break a rule of validity, and the proof of it: whoever commits a result for one is
overturned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crowdtrain_engine import merkle
from crowdtrain_engine._codec import Reader
from crowdtrain_engine._errors import ProgramError
from crowdtrain_engine.header import Header
from crowdtrain_engine.program import Nest

from crowdtrain.chain import Game, Phase, ProgramLeaf
from crowdtrain.game import moves
from crowdtrain.game.positions import CHALLENGER_PHASES
from crowdtrain.game.trees import NO_LEAF, pair

__all__ = [
    "CARRIED", "NO_TENSOR", "Flaw", "decode_nest", "find_flaw", "is_invalid_header", "is_invalid_nest", "split_leaves",
]  # fmt: skip

NO_TENSOR = 2**32 - 1
"""stands for a flaw of the header alone: there is no state tensor of this number"""


CARRIED = 2**17 - 2**12
"""bytes of leaves that a transaction carries: nodes relay none of more than 2^17 bytes"""


def split_leaves(data: bytes) -> tuple[bytes, ...]:
    """The leaves in a program's file, which may break any rule. Raises ProgramError if not framed."""
    reader = Reader(data, "program")
    leaves = []
    while not reader.done:
        leaves.append(reader.raw(reader.u32()))
    return tuple(leaves)


@dataclass(frozen=True, slots=True)
class Flaw:
    """A rule that a program breaks: in nest ``nest`` as it reads value ``read``, or, where ``nest`` is
    None, in the header as it makes a value the next ``tensor``."""

    leaves: tuple[bytes, ...]
    nest: int | None
    read: int = 0
    tensor: int = NO_TENSOR

    def prove(self, game: Game) -> moves.Move | None:
        """The move that proves it, or None if it is not the challenger's turn.

        A header that no transaction carries is not proved: the game goes on to the step, where it is the defender who
        must show it.
        """
        if game.phase not in CHALLENGER_PHASES:
            return None
        if len(self.leaves[0]) > CARRIED:
            pick = moves.PickCheckpoint if game.phase is Phase.PICK_CHECKPOINT else moves.PickStep
            return pick(game.id, game.position, *pair(game, 1))
        if self.nest is None:
            return moves.ProveInvalidHeader(
                game.id, game.position, self._leaf(0), self.tensor, self._producer(self._next())
            )
        nest, producer = self._leaf(2 + self.nest), self._producer(self.read)
        return moves.ProveInvalidNest(
            game.id, game.position, self._leaf(0), self.nest, nest, self.read, producer
        )

    def _leaf(self, index: int) -> ProgramLeaf:
        tree = merkle.Tree([merkle.leaf(leaf) for leaf in self.leaves])
        return ProgramLeaf(self.leaves[index], tuple(tree.proof(index)))

    def _next(self) -> int:
        if self.tensor == NO_TENSOR:
            return 0
        return Header.decode(self.leaves[0]).next[self.tensor]

    def _producer(self, value: int) -> ProgramLeaf:
        """The nest that gives ``value``; nothing for state and data."""
        if self.nest is None and self.tensor == NO_TENSOR:
            return NO_LEAF
        first = Header.decode(self.leaves[0]).first_nest
        last = len(self.leaves) - 2 if self.nest is None else self.nest
        return self._leaf(2 + value - first) if first <= value < first + last else NO_LEAF


def find_flaw(leaves: Sequence[bytes]) -> Flaw | None:
    """The first rule that the program with these leaves breaks, if it can be proved.

    None for a valid program; for one whose header counts other nests than are there: nobody knows such a
    program, and nobody can prove anything about it; and for one with a malformed nest that no transaction carries.
    """
    leaves = tuple(leaves)
    if is_invalid_header(leaves[0], NO_TENSOR, b""):
        return Flaw(leaves, None)
    header = Header.decode(leaves[0])
    if header.nests != len(leaves) - 2:
        return None
    types = [*header.state, *header.data]
    for index, data in enumerate(leaves[2:]):
        try:
            nest = decode_nest(data)
        except ProgramError:
            return Flaw(leaves, index) if len(leaves[0]) + len(data) <= CARRIED else None
        if _reads_wrongly(header, index, nest):
            return Flaw(leaves, index)
        for read in nest.reads:
            if math.prod(read.shape) != types[read.value].size:
                return Flaw(leaves, index, read=read.value)
        types.append(nest.type)
    for tensor, value in enumerate(header.next):
        if not types[value].fits(header.state[tensor]):
            return Flaw(leaves, None, tensor=tensor)
    return None


def decode_nest(data: bytes) -> Nest:
    """The nest in ``data`` as the Referee decodes it. Raises ProgramError if it breaks a rule, or is open."""
    nest = Nest.decode(data)
    if any(0 in read.shape for read in nest.reads):
        raise ProgramError("nest", "reads a tensor without words")
    return nest


def _reads_wrongly(header: Header, index: int, nest: Nest) -> bool:
    """Whether a nest reads a value that does not come before it."""
    return any(read.value >= header.first_nest + index for read in nest.reads)


def is_invalid_nest(header: bytes, index: int, nest: bytes, read: int, producer: bytes) -> bool:
    """What ``IReferee.isInvalid`` says. Raises ProgramError if the header, or the producer where it is needed, is
    malformed.
    """
    known = Header.decode(header)
    try:
        decoded = decode_nest(nest)
    except ProgramError:
        return True
    if _reads_wrongly(known, index, decoded):
        return True
    words = {math.prod(operand.shape) for operand in decoded.reads if operand.value == read}
    return bool(words) and words != {_words(known, read, producer)}


def _words(header: Header, value: int, producer: bytes) -> int:
    types = (*header.state, *header.data)
    return (types[value] if value < len(types) else decode_nest(producer).type).size


def is_invalid_header(header: bytes, tensor: int, producer: bytes) -> bool:
    """What ``IReferee.isInvalidHeader`` says. Raises ProgramError if the producer is needed and malformed."""
    try:
        known = Header.decode(header)
        if tensor >= len(known.state):
            known.validate(may_be_open=False)
            return False
    except ProgramError:
        return True
    value, types = known.next[tensor], (*known.state, *known.data)
    if value >= known.values:
        return True
    kind = types[value] if value < len(types) else decode_nest(producer).type
    return not kind.fits(known.state[tensor])
