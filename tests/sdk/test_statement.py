"""An account's statement says why every unit came and went, and leads to what the contracts have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from crowdtrain._errors import BadAnswer
from crowdtrain.chain import Address, Chain, ChainEvent, GameId
from crowdtrain.fakes import FakeChain
from crowdtrain.ledger import BURNED, Kind, entries, escrow_of, moves
from crowdtrain.statement import Statement, statement
from crowdtrain_engine import merkle
from sdk.arena import CLOCK, PRICE, STAKE, Arena, challenge, fake_arena
from sdk.market_rules import TRACE, WINDOW, Deal, audited


@pytest.fixture
def arena() -> Arena:
    """A day on which everything happened that can happen to money."""
    arena = fake_arena()
    buyer, solver, challenger = arena.buyer, arena.solver, arena.challenger
    for account in (solver, challenger):
        account.deposit(10 * STAKE)
    dear = audited(arena, [buyer, challenger], escrow=20 * PRICE, price=10 * PRICE)
    dear.attest(challenger, TRACE)
    arena.advance(WINDOW + 1)
    dear.settle(0)  # the buyer was silent
    solver.punish(dear.key(0), 0, buyer.address)
    lied = audited(arena, [challenger], escrow=20 * PRICE, price=10 * PRICE)
    lied.attest(challenger, merkle.leaf(b"a lie"))
    arena.advance(WINDOW + 1)
    lied.settle(0)
    solver.punish(lied.key(0), 0, challenger.address)
    lost = Deal.post(arena)
    lost.claim(0, solver)
    lost.commit(0, solver)
    lost.overturn(0)
    game = upheld_dispute(arena)
    forfeited = Deal.post(arena)
    forfeited.claim(0, solver)
    forfeited.commit(0, solver)
    arena.advance(WINDOW + CLOCK + 2)
    buyer.forfeit(forfeited.key(0), forfeited.plan.segments[0])
    late = Deal.post(arena)
    late.claim(0, solver)
    arena.advance(601)
    buyer.expire(late.key(0))
    challenger.leave(10)
    arena.advance(10**7)
    challenger.finish_leaving(challenger.address)
    buyer.collect_rewards(0, solver.address)
    buyer.refund(lied.job)
    for account in (buyer, solver, challenger):
        account.withdraw()
        account.withdraw_stake(1)
    assert isinstance(solver, FakeChain)
    world = solver._world
    with world.transaction("transfer"):
        world.pay(solver.address, Address("0x" + "99" * 20), 5)
    assert buyer.game(game).phase.name == "OVER"
    return arena


def upheld_dispute(arena: Arena) -> GameId:
    """A dispute that its challenger loses by the clock."""
    deal = Deal.post(arena)
    deal.claim(0, arena.solver)
    deal.commit(0, arena.solver)
    game = challenge(arena, deal.key(0), deal.plan.segments[0])
    wrong = [merkle.leaf(b"other")] * 3
    arena.solver.reveal_trace(game, arena.buyer.game(game).position, wrong)  # does not match the seal
    return game


def told(chain: Chain) -> Statement:
    found = statement(chain, chain.address)
    found.check()
    return found


def amounts(found: Statement, kind: Kind) -> list[int]:
    return [line.amount for line in found.lines if line.entry.kind is kind]


def test_every_unit_of_a_solver_has_a_cause(arena: Arena) -> None:
    found = told(arena.solver)
    dear = 10 * PRICE
    assert amounts(found, Kind.PAY) == [dear, dear]
    assert amounts(found, Kind.FEE) == [-dear // 50] * 2
    assert amounts(found, Kind.BOUNTY) == [1, 1]
    assert amounts(found, Kind.SLASH) == [-STAKE] * 3
    assert amounts(found, Kind.REWARD) == [24]
    assert amounts(found, Kind.TRANSFER) == [100 * STAKE, -5]
    causes = [line.entry.cause for line in found.lines]
    for cause in (
        "price of segment 0 of job 1",
        "fee of segment 0 of job 1",
        "stake for segment 0 of job 1",
        "segment 0 of job 1 settled",
        "slashed: lost dispute 1: timeout",
        "slashed: lost dispute 2: bad children",
        "slashed: did not reveal the trace root of segment 0 of job 5",
        "segment 0 of job 6 expired",
        "reported silence about segment 0 of job 1",
        "reported a wrong attestation to segment 0 of job 2",
        "reward for epoch 0",
        "what the Market owed, withdrawn",
        f"sent to 0x{'99' * 20}",
    ):
        assert causes.count(cause) == 1, cause


def test_every_unit_of_an_auditor_and_challenger_has_a_cause(arena: Arena) -> None:
    found = told(arena.challenger)
    assert amounts(found, Kind.AUDIT) == [10 * PRICE]
    assert amounts(found, Kind.PENALTY) == [-2]
    assert amounts(found, Kind.BOUNTY) == [STAKE // 2] * 2
    places = {line.entry.cause: (line.entry.job, line.entry.segment) for line in found.lines}
    # a dispute is told with its segment, though only its first event names it
    assert places["won dispute 1: timeout"] == (3, 0)
    assert places["bond back from dispute 2"] == (4, 0)
    assert places["attested wrong to segment 0 of job 2"] == (2, 0)
    assert "left as auditor" in places


def test_every_unit_of_a_buyer_has_a_cause(arena: Arena) -> None:
    found = told(arena.buyer)
    assert amounts(found, Kind.ESCROW)[:2] == [-20 * PRICE] * 2
    assert amounts(found, Kind.REFUND) == [10 * PRICE]
    assert amounts(found, Kind.COMPENSATION) == [STAKE // 2]
    assert "drawn for segment 0 of job 1, and silent" in [line.entry.cause for line in found.lines]
    assert (found.sum.worth, found.lines[0].entry.kind) == (found.now.worth, Kind.TRANSFER)


def test_the_ledger_of_all_sums_to_zero(arena: Arena) -> None:
    ledger = entries(arena.buyer.events(0, arena.buyer.head()[0]))
    assert sum(entry.amount for entry in ledger) == 0
    assert sum(entry.amount for entry in ledger if entry.account == BURNED) == arena.buyer.burned()
    escrow = sum(entry.amount for entry in ledger if entry.account == escrow_of(1))
    assert escrow == 0
    assert all(entry.amount for entry in ledger)


def test_json_has_everything_as_text(arena: Arena) -> None:
    found = told(arena.solver)
    plain = found.plain()
    assert plain["sum"] == plain["contracts"]
    lines = plain["lines"]
    assert isinstance(lines, list)
    pay = next(line for line in lines if line["kind"] == "pay")
    assert (pay["amount"], pay["job"], pay["segment"]) == (str(10 * PRICE), 1, 0)
    assert pay["changes"] == {
        "tokens": "0",
        "free": "0",
        "locked": "0",
        "owed": pay["amount"],
        "rewards": "0",
    }
    assert pay["transaction"].startswith("0x")
    assert pay["time"] > 1_700_000_000


def test_a_node_that_hides_an_event_is_caught(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = arena.solver
    everything = chain.events(0, chain.head()[0])
    hidden = [event for event in everything if event.name != "Slashed"]
    monkeypatch.setattr(chain, "events", lambda first, last: hidden)
    with pytest.raises(BadAnswer, match="the node hides events"):
        statement(chain, chain.address).check()


def test_a_slash_is_explained_by_what_happened_to_its_account() -> None:
    """One transaction may do many things; each slash has the last cause that names its account."""
    me, other = "0x" + "11" * 20, "0x" + "22" * 20

    def event(index: int, contract: str, name: str, **fields: object) -> ChainEvent:
        return ChainEvent(7, index, "0xaa", name, fields, contract)

    place = {"job": 1, "segment": 2, "attempt": 0}
    events = [
        event(0, "Audit", "Silent", auditor=me, penalty=5, reporter=other, **place),
        event(1, "Stake", "Slashed", account=me, amount=5, winner=other, bounty=2),
        event(2, "Audit", "Misattested", auditor=other, penalty=5, reporter=me, **place),
        event(3, "Stake", "Slashed", account=other, amount=5, winner=me, bounty=2),
    ]
    causes = [(entry.account, entry.cause) for entry in moves(events) if entry.account != BURNED]
    assert causes == [
        (me, "drawn for segment 2 of job 1, and silent"),
        (other, "reported silence about segment 2 of job 1"),
        (other, "attested wrong to segment 2 of job 1"),
        (me, "reported a wrong attestation to segment 2 of job 1"),
    ]
    elsewhere = [replace(events[0], transaction="0xbb"), *events[1:2]]
    assert next(entry.cause for entry in moves(elsewhere)) == "slashed"
