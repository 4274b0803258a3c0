"""Every move that carries a header, of the dearest valid program, on the real contracts: each fits a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from contracts.dearest import DEEPER_PROOFS, dearest_nest, dearest_program, dearest_state
from crowdtrain.chain import Phase, ProgramLeaf, Reason
from crowdtrain.devnet import Devnet
from crowdtrain.game import DEFENDER_PHASES, Flaw, Move, find_flaw
from crowdtrain.game.flaws import CARRIED, NO_TENSOR
from crowdtrain.game.moves import PickChild, Prove, RevealTrace
from crowdtrain.game.sabotage import Sabotage, WrongWord
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine import Dataset, Program
from crowdtrain_engine.program import MAX_TENSORS
from crowdtrain_engine.trace import RunNest, Words
from sdk.arena import STAKE, Arena, Segment, challenge, overturned
from sdk.test_game_flaws import committed as uncaring

MOST = 2**24 * 9 // 10
"""gas: a transaction may take 2^24 (EIP-7825)"""


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Devnet(tmp_path_factory.mktemp("devnet")) as devnet:
        buyer, solver, challenger = (Web3Chain(devnet.rpc, devnet.deployment, key) for key in devnet.keys[:3])
        for account in (solver, challenger):
            account.deposit(20 * STAKE)
        yield Arena(buyer, solver, challenger, devnet.advance)


@pytest.fixture(scope="module")
def program() -> Program:
    found = dearest_program()
    found.validate()
    return found


@dataclass(frozen=True)
class OtherNext(Sabotage):
    """One tensor of the next state is not what its nest gave."""

    tensor: int

    def acts(self, step: int) -> bool:
        return True

    def step(
        self, step: int, program: Program, values: list[Words], nest: RunNest
    ) -> tuple[list[Words], list[Words]]:
        following = [values[value] for value in program.next]
        following[self.tensor] = following[self.tensor] ^ np.uint32(1)
        return values, following


def committed(arena: Arena, program: Program, sabotage: Sabotage | None = None) -> Segment:
    state = dearest_state(program)
    return Segment.commit(
        arena, program, state, Dataset.from_tensors({}), sabotage=sabotage, backend="native"
    )


def play(segment: Segment, flaw: Flaw | None = None) -> tuple[Reason, set[str]]:
    """Plays a dispute, in which the challenger proves ``flaw`` if there is one: how it ended, and the moves that
    carried a header. Fails if one of them takes more gas than it may.
    """
    arena, shown = segment.arena, set()
    game_id = challenge(arena, segment.key, segment.spec)
    while (game := arena.challenger.game(game_id)).phase is not Phase.OVER:
        defends = game.phase in DEFENDER_PHASES
        answer = flaw.prove if flaw else segment.attack
        move = (segment.defence if defends else answer)(game)
        assert move is not None
        gas = move.send(arena.solver if defends else arena.challenger).gas
        if carries_header(move, segment.solvers.program):
            shown.add(f"{move.call} {game.tree.name}" if isinstance(move, PickChild) else move.call)
            # the header might have other words where this one has zeros, and the pages longer proofs
            gas += 12 * segment.solvers.program.leaves[0].count(0)
            gas += DEEPER_PROOFS if isinstance(move, Prove) else 0
            print(f"{move.call}: {gas:,} gas")
            assert gas < MOST, f"{move.call} takes {gas:,} gas"
    assert overturned(game) == (
        game.reason in (Reason.WRONG_WORD, Reason.BAD_BINDING, Reason.INVALID_PROGRAM)
    )
    return game.reason, shown


def carries_header(move: Move, program: Program) -> bool:
    leaves = [getattr(move, name, None) for name in ("header", "leaf")]
    return any(isinstance(leaf, ProgramLeaf) and leaf.data == program.leaves[0] for leaf in leaves)


def test_a_header_of_too_many_bytes(arena: Arena) -> None:
    flaw = find_flaw((b"\xff" * CARRIED, b"", dearest_nest(range(16)).encode()))
    assert flaw is not None
    spec, key, trace = uncaring(arena, flaw.leaves)
    game_id = challenge(arena, key, spec)
    RevealTrace(game_id, arena.solver.game(game_id).position, trace).send(arena.solver)
    move = flaw.prove(arena.challenger.game(game_id))
    assert move is not None
    assert move.send(arena.challenger).gas < MOST
    assert arena.challenger.game(game_id).reason is Reason.INVALID_PROGRAM


def test_a_wrong_word_of_the_dearest_nest(arena: Arena, program: Program) -> None:
    reason, shown = play(committed(arena, program, WrongWord(0, lambda program: 0, 0)))
    assert reason is Reason.WRONG_WORD
    assert shown == {"reveal_step", "prove"}


def test_a_wrong_next_state(arena: Arena, program: Program) -> None:
    """Of the tensor that stands last among those that become a nest's output."""
    reason, shown = play(committed(arena, program, OtherNext(MAX_TENSORS - 17)))
    assert reason is Reason.BAD_BINDING
    assert shown == {"reveal_step", "dispute_next", "pick_child GROUPS", "prove_next"}


@pytest.mark.parametrize(
    ("nest", "read", "tensor"),
    [
        (None, 0, NO_TENSOR),
        (None, 0, MAX_TENSORS - 17),
        (2, MAX_TENSORS + 1, NO_TENSOR),
        (0, MAX_TENSORS - 1, NO_TENSOR),
    ],
)
def test_a_false_claim_that_it_is_invalid(
    arena: Arena, program: Program, nest: int | None, read: int, tensor: int
) -> None:
    reason, shown = play(committed(arena, program), Flaw(program.leaves, nest, read, tensor))
    assert reason is Reason.VALID_PROGRAM
    assert shown == {"prove_invalid_header" if nest is None else "prove_invalid_nest"}
