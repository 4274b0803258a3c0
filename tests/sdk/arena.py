"""A job of one segment, committed and challenged on any chain, and two players at the board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crowdtrain.chain import (
    INITIAL,
    Chain,
    Game,
    GameId,
    GroupProof,
    JobTerms,
    Phase,
    Reason,
    SegmentKey,
    SegmentSpec,
    Source,
)  # fmt: skip
from crowdtrain.cid import cid_of
from crowdtrain.fakes import FakeChain
from crowdtrain.game import DEFENDER_PHASES, Move, attack, defend, worth_challenging
from crowdtrain.game.sabotage import Sabotage
from crowdtrain.plan import leaf
from crowdtrain_engine import Dataset, Program, State, merkle
from crowdtrain_engine.trace import Machine, Replay, seal, trace_root

__all__ = ["BUYER", "CHALLENGER", "SOLVER", "STAKE", "Arena", "Player", "Segment", "challenge", "fake_arena"]

BUYER, SOLVER, CHALLENGER = ("0x" + digit * 40 for digit in "123")
STAKE, PRICE, CLOCK = 1000, 100, 3600
CID = cid_of(b"what is stored does not matter here")
Player = Callable[[Game], Move | None]


@dataclass(frozen=True)
class Arena:
    """A chain as three accounts that hold tokens, with a clock that can be set forward."""

    buyer: Chain
    solver: Chain
    challenger: Chain
    advance: Callable[[int], None]
    mine: Callable[[int], None] = lambda blocks: None
    """makes empty blocks"""


def fake_arena() -> Arena:
    """An arena in memory, in which solver and challenger have deposited two stakes each."""
    chain = FakeChain()
    buyer, solver, challenger = (chain.as_account(account) for account in (BUYER, SOLVER, CHALLENGER))
    for account in (buyer, solver, challenger):
        account.mint(100 * STAKE)
    for account in (solver, challenger):
        account.deposit(2 * STAKE)
    return Arena(buyer, solver, challenger, chain.advance, chain.mine)


@dataclass
class Segment:
    """A segment that the solver has run, honestly or not, and committed; and an honest run of it."""

    arena: Arena
    key: SegmentKey
    spec: SegmentSpec
    solvers: Replay
    honest: Replay
    sabotage: Sabotage
    transactions: int = 0

    @classmethod
    def commit(
        cls,
        arena: Arena,
        program: Program,
        state: State,
        data: Dataset,
        *,
        steps: int = 1,
        interval: int = 1,
        sabotage: Sabotage | None = None,
        backend: str = "reference",
    ) -> Segment:
        """Posts a job of one segment, claims it as the solver, runs it and commits the result."""
        cheat = sabotage or Sabotage()
        honest = Replay.run(Machine(program, data, backend=backend), state, steps=steps, interval=interval)
        machine = Machine(program, data, backend=backend, deviation=cheat)
        solvers = Replay.run(machine, state, steps=steps, interval=interval)
        inputs = tuple(Source(INITIAL, group) for group in range(len(state)))
        spec = SegmentSpec(
            program.root, data.root if data.tensors else bytes(32), steps, interval, PRICE, inputs
        )
        key = post_and_claim(arena, spec, state)
        sealed = seal(trace_root(solvers.trace), bytes.fromhex(arena.solver.address[2:]))
        output = solvers.state_at(len(solvers.trace) - 1)
        arena.solver.commit(key, state.root, output.group_roots, sealed, CID)
        return cls(arena, key, spec, solvers, honest, cheat)

    @property
    def worth(self) -> bool:
        """Whether an honest verifier challenges it."""
        segment = self.arena.challenger.segment(self.key)
        return worth_challenging(self.honest, segment.solver, segment.group_roots, segment.seal)

    def defence(self, game: Game) -> Move | None:
        """What the solver answers."""
        return self.sabotage.answer(game, defend(game, self.solvers))

    def attack(self, game: Game) -> Move | None:
        """What an honest challenger answers."""
        return attack(game, self.honest)

    def dispute(self, challenger: Player | None = None, defender: Player | None = None) -> Game:
        """Challenges, and plays to the end; whoever does not move loses by the clock. Counts transactions."""
        arena = self.arena
        game_id = challenge(arena, self.key, self.spec)
        self.transactions = 1
        return play(arena, game_id, defender or self.defence, challenger or self.attack, self)


def challenge(arena: Arena, key: SegmentKey, spec: SegmentSpec) -> GameId:
    """Begins a dispute as the challenger, and lets time pass until moves are taken."""
    challenger = arena.challenger
    game_id, _ = challenger.challenge(key, spec, challenger.segment(key).seal)
    arena.advance(max(0, challenger.game(game_id).since - challenger.now()))
    return game_id


def play(arena: Arena, game_id: GameId, defender: Player, challenger: Player, count: Segment) -> Game:
    """Lets two players move in turn until the game is over."""
    game = arena.challenger.game(game_id)
    while game.phase is not Phase.OVER:
        assert count.transactions < 40, "the game does not end"
        defends = game.phase in DEFENDER_PHASES
        move = (defender if defends else challenger)(game)
        if move is None:
            arena.advance(CLOCK + 1)
            (arena.challenger if defends else arena.solver).timeout(game_id)
        else:
            move.send(arena.solver if defends else arena.challenger)
        count.transactions += 1
        game = arena.challenger.game(game_id)
    return game


def post_and_claim(arena: Arena, spec: SegmentSpec, state: State) -> SegmentKey:
    """A job of this one segment, claimed by the solver."""
    groups = merkle.Tree(state.group_roots)
    terms = JobTerms(
        plan_root=leaf(spec), initial_root=state.root, initial_groups=len(state), segments=1, escrow=PRICE,
        stake=STAKE, lease=600, window=100_000, clock=CLOCK, audit_rate=0, audit_share=0,
        deadline=arena.buyer.now() + 10**6,
    )  # fmt: skip
    job, _ = arena.buyer.post(terms, CID)
    key = SegmentKey(job, 0)
    proofs = [GroupProof(root, tuple(groups.proof(i))) for i, root in enumerate(state.group_roots)]
    arena.solver.claim(key, spec, [], proofs)
    return key


def overturned(game: Game) -> bool:
    """Whether the game ended for the challenger."""
    assert game.phase is Phase.OVER
    winner = game.history[-1].fields["winner"]
    assert game.reason is not Reason.MOOT
    return winner == game.challenger
