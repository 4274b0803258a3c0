"""Rules of Market, Stake and Dispute that any chain keeps: tests that need a fixture ``arena``.

They are imported by a module that has the fixture, once for the fake chain and once for the real contracts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from crowdtrain._errors import Refused
from crowdtrain.chain import (
    INITIAL,
    NONE,
    Chain,
    GroupProof,
    JobId,
    JobTerms,
    Outcome,
    Phase,
    Reason,
    Round,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    Source,
)  # fmt: skip
from crowdtrain.plan import Plan
from crowdtrain_engine import merkle
from crowdtrain_engine.trace import seal
from sdk.arena import CID, CLOCK, PRICE, STAKE, Arena

__all__ = [
    "test_a_changed_input_is_not_committed",
    "test_a_claim_must_be_what_the_plan_says",
    "test_a_dispute_of_a_lost_attempt_is_moot",
    "test_a_draw_that_nobody_made_in_time_is_made_again",
    "test_a_hidden_trace_root_is_forfeited",
    "test_a_late_player_loses_by_the_clock",
    "test_after_the_deadline_nothing_is_claimed_and_the_rest_goes_back",
    "test_auditors_who_attest_right_are_paid",
    "test_calls_in_the_wrong_state_are_refused",
    "test_lease_and_window_end",
    "test_money_goes_where_it_should",
    "test_only_the_drawn_attest_once_in_time",
    "test_rewards_follow_fees",
    "test_silence_and_wrong_attestations_are_punished",
    "test_stake_is_locked_while_it_answers_for_work",
    "test_the_rate_falls_with_the_record",
    "test_weight_is_locked_until_unbonded",
    "test_what_was_built_on_an_overturned_segment_is_void",
    "test_who_is_absent_has_a_fallback",
    "test_who_is_caught_loses_what_is_burned_and_no_more",
    "test_who_won_may_claim_first",
]  # fmt: skip

LEASE, WINDOW, LIFE = 600, 5000, 50_000
PAY = PRICE - PRICE // 50
"""a fiftieth is the fee"""
TRACE = merkle.leaf(b"trace")
GROUPS = tuple(merkle.leaf(bytes([group])) for group in range(3))
INPUTS = tuple(Source(INITIAL, group) for group in range(3))


@dataclass
class Deal:
    """A job of two segments, the second of which builds on the first."""

    arena: Arena
    job: JobId
    plan: Plan

    @classmethod
    def post(cls, arena: Arena, price: int = PRICE, **changes: int) -> Deal:
        first = SegmentSpec(bytes(32), bytes(32), 4, 2, price, INPUTS)
        second = replace(first, inputs=(Source(0, 1), Source(INITIAL, 2)))
        return cls.of(arena, Plan((first, second)), **changes)

    @classmethod
    def of(cls, arena: Arena, plan: Plan, **changes: int) -> Deal:
        terms = JobTerms(
            plan_root=plan.root,
            initial_root=merkle.root(GROUPS),
            initial_groups=3,
            segments=len(plan.segments),
            escrow=3 * PRICE,
            stake=STAKE,
            lease=LEASE,
            window=WINDOW,
            clock=CLOCK,
            audit_rate=0,
            audit_share=0,
            deadline=arena.buyer.now() + LIFE,
        )
        terms = replace(terms, **changes)  # type: ignore[arg-type]
        return cls(arena, arena.buyer.post(terms, CID)[0], plan)

    def key(self, index: int) -> SegmentKey:
        return SegmentKey(self.job, index)

    def segment(self, index: int) -> Segment:
        return self.arena.buyer.segment(self.key(index))

    def state(self, index: int) -> SegmentState:
        return self.segment(index).state

    def proofs(self, index: int) -> list[GroupProof]:
        initial = merkle.Tree(GROUPS)
        proofs = []
        spec = self.plan.segments[index]
        for source in spec.chosen(index, self.segment) or spec.inputs:
            roots = self.segment(source.segment).group_roots if source.segment != INITIAL else ()
            tree = initial if source.segment == INITIAL else merkle.Tree(roots or GROUPS)
            proofs.append(GroupProof(tree.levels[0][source.group], tuple(tree.proof(source.group))))
        return proofs

    def claim(self, index: int, by: Chain) -> None:
        by.claim(self.key(index), self.plan.segments[index], self.plan.proof(index), self.proofs(index))

    def commit(self, index: int, by: Chain) -> None:
        outputs = [merkle.leaf(root) for root in GROUPS[: len(self.plan.segments[index].inputs)]]
        sealed = seal(TRACE, bytes.fromhex(by.address[2:]))
        by.commit(self.key(index), self.input_root(index), outputs, sealed, CID)

    def input_root(self, index: int) -> bytes:
        return merkle.root([proof.root for proof in self.proofs(index)])

    def settle(self, index: int) -> None:
        self.arena.buyer.settle(self.key(index), self.plan.segments[index], TRACE)

    def round(self, index: int = 0, attempt: int = 0) -> Round:
        return self.arena.buyer.round(self.key(index), attempt)

    def attest(self, by: Chain, trace: bytes, index: int = 0) -> None:
        key, committed = self.key(index), self.arena.buyer.segment(self.key(index))
        by.attest(key, committed.attempt, committed.seal, seal(trace, bytes.fromhex(by.address[2:])))

    def void(self, index: int) -> None:
        self.arena.buyer.void(self.key(index), self.plan.segments[index])

    def overturn(self, index: int) -> None:
        """The challenger disputes, and the solver never answers."""
        sealed = self.arena.buyer.segment(self.key(index)).seal
        game, _ = self.arena.challenger.challenge(self.key(index), self.plan.segments[index], sealed)
        self.arena.advance(WINDOW // 2 + CLOCK + 2)
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
    assert solver.owed(solver.address) == before + 2 * PAY
    job = buyer.job(deal.job)
    assert (job.reserved, job.spent, job.settled) == (0, 2 * PRICE, 2)
    tokens = solver.tokens(solver.address)
    solver.withdraw()
    assert solver.tokens(solver.address) == tokens + before + 2 * PAY
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
    refused("WrongState", challenger.challenge, key, spec, bytes(32))
    refused("InputNotReady", deal.claim, 1, solver)
    deal.claim(0, solver)
    refused("WrongState", deal.claim, 0, challenger)
    refused("NotSolver", deal.commit, 0, challenger)
    refused("NotYet", buyer.expire, key)
    refused("InputsStand", deal.void, 0)
    assert (
        refused("InvalidSpec", solver.commit, key, deal.input_root(0), GROUPS[:2], bytes(32), CID).values[
            "what"
        ]
        == "groupRoots"
    )
    deal.commit(0, solver)
    refused("WrongState", deal.commit, 0, solver)
    refused("NotYet", deal.settle, 0)
    refused("WrongState", buyer.expire, key)
    sealed = buyer.segment(key).seal
    refused("BadProof", challenger.challenge, key, replace(spec, steps=5), sealed)
    refused("SealChanged", challenger.challenge, key, spec, bytes(32))
    arena.advance(WINDOW + 1)
    refused("WindowOver", challenger.challenge, key, spec, sealed)
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
    for what, name in (("audit_rate", "auditRate"), ("audit_share", "auditShare")):
        assert refused("InvalidTerms", lambda w: Deal.post(arena, **{w: 40_001}), what).values["what"] == name
    unbonding = arena.buyer.rules().unbonding
    too_long = refused("InvalidTerms", lambda: Deal.post(arena, window=unbonding - 3 * CLOCK + 1))
    assert too_long.values["what"] == "unbonding"
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
    refused("Lapsed", deal.claim, 0, solver)
    assert arena.buyer.record(solver.address).expired > 0
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
    second, _ = challenger.challenge(
        deal.key(0), deal.plan.segments[0], arena.buyer.segment(deal.key(0)).seal
    )
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


def test_who_is_caught_loses_what_is_burned_and_no_more(arena: Arena) -> None:
    # why docs/ECONOMICS.md counts half a stake, even of several: the buyer's account is the solver's second here
    solver, second, honest = arena.solver, arena.buyer, arena.challenger
    deal = Deal.post(arena)
    second.deposit(STAKE)
    thieves = [solver, second]

    def money(chains: list[Chain]) -> tuple[int, int]:
        """Free and locked."""
        free, locked = zip(*(chain.stake(chain.address) for chain in chains), strict=True)
        return sum(free), sum(locked)

    (free, locked), fair = money(thieves), money([honest])
    for index in range(2):
        deal.claim(index, solver)
        deal.commit(index, solver)
    found, _ = honest.challenge(deal.key(1), deal.plan.segments[1], honest.segment(deal.key(1)).seal)
    own, _ = second.challenge(deal.key(0), deal.plan.segments[0], honest.segment(deal.key(0)).seal)
    arena.advance(max(second.game(game).since for game in (own, found)) - second.now())
    solver.reveal_trace(own, second.game(own).position, [bytes(32)] * 3)
    assert second.game(own).reason is Reason.BAD_CHILDREN
    deal.void(1)
    honest.close(found)
    assert money([honest]) == fair
    assert money(thieves) == (free - (STAKE - STAKE // 2), locked)
    second.withdraw_stake(STAKE + STAKE // 2)


def test_a_late_player_loses_by_the_clock(arena: Arena) -> None:
    solver, challenger = arena.solver, arena.challenger
    deal = Deal.post(arena)
    deal.claim(0, solver)
    deal.commit(0, solver)
    game, _ = challenger.challenge(deal.key(0), deal.plan.segments[0], arena.buyer.segment(deal.key(0)).seal)
    refused("ClockRunning", arena.buyer.timeout, game)
    since = arena.buyer.game(game).since
    assert since == deal.round().attest_until + 1
    early = refused("NotBegun", solver.reveal_trace, game, arena.buyer.game(game).position, [bytes(32)] * 3)
    assert early.values == {"since": since}
    arena.advance(since - arena.buyer.now())
    position = arena.buyer.game(game).position
    wrong = refused("WrongLength", solver.reveal_trace, game, position, [bytes(32)] * 4)
    assert wrong.values == {"actual": 4, "needed": 3}
    refused("NotPlayer", challenger.reveal_trace, game, position, [bytes(32)] * 3)
    refused("WrongPosition", solver.reveal_trace, game, bytes(32), [bytes(32)] * 3)
    arena.advance(max(WINDOW, CLOCK) + 1)
    refused("DisputesOpen", deal.settle, 0)
    refused("ClockOver", solver.reveal_trace, game, position, [bytes(32)] * 3)
    arena.buyer.timeout(game)
    over = arena.buyer.game(game)
    assert (over.phase, over.reason) == (Phase.OVER, Reason.TIMEOUT)
    assert over.history[-1].fields["winner"] == challenger.address


# ------------------------------------------------------------------ audits


def leave_all(*auditors: Chain) -> None:
    """Takes all weight out of draws, so that a test decides who is drawn."""
    for auditor in auditors:
        if weight := auditor.weight(auditor.address):
            auditor.leave(weight)


def audited(arena: Arena, auditors: Sequence[Chain], **changes: int) -> Deal:
    """A deal whose first segment is committed, and the only auditors drawn: each is at rate 4 with up to four."""
    leave_all(arena.buyer, arena.solver, arena.challenger)
    for auditor in auditors:
        short = 50 - auditor.stake(auditor.address)[0]
        if short > 0:
            auditor.deposit(short)
        auditor.enroll(50)
    terms = {"audit_rate": 40_000, "audit_share": 10_000, "escrow": 6 * PRICE} | changes
    deal = Deal.post(arena, **terms)
    deal.claim(0, arena.solver)
    deal.commit(0, arena.solver)
    arena.mine(2)  # the block that decides, and one in which its hash is known
    return deal


def test_a_changed_input_is_not_committed(arena: Arena) -> None:
    deal = Deal.post(arena)
    deal.claim(0, arena.solver)
    refused("InputChanged", arena.solver.commit, deal.key(0), bytes(32), GROUPS, bytes(32), CID)


def test_weight_is_locked_until_unbonded(arena: Arena) -> None:
    auditor = arena.challenger
    leave_all(arena.buyer, arena.solver, auditor)
    arena.advance(arena.buyer.rules().unbonding + 1)
    if auditor.leaving(auditor.address)[0]:
        arena.buyer.finish_leaving(auditor.address)
    free, locked = auditor.stake(auditor.address)
    refused("InsufficientFree", auditor.enroll, free + 1)
    auditor.enroll(60)
    assert (auditor.weight(auditor.address), auditor.total_weight()) == (60, 60)
    assert auditor.stake(auditor.address) == (free - 60, locked + 60)
    assert auditor.address in arena.buyer.auditors()
    refused("NotEnrolled", auditor.leave, 61)
    auditor.leave(20)
    amount, until = auditor.leaving(auditor.address)
    assert (amount, auditor.weight(auditor.address)) == (20, 40)
    assert until == auditor.now() + auditor.rules().unbonding
    refused("TooEarly", arena.buyer.finish_leaving, auditor.address)
    arena.advance(auditor.rules().unbonding + 1)
    arena.buyer.finish_leaving(auditor.address)
    assert auditor.stake(auditor.address) == (free - 40, locked + 40)
    refused("NothingToLeave", arena.buyer.finish_leaving, auditor.address)


def test_auditors_who_attest_right_are_paid(arena: Arena) -> None:
    buyer, challenger = arena.buyer, arena.challenger
    deal = audited(arena, [buyer, challenger])
    assert buyer.job(deal.job).reserved == 2 * PRICE
    found = deal.round()
    assert (found.outcome, found.rate, found.seats, found.penalty) == (Outcome.OPEN, 40_000, 10, 0)
    assert found.attest_until == buyer.segment(deal.key(0)).until - WINDOW // 2
    assert challenger.is_drawn(deal.key(0), 0, challenger.address)
    assert not challenger.is_drawn(deal.key(0), 0, arena.solver.address)
    for auditor in (challenger, buyer):
        deal.attest(auditor, TRACE)
    assert deal.round().seed != NONE
    assert buyer.attestors(deal.key(0), 0) == (challenger.address, buyer.address)
    assert buyer.attestation(deal.key(0), 0, buyer.address) == seal(TRACE, bytes.fromhex(buyer.address[2:]))
    arena.advance(WINDOW + 1)
    before = [chain.owed(chain.address) for chain in (arena.solver, challenger, buyer)]
    burned, record = buyer.burned(), buyer.record(challenger.address)
    refused("WrongTrace", buyer.settle, deal.key(0), deal.plan.segments[0], bytes(32))
    deal.settle(0)
    after = [chain.owed(chain.address) for chain in (arena.solver, challenger, buyer)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [PAY, PRICE // 2, PRICE // 2]
    assert buyer.burned() == burned + PRICE - PAY
    job = buyer.job(deal.job)
    assert (job.reserved, job.spent) == (0, 2 * PRICE)
    assert buyer.record(challenger.address) == replace(record, attested=record.attested + 1)
    assert deal.round().outcome is Outcome.SETTLED
    refused("NotAtFault", buyer.punish, deal.key(0), 0, challenger.address)


def test_only_the_drawn_attest_once_in_time(arena: Arena) -> None:
    challenger, solver = arena.challenger, arena.solver
    deal = audited(arena, [challenger])
    key, sealed = deal.key(0), arena.buyer.segment(deal.key(0)).seal
    refused("NotDrawn", deal.attest, solver, TRACE)
    refused("NotDrawn", deal.attest, arena.buyer, TRACE)
    refused("WrongSeal", challenger.attest, key, 0, bytes(32), TRACE)
    refused("NoAttestation", challenger.attest, key, 0, sealed, bytes(32))
    refused("UnknownRound", challenger.attest, key, 1, sealed, TRACE)
    arena.buyer.draw(key, 0)
    refused("AlreadyDrawn", arena.buyer.draw, key, 0)
    refused("TooEarly", solver.reveal, key, 0, TRACE)
    deal.attest(challenger, TRACE)
    refused("AlreadyAttested", deal.attest, challenger, TRACE)
    late = audited(arena, [challenger])
    arena.advance(WINDOW // 2 + 2)
    refused("TooLate", late.attest, challenger, TRACE)
    refused("WrongTrace", solver.reveal, late.key(0), 0, bytes(32))
    solver.reveal(late.key(0), 0, TRACE)
    assert late.round().trace_root == TRACE
    refused("AlreadyRevealed", solver.reveal, late.key(0), 0, TRACE)
    arena.advance(WINDOW)
    arena.buyer.settle(late.key(0), late.plan.segments[0])
    refused("WrongOutcome", solver.reveal, late.key(0), 0, TRACE)


def test_silence_and_wrong_attestations_are_punished(arena: Arena) -> None:
    buyer, challenger = arena.buyer, arena.challenger
    # at this price, a tenth of the fee is 2
    dear = audited(arena, [buyer, challenger], escrow=20 * PRICE, price=10 * PRICE)
    assert dear.round().penalty == 2
    dear.attest(buyer, merkle.leaf(b"another trace"))
    refused("WrongOutcome", buyer.punish, dear.key(0), 0, challenger.address)
    arena.advance(WINDOW + 1)
    dear.settle(0)
    weight, burned = buyer.weight(buyer.address), buyer.burned()
    free = arena.solver.stake(arena.solver.address)[0]
    arena.solver.punish(dear.key(0), 0, buyer.address)
    arena.solver.punish(dear.key(0), 0, challenger.address)
    assert buyer.weight(buyer.address) == weight - 2
    assert arena.solver.stake(arena.solver.address)[0] == free + 2
    assert buyer.burned() == burned + 2
    refused("AlreadyPunished", arena.solver.punish, dear.key(0), 0, buyer.address)
    refused("NotDrawn", arena.solver.punish, dear.key(0), 0, arena.solver.address)
    assert buyer.record(buyer.address).misattested > 0
    assert buyer.record(challenger.address).silent > 0


def test_a_draw_that_nobody_made_in_time_is_made_again(arena: Arena) -> None:
    challenger = arena.challenger
    deal = audited(arena, [challenger])
    key, first = deal.key(0), deal.round().draw_block
    arena.mine(260)
    refused("NoSeed", challenger.is_drawn, key, 0, challenger.address)
    arena.buyer.draw(key, 0)
    assert deal.round().draw_block > first
    arena.mine(2)
    arena.buyer.draw(key, 0)
    deal.attest(challenger, TRACE)
    assert not deal.round().is_drawn_in_time


def test_a_hidden_trace_root_is_forfeited(arena: Arena) -> None:
    buyer, solver = arena.buyer, arena.solver
    deal = Deal.post(arena)
    deal.claim(0, solver)
    deal.commit(0, solver)
    key, spec = deal.key(0), deal.plan.segments[0]
    arena.advance(WINDOW + CLOCK - 10)
    refused("NotYet", buyer.forfeit, key, spec)
    arena.advance(20)
    refused("WrongLeaf", buyer.forfeit, key, replace(spec, steps=5))
    free, locked = buyer.stake(buyer.address)[0], solver.stake(solver.address)[1]
    buyer.forfeit(key, spec)
    segment = buyer.segment(key)
    assert (segment.state, segment.attempt) == (SegmentState.OPEN, 1)
    assert buyer.stake(buyer.address)[0] == free + STAKE // 2
    assert solver.stake(solver.address)[1] == locked - STAKE
    assert buyer.barred(deal.job, solver.address)
    assert buyer.record(solver.address).unbroken == 0
    assert deal.round().outcome is Outcome.FORFEITED
    shown = Deal.post(arena)
    shown.claim(0, solver)
    shown.commit(0, solver)
    arena.advance(WINDOW)
    solver.reveal(shown.key(0), 0, TRACE)
    arena.advance(CLOCK + 10)
    refused("Revealed", buyer.forfeit, shown.key(0), spec)
    shown.settle(0)


def test_the_rate_falls_with_the_record(arena: Arena) -> None:
    buyer, somebody = arena.buyer, arena.challenger.address
    unbroken = buyer.record(somebody).unbroken
    assert buyer.rate_of(somebody, 0, 0) == (500 if unbroken else 10_000)
    assert buyer.rate_of(somebody, 0, 30_000) == 30_000
    before, price = buyer.record(arena.solver.address), PRICE
    deal = audited(arena, [])
    expected = max(40_000, 80_000 * price // (8 * price + before.unbroken))
    assert deal.round().rate == expected
    arena.advance(WINDOW + 1)
    deal.settle(0)
    after = buyer.record(arena.solver.address)
    assert (after.settled, after.unbroken) == (before.settled + 1, before.unbroken + price)
    assert buyer.rate_of(arena.solver.address, 1, 0) == max(500, 80_000 // (8 + after.unbroken))


def test_rewards_follow_fees(arena: Arena) -> None:
    solver, buyer = arena.solver, arena.buyer
    epoch = buyer.epoch()
    before = [buyer.rewards(epoch, chain.address) for chain in (solver, buyer)]
    dear = audited(arena, [], escrow=20 * PRICE, price=10 * PRICE)
    arena.advance(WINDOW + 1)
    dear.settle(0)
    after = [buyer.rewards(epoch, chain.address) for chain in (solver, buyer)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [12, 3]  # of a fee of 20
    refused("EpochRunning", buyer.collect_rewards, epoch, solver.address)
    arena.advance(30 * 24 * 3600)
    assert buyer.epoch() == epoch + 1
    had = solver.reward_tokens(solver.address)
    buyer.collect_rewards(epoch, solver.address)
    assert solver.reward_tokens(solver.address) == had + after[0]
    refused("NothingToClaim", buyer.collect_rewards, epoch, solver.address)


def test_who_is_absent_has_a_fallback(arena: Arena) -> None:
    worker = SegmentSpec(bytes(32), bytes(32), 4, 2, PRICE, INPUTS)
    merge = replace(
        worker,
        inputs=(Source(0, 1), Source(1, 0), INPUTS[0]),
        fallbacks=(INPUTS[1], INPUTS[2], INPUTS[0]),
        quorum=1,
    )
    deal = Deal.of(arena, Plan((worker, worker, merge)))
    assert refused("QuorumMissed", deal.claim, 2, arena.solver).values == {"present": 0, "quorum": 1}
    deal.claim(1, arena.solver)
    deal.commit(1, arena.solver)
    deal.claim(2, arena.solver)
    assert deal.segment(2).absent == 0b01
    deal.claim(0, arena.challenger)
    deal.commit(0, arena.challenger)  # too late for this claim, which stands
    deal.commit(2, arena.solver)
    with pytest.raises(Refused, match="InputsStand"):
        deal.void(2)
    deal.overturn(1)
    deal.void(2)
    assert refused("BadProof", arena.challenger.claim, deal.key(2), merge, deal.plan.proof(2), deal.proofs(0))
    deal.claim(2, arena.challenger)
    assert deal.segment(2).absent == 0b10, "who is there now is taken, and who has fallen is not"
