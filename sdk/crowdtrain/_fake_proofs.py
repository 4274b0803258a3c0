"""What the fake Dispute accepts as proved: leaves of lists and programs, and values of a step."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain_engine import merkle
from crowdtrain_engine._errors import ProgramError
from crowdtrain_engine.header import Header

from crowdtrain._fake_world import require, revert
from crowdtrain.chain import Game, ProgramLeaf, ValueProof

__all__ = ["open_header", "require_leaf", "require_length", "require_program_leaf", "require_value"]


def require_length(actual: int, needed: int) -> None:
    """Refuses a list of another length."""
    require(actual == needed, "WrongLength", actual=actual, needed=needed)


def require_leaf(root: bytes, count: int, leaf: bytes, index: int, proof: Sequence[bytes]) -> None:
    """Refuses unless ``leaf`` stands at ``index`` of the tree with ``count`` leaves."""
    fits = len(proof) == merkle.height(count)
    require(fits and merkle.verify(root, leaf, index, proof), "BadProof")


def require_program_leaf(game: Game, nests: int, index: int, leaf: ProgramLeaf) -> None:
    """Refuses unless ``leaf`` stands at ``index`` of the tree of a program with ``nests`` nests."""
    require_leaf(game.program_root, 2 + nests, merkle.leaf(leaf.data), index, leaf.proof)


def open_header(game: Game, header: ProgramLeaf) -> Header:
    """The header in a leaf of the program in dispute."""
    try:
        known = Header.decode(header.data)
    except ProgramError as error:
        revert("InvalidHeader", why=error.why)
    require_program_leaf(game, known.nests, 0, header)
    return known


def require_value(game: Game, known: Header, value: ValueProof) -> None:
    """Refuses unless ``value`` is one of the step in dispute: of the state before it, the data, or a nest's
    output.
    """
    number, state = value.value, len(known.state)
    if number >= known.first_nest:
        index = number - known.first_nest
        require(index < known.nests, "BadProof")
        require_leaf(game.nests_root, known.nests, value.root, index, value.proof)
    elif number >= state:
        require_leaf(game.data_root, len(known.data), value.root, number - state, value.proof)
    else:
        group = 0
        while number >= known.groups[group]:
            number -= known.groups[group]
            group += 1
        inside = merkle.height(known.groups[group])
        root = value.root
        for level, sibling in enumerate(value.proof[:inside]):
            pair = (sibling, root) if number >> level & 1 else (root, sibling)
            root = merkle.node(*pair)
        require_leaf(game.before, len(known.groups), root, group, value.proof[inside:])
