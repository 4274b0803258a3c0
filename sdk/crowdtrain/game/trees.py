"""What a player shows and proves: leaves of the program, the tree in dispute, proofs in it."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain_engine import merkle
from crowdtrain_engine.program import Program
from crowdtrain_engine.trace import Step

from crowdtrain.chain import Game, ProgramLeaf, Tree, ValueProof
from crowdtrain.game.positions import depth

__all__ = [
    "NO_LEAF",
    "children",
    "header_leaf",
    "nest_leaf",
    "output_proof",
    "pair",
    "tree_in_dispute",
    "value_proof",
]

NO_LEAF = ProgramLeaf(b"", ())


def header_leaf(program: Program) -> ProgramLeaf:
    """The program's header with its proof."""
    return ProgramLeaf(program.leaves[0], tuple(program.tree.proof(0)))


def nest_leaf(program: Program, nest: int) -> ProgramLeaf:
    """Nest number ``nest`` with its proof."""
    return ProgramLeaf(program.leaves[2 + nest], tuple(program.tree.proof(2 + nest)))


def tree_in_dispute(game: Game, step: Step) -> merkle.Tree:
    """A player's own tree of the kind in which the players descend."""
    if game.tree is Tree.NESTS:
        return step.outputs
    if game.tree is Tree.GROUPS:
        return step.after.groups
    if game.tree is Tree.TENSORS:
        return step.after.tensors[step.program.bounds.index(game.value)]
    return step.pages(game.value)


def children(game: Game, tree: merkle.Tree) -> list[bytes]:
    """What stands in ``tree`` below the node where the players stand: as many levels as are shown at once."""
    return tree.children(game.height, game.index, depth(game.height))


def pair(game: Game, i: int) -> tuple[int, bytes, tuple[bytes, ...], bytes, tuple[bytes, ...]]:
    """Number ``i`` of the states shown last: the one before it and itself, both with proofs."""
    tree = merkle.Tree(game.shown)
    return i, game.shown[i - 1], tuple(tree.proof(i - 1)), game.shown[i], tuple(tree.proof(i))


def value_proof(game: Game, step: Step, value: int) -> ValueProof:
    """Proof of a value that both players agree on, in the trees of the game.

    A nest's output is proved in the tree that the defender showed, which may differ from one's own after
    the nest in dispute.
    """
    root, proof = step.value_root(value)
    if value >= step.program.first_nest:
        proof = output_proof(game, step, value - step.program.first_nest)
    return ValueProof(value, root, tuple(proof))


def output_proof(game: Game, step: Step, nest: int) -> list[bytes]:
    """Siblings of the output of ``nest``, which comes before the nest in dispute, in the defender's tree.

    Nodes that the defender showed, or that follow from them, are the defender's. All others on the way are
    below a shown node that is not in dispute, and so the same in one's own tree.
    """
    own = step.outputs
    shown = _shown_nodes(game, own.height)
    return [
        shown.get((level, (nest >> level) ^ 1), own.levels[level][(nest >> level) ^ 1])
        for level in range(own.height)
    ]


def _shown_nodes(game: Game, height: int) -> dict[tuple[int, int], bytes]:
    """Nodes of the nests' tree by (level, index): those that the defender showed, and those between them."""
    nodes: dict[tuple[int, int], bytes] = {}
    index = 0
    for event in game.history:
        fields = event.fields
        if event.name == "ChildPicked" and fields["tree"] == Tree.NESTS:
            index = _int(fields["index"])
        if event.name == "ChildrenRevealed" and fields["tree"] == Tree.NESTS:
            shown = fields["children"]
            assert isinstance(shown, Sequence)
            levels = merkle.Tree(shown).levels
            below = height - depth(height)
            for up, nodes_up in enumerate(levels):
                start = index << (len(levels) - 1 - up)
                nodes |= {(below + up, start + i): node for i, node in enumerate(nodes_up)}
            height = below
    return nodes


def _int(field: object) -> int:
    if not isinstance(field, int):
        raise TypeError(f"an event's index must be an integer, not {field!r}")
    return field
