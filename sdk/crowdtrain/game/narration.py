"""Disputes in plain words, for people who watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from crowdtrain_engine import DType, Program
from crowdtrain_engine.merkle import height

from crowdtrain.chain import ChainEvent, Game, Reason, Tree
from crowdtrain.game.positions import depth

__all__ = ["narrate"]

_ENDS: Mapping[Reason, str] = {
    Reason.WRONG_WORD: "the contract computes another word than the solver",
    Reason.RIGHT_WORD: "the contract computes the solver's word",
    Reason.BAD_BINDING: "what the solver showed does not begin or end with what was committed",
    Reason.BINDING_HOLDS: "the next state is what the program makes it, after all",
    Reason.BAD_CHILDREN: "what the solver showed does not hash to what was committed",
    Reason.BAD_PADDING: "something other than zero stands after the end",
    Reason.PADDING_HOLDS: "after the end stands zero, as it should",
    Reason.INVALID_PROGRAM: "the program is not valid",
    Reason.VALID_PROGRAM: "the program is valid, after all",
    Reason.TIMEOUT: "the loser's clock ran out",
    Reason.MOOT: "somebody else overturned or voided the work first",
}


def narrate(game: Game, program: Program | None) -> list[str]:
    """One sentence for each event of the game so far, in order. ``program`` gives names; without it,
    numbers.
    """
    teller = _Teller(game, program)
    return [teller.tell(event) for event in game.history]


@dataclass
class _Teller:
    """Where in the claim the events have led so far."""

    game: Game
    program: Program | None
    checkpoint: int = 0
    step: int = 0
    nest: int | None = None
    group: int | None = None
    level: int = 0
    """height of the node where the players stand"""
    lists: list[str] = field(default_factory=list)

    def tell(self, event: ChainEvent) -> str:
        teller = _TELLERS.get(event.name)
        return teller(self, event.fields) if teller else event.name

    def challenged(self, fields: Mapping[str, object]) -> str:
        return f"segment {fields['segment']}, attempt {_int(fields['attempt']) + 1} is challenged"

    def trace(self, fields: Mapping[str, object]) -> str:
        return f"the solver shows the roots of {_count(fields['checkpoints']) - 1} checkpoints"

    def checkpoint_picked(self, fields: Mapping[str, object]) -> str:
        self.checkpoint = _int(fields["checkpoint"])
        self.step = first = (self.checkpoint - 1) * self.game.interval
        last = min(first + self.game.interval, self.game.steps)
        return (
            f"the challenger says that checkpoint {self.checkpoint} is wrong, after {_steps(first + 1, last)}"
        )

    def states(self, fields: Mapping[str, object]) -> str:
        shown = _count(fields["states"]) - 1
        return f"the solver shows the states after {_steps(self.step + 1, self.step + shown)}"

    def step_picked(self, fields: Mapping[str, object]) -> str:
        self.step += _int(fields["step"]) - 1
        return f"the challenger says that step {self.step + 1} is the first wrong one"

    def children(self, fields: Mapping[str, object]) -> str:
        tree, shown = Tree(_int(fields["tree"])), _count(fields["children"])
        if tree is Tree.NESTS and self.program is not None and not self.lists:
            self.level = height(len(self.program.nests))
        self.lists.append(tree.name)
        return f"step {self.step + 1}: the solver shows {_CHILDREN[tree].format(shown)}{self._of(tree)}"

    def child(self, fields: Mapping[str, object]) -> str:
        tree, index = Tree(_int(fields["tree"])), _int(fields["index"])
        self.level -= depth(self.level)
        what = f"part {index} of the {tree.name.lower()}{self._of(tree)}"
        if self.program is not None and not self.level:
            what = self._leaf(self.program, tree, index)
        return f"step {self.step + 1}: the challenger says that {what} is wrong"

    def _leaf(self, program: Program, tree: Tree, index: int) -> str:
        if tree is Tree.NESTS:
            if index >= len(program.nests):
                return f"what stands after the last of {len(program.nests)} values"
            self.nest = index
            self.level = height(-(-program.nests[index].type.size // 256))
            return f"{program.labels.nests[index]} (nest {index})"
        if tree is Tree.GROUPS:
            if index >= len(program.groups):
                return "what stands after the last group"
            self.group = index
            self.level = height(program.groups[index])
            return f"{program.labels.groups[index]} (group {index} of the next state)"
        if tree is Tree.TENSORS and self.group is not None:
            if index >= program.groups[self.group]:
                return "what stands after the last tensor of the group"
            return f"{program.labels.state[program.bounds[self.group] + index]} (tensor {index} of the group)"
        return f"page {index}{self._of(tree)}"

    def _of(self, tree: Tree) -> str:
        if tree is Tree.PAGES and self.nest is not None and self.program is not None:
            return f" of {self.program.labels.nests[self.nest]}"
        if tree is Tree.TENSORS and self.group is not None and self.program is not None:
            return f" of {self.program.labels.groups[self.group]}"
        return ""

    def next_disputed(self, fields: Mapping[str, object]) -> str:
        if self.program is not None:
            self.level = height(len(self.program.groups))
        return f"step {self.step + 1}: every value is right, but the next state is not made of them"

    def page(self, fields: Mapping[str, object]) -> str:
        return f"the solver shows page {fields['page']}{self._of(Tree.PAGES)}"

    def word(self, fields: Mapping[str, object]) -> str:
        claimed = self._number(_int(fields["claimed"]))
        word = f"word {_int(fields['word']):,}{self._of(Tree.PAGES)}"
        return f"the challenger says that {word} is wrong, which the solver says is {claimed}"

    def partials(self, fields: Mapping[str, object]) -> str:
        words = fields["partials"]
        count = len(words) // 4 if isinstance(words, bytes) else 0
        return f"the solver shows {count} partial sum{'s' * (count != 1)} of word {self.game.word:,}"

    def partial(self, fields: Mapping[str, object]) -> str:
        start, stop = _int(fields["from"]), _int(fields["to"])
        before, after = (self._number(_int(fields[name])) for name in ("accumulator", "claimed"))
        terms = f"terms {start:,} to {stop - 1:,} from {before} to {after}"
        return f"the challenger says that the solver is wrong to sum {terms}"

    def judged(self, fields: Mapping[str, object]) -> str:
        claimed, computed = (self._number(_int(fields[name])) for name in ("claimed", "computed"))
        where = f"checkpoint {self.checkpoint}, step {self.step + 1}"
        word = f"word {self.game.word:,}{self._of(Tree.PAGES)}"
        return f"{where}, {word}: the solver says {claimed}, the contract computes {computed}"

    def closed(self, fields: Mapping[str, object]) -> str:
        reason = Reason(_int(fields["reason"]))
        outcome = "no bond is lost"
        if reason is not Reason.MOOT:
            won = fields["winner"] == self.game.challenger
            outcome = "the work is overturned" if won else "the work stands"
        return f"{outcome}: {_ENDS.get(reason, reason.name)}"

    def _number(self, word: int) -> str:
        dtype = DType.f32
        if self.program is not None and self.nest is not None:
            dtype = self.program.nests[self.nest].dtype
        number = np.uint32(word).view(dtype.numpy)
        return f"{number:.9g}" if dtype is DType.f32 else f"{number:,}"


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"an event field must be an integer, not {value!r}")
    return value


def _count(value: object) -> int:
    if not isinstance(value, Sequence):
        raise TypeError(f"an event field must be a list, not {value!r}")
    return len(value)


def _steps(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"


_CHILDREN: Mapping[Tree, str] = {
    Tree.NESTS: "{} hashes of the values",
    Tree.GROUPS: "{} hashes of the groups of the next state",
    Tree.TENSORS: "{} hashes of the tensors",
    Tree.PAGES: "{} hashes of the pages",
}

_TELLERS: Mapping[str, Callable[[_Teller, Mapping[str, object]], str]] = {
    "Challenged": _Teller.challenged,
    "TraceRevealed": _Teller.trace,
    "CheckpointPicked": _Teller.checkpoint_picked,
    "StatesRevealed": _Teller.states,
    "StepPicked": _Teller.step_picked,
    "ChildrenRevealed": _Teller.children,
    "ChildPicked": _Teller.child,
    "NextDisputed": _Teller.next_disputed,
    "PageRevealed": _Teller.page,
    "WordPicked": _Teller.word,
    "PartialsRevealed": _Teller.partials,
    "PartialPicked": _Teller.partial,
    "Judged": _Teller.judged,
    "Closed": _Teller.closed,
}
