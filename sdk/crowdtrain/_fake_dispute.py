"""The Dispute's rules, for the fake chain. Each entry of ``MOVES`` is one move of
``contracts/Dispute.sol``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from crowdtrain_engine import merkle
from crowdtrain_engine._errors import ProgramError
from crowdtrain_engine.program import Nest
from crowdtrain_engine.trace import checkpoint_count, seal

from crowdtrain import _fake_market as market
from crowdtrain._fake_proofs import (
    open_header,
    require_leaf,
    require_length,
    require_program_leaf,
    require_value,
)
from crowdtrain._fake_world import NOBODY, World, require, revert
from crowdtrain.chain import (
    Address,
    Game,
    GameId,
    PageOpening,
    Phase,
    ProgramLeaf,
    Reason,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    Tree,
    ValueProof,
)
from crowdtrain.game.flaws import NO_TENSOR, decode_nest, is_invalid_header, is_invalid_nest
from crowdtrain.game.judge import MissingPageError, evaluate
from crowdtrain.game.positions import CHALLENGER_PHASES, DEFENDER_PHASES, depth, fan_out, is_short, piece_ends
from crowdtrain.plan import leaf

__all__ = ["MOVES", "challenge", "close", "play", "timeout"]

_ZERO = bytes(32)


def challenge(world: World, sender: Address, key: SegmentKey, spec: SegmentSpec, named: bytes) -> GameId:
    """Begins a dispute of a committed segment."""
    segment = market.segment_of(world, key)
    market.require_state(segment, SegmentState.COMMITTED)
    require(world.time <= segment.until, "WindowOver", until=segment.until)
    require(segment.seal == named, "SealChanged", actual=segment.seal, named=named)
    require(leaf(spec) == segment.leaf, "BadProof")
    terms = world.jobs[key.job].terms
    begins = max(world.time, terms.attest_until(segment.until) + 1)
    game = GameId(len(world.games) + 1)
    world.segments[key] = replace(segment, games=segment.games + 1)
    world.games[game] = Game(
        id=game, key=key, attempt=segment.attempt, phase=Phase.REVEAL_TRACE, tree=Tree.NESTS, height=0,
        reason=Reason.NONE, challenger=sender, defender=segment.solver, since=begins,
        challenger_left=terms.clock, defender_left=terms.clock, bond=terms.stake,
        position=_position(b"", game, key, segment.attempt), program_root=spec.program_root,
        data_root=spec.data_root, steps=spec.steps, interval=spec.interval, first=0, length=spec.steps,
        list_count=0, index=0, count=0, value=0, before=segment.input_root, after=segment.output_root,
        list_root=segment.seal, nests_root=_ZERO, node=_ZERO, words=0, fold_length=0, word=0, from_=0, to=0,
        accumulator=0, claimed=0,
    )  # fmt: skip
    world.emit(
        "Dispute", "Challenged", game=game, job=key.job, segment=key.index, attempt=segment.attempt, challenger=sender,
        defender=segment.solver,
    )  # fmt: skip
    world.lock(sender, terms.stake)
    return game


def play(world: World, sender: Address, name: str, id: GameId, position: bytes, *arguments: object) -> None:
    """Makes the move ``name``: checks phase, position, player and clock, then applies the move's rule."""
    phase, rule = MOVES[name]
    game = world.games.get(id) or revert("WrongPhase", actual=Phase.NONE, needed=phase or Phase.OVER)
    if phase is None:
        _require_running(game)
        require(game.phase in CHALLENGER_PHASES, "NotPlayer", mover=game.defender, caller=sender)
    else:
        require(game.phase is phase, "WrongPhase", actual=game.phase, needed=phase)
    require(game.position == position, "WrongPosition", actual=game.position, answered=position)
    mover, left = _mover(game)
    require(sender == mover, "NotPlayer", mover=mover, caller=sender)
    require(world.time >= game.since, "NotBegun", since=game.since)
    require(world.time <= game.since + left, "ClockOver", since=game.since, left=left)
    clock = "defender_left" if mover_is_defender(game) else "challenger_left"
    game = replace(
        game,
        since=world.time,
        position=_position(position, name, *arguments),
        **{clock: left - (world.time - game.since)},  # type: ignore[arg-type]
    )
    world.games[id] = game
    world.games[id] = rule(world, game, *arguments)


def timeout(world: World, sender: Address, id: GameId) -> None:
    """Ends a game in which the clock of the player who has to move ran out."""
    game = world.games.get(id) or revert("WrongPhase", actual=Phase.NONE, needed=Phase.OVER)
    _require_running(game)
    left = _mover(game)[1]
    require(world.time > game.since + left, "ClockRunning", since=game.since, left=left)
    world.games[id] = _end(world, game, Reason.TIMEOUT, overturns=mover_is_defender(game))


def close(world: World, sender: Address, id: GameId) -> None:
    """Ends a game whose attempt is gone."""
    game = world.games.get(id) or revert("WrongPhase", actual=Phase.NONE, needed=Phase.OVER)
    _require_running(game)
    require(_is_moot(world, game), "NotMoot")
    world.games[id] = _end(world, game, Reason.MOOT, overturns=False)


def mover_is_defender(game: Game) -> bool:
    """Whether the defender's move is awaited."""
    return game.phase in DEFENDER_PHASES


def _mover(game: Game) -> tuple[Address, int]:
    if mover_is_defender(game):
        return game.defender, game.defender_left
    return game.challenger, game.challenger_left


def _require_running(game: Game) -> None:
    require(game.phase is not Phase.OVER, "WrongPhase", actual=game.phase, needed=Phase.OVER)


def _position(before: bytes, *what: object) -> bytes:
    return sha256(before + repr(what).encode()).digest()


def _is_moot(world: World, game: Game) -> bool:
    return world.segments[game.key].attempt != game.attempt


def _end(world: World, game: Game, reason: Reason, *, overturns: bool) -> Game:
    """Ends the game: the loser's stake or bond is slashed, unless the attempt is gone."""
    moot = _is_moot(world, game)
    challenger, defender = game.challenger, game.defender
    winner, loser = (challenger, defender) if overturns else (defender, challenger)
    if moot:
        reason, winner, loser = Reason.MOOT, NOBODY, NOBODY
    world.emit("Dispute", "Closed", game=game.id, winner=winner, loser=loser, reason=reason)
    if not moot:
        if overturns:
            market.overturn(world, game.key, challenger)
        else:
            segment = world.segments[game.key]
            world.segments[game.key] = replace(segment, games=segment.games - 1)
        world.slash(loser, game.bond, winner)
    if moot or overturns:
        world.unlock(challenger, game.bond)
    return replace(game, phase=Phase.OVER, reason=reason)


# trace and interval


def _reveal_trace(world: World, game: Game, checkpoints: Sequence[bytes]) -> Game:
    require_length(len(checkpoints), checkpoint_count(game.steps, game.interval) + 1)
    world.emit(
        "Dispute", "TraceRevealed", game=game.id, position=game.position, checkpoints=tuple(checkpoints)
    )
    if seal(merkle.root(checkpoints), bytes.fromhex(game.defender[2:])) != game.list_root:
        return _end(world, game, Reason.BAD_CHILDREN, overturns=True)
    return _bind(world, game, checkpoints, Phase.PICK_CHECKPOINT)


def _reveal_states(world: World, game: Game, states: Sequence[bytes]) -> Game:
    require_length(len(states), game.length + 1)
    world.emit("Dispute", "StatesRevealed", game=game.id, position=game.position, states=tuple(states))
    return _bind(world, game, states, Phase.PICK_STEP)


def _bind(world: World, game: Game, roots: Sequence[bytes], phase: Phase) -> Game:
    if roots[0] != game.before or roots[-1] != game.after:
        return _end(world, game, Reason.BAD_BINDING, overturns=True)
    return replace(game, list_root=merkle.root(roots), list_count=len(roots), phase=phase)


def _pick_checkpoint(world: World, game: Game, checkpoint: int, *pair: object) -> Game:
    game = _pick_pair(game, checkpoint, *pair)  # type: ignore[arg-type]
    first = (checkpoint - 1) * game.interval
    length = min(game.interval, game.steps - first)
    world.emit("Dispute", "CheckpointPicked", game=game.id, position=game.position, checkpoint=checkpoint)
    phase = Phase.REVEAL_STEP if length == 1 else Phase.REVEAL_STATES
    return replace(game, first=first, length=length, phase=phase)


def _pick_step(world: World, game: Game, step: int, *pair: object) -> Game:
    game = _pick_pair(game, step, *pair)  # type: ignore[arg-type]
    world.emit("Dispute", "StepPicked", game=game.id, position=game.position, step=step)
    return replace(game, first=game.first + step - 1, length=1, phase=Phase.REVEAL_STEP)


def _pick_pair(
    game: Game,
    i: int,
    before: bytes,
    before_proof: Sequence[bytes],
    after: bytes,
    after_proof: Sequence[bytes],
) -> Game:
    require(0 < i < game.list_count, "OutOfRange", index=i, count=game.list_count)
    require_leaf(game.list_root, game.list_count, before, i - 1, before_proof)
    require_leaf(game.list_root, game.list_count, after, i, after_proof)
    return replace(game, before=before, after=after)


# step, tensor, page


def _reveal_step(world: World, game: Game, header: ProgramLeaf, children: Sequence[bytes]) -> Game:
    known = open_header(game, header)
    root = merkle.root(children)
    game = _enter(game, Tree.NESTS, root, known.nests)
    require_length(len(children), fan_out(game.height))
    _emit_children(world, game, children)
    return replace(game, nests_root=root, value=known.first_nest, phase=Phase.PICK_CHILD)


def _reveal_children(world: World, game: Game, children: Sequence[bytes]) -> Game:
    require_length(len(children), fan_out(game.height))
    _emit_children(world, game, children)
    if merkle.root(children) != game.node:
        return _end(world, game, Reason.BAD_CHILDREN, overturns=True)
    return replace(game, phase=Phase.PICK_CHILD)


def _emit_children(world: World, game: Game, children: Sequence[bytes]) -> None:
    world.emit(
        "Dispute",
        "ChildrenRevealed",
        game=game.id,
        position=game.position,
        tree=game.tree,
        children=tuple(children),
    )


def _pick_child(
    world: World, game: Game, child: int, node: bytes, proof: Sequence[bytes], leaf: ProgramLeaf
) -> Game:
    shown = fan_out(game.height)
    require(child < shown, "OutOfRange", index=child, count=shown)
    require_leaf(game.node, shown, node, child, proof)
    height = game.height - depth(game.height)
    game = replace(game, node=node, index=game.index * shown + child, height=height)
    world.emit(
        "Dispute", "ChildPicked", game=game.id, position=game.position, tree=game.tree, index=game.index
    )
    if height > 0:
        return replace(game, phase=Phase.REVEAL_CHILDREN)
    if game.index >= game.count:
        return _end_padding(world, game, is_zero=node == _ZERO)
    return _AT_LEAF[game.tree](world, game, leaf)


def _at_nest(world: World, game: Game, leaf: ProgramLeaf) -> Game:
    require_program_leaf(game, game.count, 2 + game.index, leaf)
    value = game.value + game.index
    try:
        nest = decode_nest(leaf.data)
    except ProgramError:
        return _end(world, game, Reason.INVALID_PROGRAM, overturns=True)
    words = nest.type.size
    game = replace(game, value=value, words=words, fold_length=nest.fold_length, accumulator=nest.init)
    game = _enter(game, Tree.PAGES, game.node, merkle.page_count(words))
    return replace(game, phase=Phase.REVEAL_CHILDREN if game.height else Phase.REVEAL_PAGE)


def _at_group(world: World, game: Game, leaf: ProgramLeaf) -> Game:
    groups = open_header(game, leaf).groups
    game = replace(game, value=sum(groups[: game.index]))
    game = _enter(game, Tree.TENSORS, game.node, groups[game.index])
    return replace(game, phase=Phase.REVEAL_CHILDREN if game.height else Phase.PROVE_NEXT)


def _at_tensor(world: World, game: Game, leaf: ProgramLeaf) -> Game:
    return replace(game, value=game.value + game.index, phase=Phase.PROVE_NEXT)


def _at_page(world: World, game: Game, leaf: ProgramLeaf) -> Game:
    return replace(game, phase=Phase.REVEAL_PAGE)


_AT_LEAF: Mapping[Tree, Callable[[World, Game, ProgramLeaf], Game]] = {
    Tree.NESTS: _at_nest,
    Tree.GROUPS: _at_group,
    Tree.TENSORS: _at_tensor,
    Tree.PAGES: _at_page,
}


def _dispute_next(world: World, game: Game, header: ProgramLeaf) -> Game:
    at_root = game.tree is Tree.NESTS and game.node == game.nests_root
    require(at_root, "NotAtRoot", tree=game.tree, height=game.height)
    game = _enter(game, Tree.GROUPS, game.after, len(open_header(game, header).groups))
    world.emit("Dispute", "NextDisputed", game=game.id, position=game.position)
    return replace(game, phase=Phase.REVEAL_CHILDREN if game.height else Phase.PICK_CHILD)


def _reveal_page(world: World, game: Game, words: bytes) -> Game:
    require_length(len(words), 4 * merkle.PAGE_WORDS)
    world.emit("Dispute", "PageRevealed", game=game.id, position=game.position, page=game.index, words=words)
    if merkle.leaf(words) != game.node:
        return _end(world, game, Reason.BAD_CHILDREN, overturns=True)
    return replace(game, phase=Phase.PICK_WORD)


# word and fold


def _pick_word(world: World, game: Game, word: int, page: bytes) -> Game:
    require(word < merkle.PAGE_WORDS, "OutOfRange", index=word, count=merkle.PAGE_WORDS)
    require(merkle.leaf(page) == game.node, "BadProof")
    claimed = int.from_bytes(page[4 * word : 4 * word + 4], "little")
    flat = game.index * merkle.PAGE_WORDS + word
    world.emit("Dispute", "WordPicked", game=game.id, position=game.position, word=flat, claimed=claimed)
    if flat >= game.words:
        return _end_padding(world, game, is_zero=claimed == 0)
    return _narrow(game, 0, game.fold_length, word=flat, claimed=claimed)


def _reveal_partials(world: World, game: Game, partials: bytes) -> Game:
    require_length(len(partials), 4 * (len(piece_ends(game.from_, game.to)) - 1))
    world.emit("Dispute", "PartialsRevealed", game=game.id, position=game.position, partials=partials)
    return replace(game, list_root=sha256(partials).digest(), phase=Phase.PICK_PARTIAL)


def _pick_partial(world: World, game: Game, piece: int, partials: bytes) -> Game:
    require(sha256(partials).digest() == game.list_root, "BadProof")
    ends = piece_ends(game.from_, game.to)
    require(piece < len(ends), "OutOfRange", index=piece, count=len(ends))
    words = [int.from_bytes(partials[i : i + 4], "big") for i in range(0, len(partials), 4)]
    game = _narrow(
        game,
        [game.from_, *ends][piece],
        ends[piece],
        accumulator=[game.accumulator, *words][piece],
        claimed=[*words, game.claimed][piece],
    )
    world.emit(
        "Dispute", "PartialPicked", game=game.id, position=game.position, to=game.to, accumulator=game.accumulator,
        claimed=game.claimed, **{"from": game.from_},
    )  # fmt: skip
    return game


def _narrow(game: Game, start: int, stop: int, **changes: int) -> Game:
    phase = Phase.PROVE if is_short(start, stop) else Phase.REVEAL_PARTIALS
    return replace(game, from_=start, to=stop, phase=phase, **changes)  # type: ignore[arg-type]


# last moves


def _prove(
    world: World,
    game: Game,
    header: ProgramLeaf,
    nest: ProgramLeaf,
    values: Sequence[ValueProof],
    pages: Sequence[PageOpening],
) -> Game:
    known = open_header(game, header)
    require_program_leaf(game, known.nests, 2 + game.value - known.first_nest, nest)
    opened: dict[int, dict[int, bytes]] = {}
    for value in values:
        require(value.value < game.value, "OutOfRange", index=value.value, count=game.value)
        require_value(game, known, value)
        opened[value.value] = {}
    decoded = Nest.decode(nest.data)
    sizes = {read.value: merkle.page_count(math.prod(read.shape)) for read in decoded.reads}
    for page in pages:
        proved = values[page.operand]
        known_size = len(page.proof) == merkle.height(sizes.get(proved.value, 1))
        if not known_size or not merkle.verify(proved.root, merkle.leaf(page.words), page.index, page.proof):
            revert("BadPage", value=proved.value, page=page.index)
        opened[proved.value][page.index] = page.words
    try:
        computed = evaluate(decoded, opened, game.word, game.from_, game.to, game.accumulator)
    except MissingPageError as missing:
        revert("MissingPage", value=missing.value, page=missing.page)
    world.emit("Dispute", "Judged", game=game.id, computed=computed, claimed=game.claimed)
    if computed == game.claimed:
        return _end(world, game, Reason.RIGHT_WORD, overturns=False)
    return _end(world, game, Reason.WRONG_WORD, overturns=True)


def _prove_next(world: World, game: Game, header: ProgramLeaf, value: ValueProof) -> Game:
    known = open_header(game, header)
    require(value.value == known.next[game.value], "BadProof")
    require_value(game, known, value)
    if value.root == game.node:
        return _end(world, game, Reason.BINDING_HOLDS, overturns=False)
    return _end(world, game, Reason.BAD_BINDING, overturns=True)


def _prove_invalid_nest(
    world: World,
    game: Game,
    header: ProgramLeaf,
    index: int,
    nest: ProgramLeaf,
    read: int,
    producer: ProgramLeaf,
) -> Game:
    known = open_header(game, header)
    require(index < known.nests, "OutOfRange", index=index, count=known.nests)
    require_program_leaf(game, known.nests, 2 + index, nest)
    if known.first_nest <= read < known.first_nest + index:
        require_program_leaf(game, known.nests, 2 + read - known.first_nest, producer)
    return _end_invalid(world, game, is_invalid_nest(header.data, index, nest.data, read, producer.data))


def _prove_invalid_header(
    world: World, game: Game, header: ProgramLeaf, tensor: int, producer: ProgramLeaf
) -> Game:
    if tensor == NO_TENSOR:
        require(merkle.verify(game.program_root, merkle.leaf(header.data), 0, header.proof), "BadProof")
    else:
        known = open_header(game, header)
        require(tensor < len(known.state), "OutOfRange", index=tensor, count=len(known.state))
        if known.first_nest <= known.next[tensor] < known.values:
            require_program_leaf(game, known.nests, 2 + known.next[tensor] - known.first_nest, producer)
    return _end_invalid(world, game, is_invalid_header(header.data, tensor, producer.data))


def _end_padding(world: World, game: Game, is_zero: bool) -> Game:
    return _end(world, game, Reason.PADDING_HOLDS if is_zero else Reason.BAD_PADDING, overturns=not is_zero)


def _end_invalid(world: World, game: Game, invalid: bool) -> Game:
    reason = Reason.INVALID_PROGRAM if invalid else Reason.VALID_PROGRAM
    return _end(world, game, reason, overturns=invalid)


def _enter(game: Game, tree: Tree, root: bytes, count: int) -> Game:
    return replace(game, tree=tree, node=root, index=0, count=count, height=merkle.height(count))


MOVES: Mapping[str, tuple[Phase | None, Callable[..., Game]]] = {
    "reveal_trace": (Phase.REVEAL_TRACE, _reveal_trace),
    "pick_checkpoint": (Phase.PICK_CHECKPOINT, _pick_checkpoint),
    "reveal_states": (Phase.REVEAL_STATES, _reveal_states),
    "pick_step": (Phase.PICK_STEP, _pick_step),
    "reveal_step": (Phase.REVEAL_STEP, _reveal_step),
    "reveal_children": (Phase.REVEAL_CHILDREN, _reveal_children),
    "pick_child": (Phase.PICK_CHILD, _pick_child),
    "dispute_next": (Phase.PICK_CHILD, _dispute_next),
    "reveal_page": (Phase.REVEAL_PAGE, _reveal_page),
    "pick_word": (Phase.PICK_WORD, _pick_word),
    "reveal_partials": (Phase.REVEAL_PARTIALS, _reveal_partials),
    "pick_partial": (Phase.PICK_PARTIAL, _pick_partial),
    "prove": (Phase.PROVE, _prove),
    "prove_next": (Phase.PROVE_NEXT, _prove_next),
    "prove_invalid_nest": (None, _prove_invalid_nest),
    "prove_invalid_header": (None, _prove_invalid_header),
}
"""The awaited phase (None: any turn of the challenger) and the rule of every move."""
