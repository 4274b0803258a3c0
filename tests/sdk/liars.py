"""Players who lie: a defender whose trees hold any words and any padding, and a challenger who picks at
random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace

from crowdtrain.chain import Game, Phase, ProgramLeaf, Tree
from crowdtrain.game import Move, attack, moves
from crowdtrain.game.flaws import NO_TENSOR
from crowdtrain.game.positions import depth, piece_ends
from crowdtrain.game.trees import NO_LEAF, header_leaf, nest_leaf, pair
from crowdtrain_engine import merkle
from crowdtrain_engine.trace import Replay, StateTrees, Step

__all__ = ["Lies", "LyingReplay", "Troublemaker", "junk"]


def junk(leaves: list[bytes]) -> list[bytes]:
    """``leaves`` with something other than zero as padding."""
    padding = (1 << merkle.height(len(leaves))) - len(leaves)
    return [*leaves, *(merkle.leaf(b"junk") for _ in range(padding))]


@dataclass(frozen=True)
class Lies:
    """What a defender shows of a step besides what it computed."""

    words: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """(value, flat position, also after the end) → bits that are flipped"""
    nest_padding: bool = False
    page_padding: frozenset[int] = frozenset()
    """values whose tree of pages has something after the last page"""
    group_padding: bool = False
    tensor_padding: bool = False


class LyingReplay(Replay):
    """A replay that shows its steps with lies."""

    def lie(self, lies: Lies) -> LyingReplay:
        self.lies = lies
        return self

    def step(self, number: int) -> Step:
        return _LyingStep(super().step(number), self.lies)


class _LyingStep(Step):
    def __init__(self, honest: Step, lies: Lies) -> None:
        self.__dict__.update(honest.__dict__)
        self.lies = lies

    def page(self, value: int, index: int) -> bytes:
        page = bytearray(super().page(value, index))
        for (of, word), bits in self.lies.words.items():
            if of == value and word // merkle.PAGE_WORDS == index:
                at = 4 * (word % merkle.PAGE_WORDS)
                flipped = int.from_bytes(page[at : at + 4], "little") ^ bits
                page[at : at + 4] = flipped.to_bytes(4, "little")
        return bytes(page)

    def pages(self, value: int) -> merkle.Tree:
        count = merkle.page_count(self.values[value].size)
        leaves = [merkle.leaf(self.page(value, i)) for i in range(count)]
        return merkle.Tree(junk(leaves) if value in self.lies.page_padding else leaves)

    @property
    def outputs(self) -> merkle.Tree:
        leaves = [self.pages(value).root for value in range(self.program.first_nest, len(self.program.types))]
        return merkle.Tree(junk(leaves) if self.lies.nest_padding else leaves)

    @property
    def after(self) -> StateTrees:
        return with_padding(super().after, self.lies)


def with_padding(trees: StateTrees, lies: Lies) -> StateTrees:
    """Trees of a state with junk as padding where ``lies`` says so."""
    trees = copy(trees)
    if lies.tensor_padding:
        trees.tensors = [merkle.Tree(junk(tree.levels[0][: _count(tree)])) for tree in trees.tensors]
    groups = [tree.root for tree in trees.tensors]
    trees.groups = merkle.Tree(junk(groups) if lies.group_padding else groups)
    return trees


def _count(tree: merkle.Tree) -> int:
    return sum(leaf != merkle.ZERO for leaf in tree.levels[0])


class Troublemaker:
    """A challenger without a case, who moves at random as long as a move is not refused."""

    def __init__(
        self, replay: Replay, rng: random.Random, *, give_up: float = 0.05, claim: float = 0.05
    ) -> None:
        self.replay = replay
        self.rng = rng
        self.give_up = give_up
        self.claim = claim

    def __call__(self, game: Game) -> Move | None:
        chance = self.rng.random()
        if chance < self.give_up:
            return None
        if chance < self.give_up + self.claim:
            return self.false_claim(game)
        return _RANDOM.get(game.phase, _honest)(self, game)

    def false_claim(self, game: Game) -> Move:
        """That the valid program is not valid."""
        program = self.replay.program
        header = header_leaf(program)
        if self.rng.random() < 0.5:
            tensor = self.rng.choice([NO_TENSOR, *range(len(program.state))])
            value = 0 if tensor == NO_TENSOR else program.next[tensor]
            return moves.ProveInvalidHeader(game.id, game.position, header, tensor, self._producer(value))
        index = self.rng.randrange(len(program.nests))
        reads = [read.value for read in program.nests[index].reads] or [0]
        read = self.rng.choice(reads)
        leaf = nest_leaf(program, index)
        return moves.ProveInvalidNest(game.id, game.position, header, index, leaf, read, self._producer(read))

    def _producer(self, value: int) -> ProgramLeaf:
        program = self.replay.program
        return nest_leaf(program, value - program.first_nest) if value >= program.first_nest else NO_LEAF

    def pair(self, game: Game) -> Move:
        """Any checkpoint, or any step."""
        make = moves.PickCheckpoint if game.phase is Phase.PICK_CHECKPOINT else moves.PickStep
        return make(game.id, game.position, *pair(game, self.rng.randrange(1, len(game.shown))))

    def child(self, game: Game) -> Move:
        """Any child, or the claim that the next state is not made of the values."""
        program = self.replay.program
        at_root = game.tree is Tree.NESTS and game.node == game.nests_root
        if at_root and self.rng.random() < 0.3:
            return moves.DisputeNext(game.id, game.position, header_leaf(program))
        below = depth(game.height)
        shown = (game.node,) if below == 0 else game.shown
        child = self.rng.randrange(len(shown))
        index = (game.index << below) + child
        leaf = NO_LEAF
        if game.height == below and index < game.count:
            if game.tree is Tree.NESTS:
                leaf = nest_leaf(program, index)
            elif game.tree is Tree.GROUPS:
                leaf = header_leaf(program)
        proof = tuple(merkle.Tree(shown).proof(child))
        return moves.PickChild(game.id, game.position, child, shown[child], proof, leaf)

    def word(self, game: Game) -> Move:
        """Any word of the page, also after the tensor's end."""
        inside = min(merkle.PAGE_WORDS, game.words - merkle.PAGE_WORDS * game.index)
        limit = inside if self.rng.random() < 0.8 else merkle.PAGE_WORDS
        return moves.PickWord(game.id, game.position, self.rng.randrange(limit), game.page)

    def partial(self, game: Game) -> Move:
        """Any piece."""
        piece = self.rng.randrange(len(piece_ends(game.from_, game.to)))
        partials = b"".join(word.to_bytes(4, "big") for word in game.partials)
        return moves.PickPartial(game.id, game.position, piece, partials)

    def forgeries(self, game: Game) -> list[Move]:
        """The last move of the right kind, with something in it that is not as it was committed."""
        move = _honest(self, game)
        if isinstance(move, moves.Prove):
            return _forged_proofs(self.replay, game, move)
        assert isinstance(move, moves.ProveNext)
        right = move.value
        others = [number for number in range(len(self.replay.program.types)) if number != right.value]
        wrong = [replace(right, value=number) for number in others]
        return [
            replace(move, value=value) for value in [*wrong, replace(right, root=merkle.leaf(right.root))]
        ]


def _forged_proofs(run: Replay, game: Game, move: moves.Prove) -> list[Move]:
    program, forged = run.program, []
    for i, page in enumerate(move.pages):
        changes = (
            replace(page, words=bytes(byte ^ 1 for byte in page.words)),
            replace(page, index=page.index + 1),
            replace(page, proof=(*page.proof, bytes(32))),
        )
        for change in changes:
            forged.append(replace(move, pages=(*move.pages[:i], change, *move.pages[i + 1 :])))
        forged.append(replace(move, pages=(*move.pages[:i], *move.pages[i + 1 :])))
    for i, value in enumerate(move.values):
        for wrong in (replace(value, root=merkle.leaf(value.root)), replace(value, value=game.value)):
            forged.append(replace(move, values=(*move.values[:i], wrong, *move.values[i + 1 :])))
    for nest in range(min(3, len(program.nests))):
        if nest != game.value - program.first_nest:
            forged.append(replace(move, nest=nest_leaf(program, nest)))
    forged.append(replace(move, header=nest_leaf(program, 0)))
    return list(forged)


def _honest(player: Troublemaker, game: Game) -> Move:
    move = attack(game, player.replay)
    assert move is not None
    return move


_RANDOM: Mapping[Phase, Callable[[Troublemaker, Game], Move]] = {
    Phase.PICK_CHECKPOINT: Troublemaker.pair,
    Phase.PICK_STEP: Troublemaker.pair,
    Phase.PICK_CHILD: Troublemaker.child,
    Phase.PICK_WORD: Troublemaker.word,
    Phase.PICK_PARTIAL: Troublemaker.partial,
}
