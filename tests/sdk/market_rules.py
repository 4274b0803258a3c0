"""Rules of Market, Stake and Dispute that any chain keeps: tests that need a fixture ``arena``.

They are imported by a module that has the fixture, once for the fake chain and once for the real contracts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from crowdtrain._errors import Refused
from crowdtrain.chain import (
    INITIAL,
    Chain,
    GroupProof,
    JobId,
    JobTerms,
    Phase,
    Reason,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    Source,
)  # fmt: skip
from crowdtrain.plan import Plan
from crowdtrain_engine import merkle
from sdk.arena import CID, CLOCK, PRICE, STAKE, Arena

__all__ = [
    "test_a_claim_must_be_what_the_plan_says",
    "test_a_dispute_of_a_lost_attempt_is_moot",
    "test_a_late_player_loses_by_the_clock",
    "test_after_the_deadline_nothing_is_claimed_and_the_rest_goes_back",
    "test_calls_in_the_wrong_state_are_refused",
    "test_lease_and_window_end",
    "test_money_goes_where_it_should",
    "test_stake_is_locked_while_it_answers_for_work",
    "test_what_was_built_on_an_overturned_segment_is_void",
    "test_who_won_may_claim_first",
]  # fmt: skip

LEASE, WINDOW, LIFE = 600, 5000, 50_000
GROUPS = tuple(merkle.leaf(bytes([group])) for group in range(3))


@dataclass
class Deal:
    """A job of two segments, the second of which builds on the first."""

    arena: Arena
    job: JobId
    plan: Plan

    @classmethod
    def post(cls, arena: Arena, **changes: int) -> Deal:
        inputs = tuple(Source(INITIAL, group) for group in range(3))
        first = SegmentSpec(bytes(32), bytes(32), 4, 2, PRICE, inputs)
        second = replace(first, inputs=(Source(0, 1), Source(INITIAL, 2)))
        plan = Plan((first, second))
        terms = JobTerms(
            plan_root=plan.root,
            initial_root=merkle.root(GROUPS),
            initial_groups=3,
            segments=2,
            escrow=3 * PRICE,
            stake=STAKE,
            lease=LEASE,
            window=WINDOW,
            clock=CLOCK,
            deadline=arena.buyer.now() + LIFE,
        )
        terms = replace(terms, **changes)  # type: ignore[arg-type]
        return cls(arena, arena.buyer.post(terms, CID)[0], plan)

    def key(self, index: int) -> SegmentKey:
        return SegmentKey(self.job, index)

    def state(self, index: int) -> SegmentState:
        return self.arena.buyer.segment(self.key(index)).state

    def proofs(self, index: int) -> list[GroupProof]:
        initial = merkle.Tree(GROUPS)
        proofs = []
        for source in self.plan.segments[index].inputs:
            roots = self.arena.buyer.segment(self.key(0)).group_roots
            tree = initial if source.segment == INITIAL else merkle.Tree(roots or GROUPS)
            proofs.append(GroupProof(tree.levels[0][source.group], tuple(tree.proof(source.group))))
        return proofs

    def claim(self, index: int, by: Chain) -> None:
        by.claim(self.key(index), self.plan.segments[index], self.plan.proof(index), self.proofs(index))

    def commit(self, index: int, by: Chain) -> None:
        outputs = [merkle.leaf(root) for root in GROUPS[: len(self.plan.segments[index].inputs)]]
        by.commit(self.key(index), outputs, merkle.leaf(b"seal"), CID)

    def settle(self, index: int) -> None:
        self.arena.buyer.settle(self.key(index), self.plan.segments[index])

    def void(self, index: int) -> None:
        self.arena.buyer.void(self.key(index), self.plan.segments[index])

    def overturn(self, index: int) -> None:
        """The challenger disputes, and the solver never answers."""
        game, _ = self.arena.challenger.challenge(self.key(index), self.plan.segments[index])
        self.arena.advance(CLOCK + 1)
        self.arena.buyer.timeout(game)


def refused(error: str, call: Callable[..., object], *arguments: object) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.error == error
    return caught.value


def test_money_goes_where_it_should(arena: Arena) -> None:
    buyer, solver = arena.buyer, arena.solver
    tokens = buyer.tokens(buyer.address)
    deal = Deal.post(arena)
    assert buyer.tokens(buyer.address) == tokens - 3 * PRICE
    for index in range(2):
        deal.claim(index, solver)
        deal.commit(index, solver)
    assert buyer.job(deal.job).reserved == 2 * PRICE
    arena.advance(WINDOW + 1)
    refused("InputNotReady", deal.settle, 1)
    before = solver.owed(solver.address)
    deal.settle(0)
    deal.settle(1)
    assert solver.owed(solver.address) == before + 2 * PRICE
    job = buyer.job(deal.job)
    assert (job.reserved, job.spent, job.settled) == (0, 2 * PRICE, 2)
    tokens = solver.tokens(solver.address)
    solver.withdraw()
    assert solver.tokens(solver.address) == tokens + before + 2 * PRICE
    assert refused("NothingOwed", solver.withdraw).values["account"] == solver.address
    buyer.refund(deal.job)
    assert buyer.owed(buyer.address) >= PRICE
    refused("NothingOwed", buyer.refund, deal.job)


def test_stake_is_locked_while_it_answers_for_work(arena: Arena) -> None:
    solver = arena.solver
    free, locked = solver.stake(solver.address)
    deal = Deal.post(arena)
    deal.claim(0, solver)
    assert solver.stake(solver.address) == (free - STAKE, locked + STAKE)
    refused("InsufficientFree", solver.withdraw_stake, free - STAKE + 1)
    solver.withdraw_stake(1)
    solver.deposit(1)
    arena.advance(LEASE + 1)
    arena.buyer.expire(deal.key(0))
    assert solver.stake(solver.address) == (free, locked)
    short = refused("InsufficientFree", Deal.post(arena, stake=free + 1).claim, 0, solver)
    assert short.values == {"account": solver.address, "free": free, "needed": free + 1}


def test_calls_in_the_wrong_state_are_refused(arena: Arena) -> None:
    solver, challenger, buyer = arena.solver, arena.challenger, arena.buyer
    deal = Deal.post(arena)
    key, spec = deal.key(0), deal.plan.segments[0]
    wrong = refused("WrongState", deal.commit, 0, solver)
    assert (wrong.values["actual"], wrong.values["needed"]) == (SegmentState.OPEN, SegmentState.CLAIMED)
    refused("WrongState", buyer.expire, key)
    refused("WrongState", buyer.settle, key, spec)
    refused("WrongState", challenger.challenge, key, spec)
    refused("InputNotReady", deal.claim, 1, solver)
    deal.claim(0, solver)
    refused("WrongState", deal.claim, 0, challenger)
    refused("NotSolver", deal.commit, 0, challenger)
    refused("NotYet", buyer.expire, key)
    refused("InputsStand", deal.void, 0)
    assert (
        refused("InvalidSpec", solver.commit, key, GROUPS[:2], bytes(32), CID).values["what"] == "groupRoots"
    )
    deal.commit(0, solver)
    refused("WrongState", deal.commit, 0, solver)
    refused("NotYet", deal.settle, 0)
    refused("WrongState", buyer.expire, key)
    refused("BadProof", challenger.challenge, key, replace(spec, steps=5))
    arena.advance(WINDOW + 1)
    refused("WindowOver", challenger.challenge, key, spec)
    refused("WrongLeaf", buyer.settle, key, replace(spec, steps=5))
    deal.settle(0)
    refused("WrongState", deal.settle, 0)
    refused("BeforeDeadline", buyer.refund, deal.job)
    refused("UnknownSegment", buyer.expire, deal.key(2))


def test_a_claim_must_be_what_the_plan_says(arena: Arena) -> None:
    solver = arena.solver
    deal = Deal.post(arena)
    key, spec, proof, inputs = deal.key(0), deal.plan.segments[0], deal.plan.proof(0), deal.proofs(0)
    refused("BadProof", solver.claim, key, replace(spec, price=1), proof, inputs)
    refused("BadProof", solver.claim, deal.key(1), spec, proof, inputs)
    refused("BadProof", solver.claim, key, spec, [], inputs)
    refused("BadProof", solver.claim, key, spec, proof, inputs[:2])
    refused("BadProof", solver.claim, key, spec, proof, [inputs[1], inputs[0], inputs[2]])
    for what, changed in {
        "steps": replace(spec, steps=0),
        "interval": replace(spec, interval=257),
        "checkpoints": replace(spec, steps=514),
        "inputs": replace(spec, inputs=()),
        "source": replace(spec, inputs=(Source(0, 0),)),
    }.items():
        assert refused("InvalidSpec", solver.claim, key, changed, proof, inputs).values["what"] == what
    poor = Deal.post(arena, escrow=PRICE - 1)
    assert refused("EscrowShort", poor.claim, 0, solver).values == {"left": PRICE - 1, "price": PRICE}
    for what in ("segments", "initial_groups", "lease", "window", "clock"):
        name = what.replace("initial_groups", "initialGroups")
        assert refused("InvalidTerms", lambda w: Deal.post(arena, **{w: 0}), what).values["what"] == name
    assert refused("InvalidTerms", lambda: Deal.post(arena, deadline=1)).values["what"] == "deadline"


def test_lease_and_window_end(arena: Arena) -> None:
    solver, challenger = arena.solver, arena.challenger
    deal = Deal.post(arena)
    deal.claim(0, solver)
    arena.advance(LEASE + 1)
    refused("LeaseOver", deal.commit, 0, solver)
    arena.buyer.expire(deal.key(0))
    assert deal.state(0) is SegmentState.OPEN
    assert arena.buyer.job(deal.job).reserved == 0
    deal.claim(0, challenger)
    assert arena.buyer.segment(deal.key(0)).attempt == 0


def test_after_the_deadline_nothing_is_claimed_and_the_rest_goes_back(arena: Arena) -> None:
    deal = Deal.post(arena)
    deal.claim(0, arena.solver)
    arena.advance(LIFE + 1)
    refused("PastDeadline", deal.claim, 1, arena.challenger)
    owed = arena.buyer.owed(arena.buyer.address)
    arena.challenger.refund(deal.job)
    assert arena.buyer.owed(arena.buyer.address) == owed + 2 * PRICE
    arena.buyer.expire(deal.key(0))
    arena.challenger.refund(deal.job)
    assert arena.buyer.owed(arena.buyer.address) == owed + 3 * PRICE
    refused("NothingOwed", arena.buyer.refund, deal.job)


def test_who_won_may_claim_first(arena: Arena) -> None:
    solver, challenger, buyer = arena.solver, arena.challenger, arena.buyer
    deal = Deal.post(arena)
    deal.claim(0, solver)
    deal.commit(0, solver)
    deal.overturn(0)
    segment = buyer.segment(deal.key(0))
    assert (segment.state, segment.attempt, segment.heir) == (SegmentState.OPEN, 1, challenger.address)
    assert buyer.barred(deal.job, solver.address)
    assert not buyer.barred(deal.job, challenger.address)
    assert refused("Reserved", deal.claim, 0, buyer).values["heir"] == challenger.address
    arena.advance(LEASE // 10 + 1)
    refused("Barred", deal.claim, 0, solver)
    refused("InsufficientFree", deal.claim, 0, buyer)
    deal.claim(0, challenger)


def test_what_was_built_on_an_overturned_segment_is_void(arena: Arena) -> None:
    solver, challenger = arena.solver, arena.challenger
    deal = Deal.post(arena)
    deal.claim(0, solver)
    deal.commit(0, solver)
    deal.claim(1, challenger)
    deal.commit(1, challenger)
    refused("InputsStand", deal.void, 1)
    _, locked = challenger.stake(challenger.address)
    deal.overturn(0)
    deal.void(1)
    assert deal.state(1) is SegmentState.OPEN
    assert arena.buyer.segment(deal.key(1)).attempt == 1
    assert challenger.stake(challenger.address)[1] == locked - STAKE
    assert arena.buyer.job(deal.job).reserved == 0
    refused("InputNotReady", deal.claim, 1, challenger)


def test_a_dispute_of_a_lost_attempt_is_moot(arena: Arena) -> None:
    solver, challenger = arena.solver, arena.challenger
    deal = Deal.post(arena)
    deal.claim(0, solver)
    deal.commit(0, solver)
    _, locked = challenger.stake(challenger.address)
    second, _ = challenger.challenge(deal.key(0), deal.plan.segments[0])
    assert arena.buyer.segment(deal.key(0)).games == 1
    refused("NotMoot", arena.buyer.close, second)
    deal.overturn(0)
    arena.buyer.close(second)
    game = arena.buyer.game(second)
    assert (game.phase, game.reason) == (Phase.OVER, Reason.MOOT)
    assert challenger.stake(challenger.address)[1] == locked
    assert arena.buyer.segment(deal.key(0)).games == 0
    refused("WrongPhase", arena.buyer.close, second)
    refused("WrongPhase", arena.buyer.timeout, second)


def test_a_late_player_loses_by_the_clock(arena: Arena) -> None:
    solver, challenger = arena.solver, arena.challenger
    deal = Deal.post(arena)
    deal.claim(0, solver)
    deal.commit(0, solver)
    game, _ = challenger.challenge(deal.key(0), deal.plan.segments[0])
    refused("ClockRunning", arena.buyer.timeout, game)
    position = arena.buyer.game(game).position
    wrong = refused("WrongLength", solver.reveal_trace, game, position, [bytes(32)] * 4)
    assert wrong.values == {"actual": 4, "needed": 3}
    refused("NotPlayer", challenger.reveal_trace, game, position, [bytes(32)] * 3)
    refused("WrongPosition", solver.reveal_trace, game, bytes(32), [bytes(32)] * 3)
    arena.advance(WINDOW + 1)
    refused("DisputesOpen", deal.settle, 0)
    refused("ClockOver", solver.reveal_trace, game, position, [bytes(32)] * 3)
    arena.buyer.timeout(game)
    over = arena.buyer.game(game)
    assert (over.phase, over.reason) == (Phase.OVER, Reason.TIMEOUT)
    assert over.history[-1].fields["winner"] == challenger.address
