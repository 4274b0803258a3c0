"""A buyer's view: quotes, posting, watching, results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crowdtrain import client as clients
from crowdtrain import progress
from crowdtrain._errors import ConfigError, PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.chain import Address, Reason, SegmentKey
from crowdtrain.client import Client, NotReadyError, Quote
from crowdtrain.devnet import Devnet
from crowdtrain.fakes import FakeChain
from crowdtrain.gas import gas_spent
from crowdtrain.stores import FakeStore
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine import DataError, Dataset, State
from crowdtrain_engine.trace import trace_root
from crowdtrain_engine.validation import cost
from rich.console import Console
from small_jobs import STEPS, Sample, claim, commit, replay, sample

MONEY = 10**6


def fake() -> tuple[Client, FakeChain, Sample]:
    """A client on a chain in memory, where two others have stakes."""
    chain, given = FakeChain("0x" + "b0" * 20), sample()
    for account in ("b0", "11", "22"):
        other = chain.as_account("0x" + account * 20)
        other.mint(MONEY)
        other.deposit(MONEY // 2)
    return Client(chain, given.store), chain, given


def quote(client: Client, given: Sample, **options: Any) -> Quote:
    choices = {"price": 100, "segments": 2, "interval": 2, "stake": 50, "window": 30, "clock": 120}
    audits = {"audits": 0.0, "audit_share": 0.5}
    return client.quote(given.program, given.data, STEPS, **(choices | audits | options))


def settle(chain: FakeChain, given: Sample, key: SegmentKey) -> None:
    """Lets somebody do a segment, and waits until it is paid for."""
    solver = chain.as_account("0x" + "11" * 20)
    claim(solver, given, key)
    done = replay(given, key.index)
    commit(solver, given, key, done)
    chain.advance(31)
    solver.settle(key, given.plan.segments[key.index], trace_root(done.trace))


# ---------------------------------------------------------------- quotes


def test_who_worked_lately_is_online() -> None:
    client, chain, given = fake()
    assert client.fleet() is None
    offer = quote(client, given)
    job = client.post(offer, given.state).id
    solver = chain.as_account("0x" + "11" * 20)
    claim(solver, given, SegmentKey(job, 0))
    chain.advance(8)
    commit(solver, given, SegmentKey(job, 0), replay(given, 0))
    assert client.fleet() is None  # garbage can be committed at any speed
    chain.advance(chain.job(job).terms.window + 1)
    trace = trace_root(replay(given, 0).trace)
    solver.settle(SegmentKey(job, 0), given.plan.segments[0], trace)
    found = client.fleet()
    assert found is not None
    work = given.plan.segments[0].steps * cost(given.program).operations
    assert [(m.name, m.speed) for m in found.machines] == [(solver.address, pytest.approx(work / 8, rel=0.2))]
    told = quote(client, given, fleet=found)
    assert told.advice is not None
    assert told.seconds == quote(client, given).seconds  # what strangers report sets no terms
    console = Console(record=True, width=200)
    console.print(told)
    assert "recommended" in console.export_text()
    assert Client(chain, FakeStore()).fleet() is None  # nobody has its files


def test_a_quote_says_what_posting_takes() -> None:
    client, _, given = fake()
    offer = quote(client, given)
    assert offer.plan == given.plan
    assert (offer.escrow, offer.audit_pot, offer.fee, offer.stake) == (300, 100, 4, 50)
    terms = offer.terms(1000, given.state)
    assert (terms.plan_root, terms.initial_root) == (given.plan.root, given.state.root)
    assert (terms.escrow, terms.segments, terms.deadline) == (300, 2, 1000 + offer.duration)
    assert (terms.audit_rate, terms.audit_share) == (0, 5000)
    console = Console(record=True, width=120)
    console.print(offer)
    text = console.export_text()
    assert "100 for each segment, 200 in all" in text
    assert "4 of that is burned, solvers get 196" in text
    assert "100 at most; about 63 for solvers without a record, 5 for those with a long one" in text
    assert "2, 5 steps" in text
    assert "GAINS" in text  # a stake of half a price
    assert "ask for what a quote proposes" in offer.risk.summary
    assert quote(client, given, stake=None, audit_share=1.0).risk.is_safe


@pytest.mark.parametrize(
    ("steps", "speed", "segments", "interval"),
    [(5, 1e18, 1, 1), (5, 1e-9, 5, 1), (5, 1e4, 1, 1)],
)
def test_what_is_not_given_is_chosen(steps: int, speed: float, segments: int, interval: int) -> None:
    client, _, given = fake()
    offer = client.quote(given.program, given.data, steps, price=7, speed=speed)
    assert len(offer.plan.segments) == segments
    assert {spec.interval for spec in offer.plan.segments} == {interval}
    assert (offer.stake, offer.audit_rate, offer.audit_share) == (7 * 50, 1000, 10_000)
    assert offer.risk.is_safe
    assert all(0 < time <= clients.MOST_SECONDS for time in (offer.lease, offer.window, offer.clock))


def test_a_quote_that_cannot_be_is_refused() -> None:
    client, _, given = fake()
    with pytest.raises(DataError, match="order has rows for 5 steps, 6 were asked for"):
        client.quote(given.program, given.data, 6, price=1)
    with pytest.raises(PlanError, match="can be cut into"):
        client.quote(given.program, given.data, 5, price=1, segments=6)
    with pytest.raises(PlanError, match="interval must be 1 to 256, not 0"):
        client.quote(given.program, given.data, 5, price=1, interval=0)
    with pytest.raises(PlanError, match="lease must be"):
        client.quote(given.program, given.data, 5, price=1, lease=31 * 24 * 3600)
    with pytest.raises(PlanError, match="audits must be 0 to 4"):
        client.quote(given.program, given.data, 5, price=1, audits=5)
    with pytest.raises(PlanError, match="auditors' stake stays locked"):
        client.quote(given.program, given.data, 5, price=1, clock=29 * 24 * 3600)
    with pytest.raises(PlanError, match="price"):
        client.quote(given.program, given.data, 5, price=-1)
    with pytest.raises(DataError):
        client.quote(given.program, Dataset.from_tensors({}), 5, price=1)


# ---------------------------------------------------------------- posting, watching, results


def test_a_job_is_posted_done_and_fetched() -> None:
    client, chain, given = fake()
    handle = client.post(quote(client, given), given.state)
    assert handle.job.manifest == given.manifest
    with pytest.raises(NotReadyError, match="segment 1 of job 1 is open"):
        handle.result()
    for index in range(2):
        settle(chain, given, SegmentKey(handle.id, index))
    assert handle.result().root == given.after(STEPS).root
    told = list(handle.watch(poll=0))
    kinds = [progress.Claimed, progress.Committed, progress.Audit, progress.Settled]
    assert [type(event) for event in told] == kinds * 2
    assert [event.segment for event in told] == [0, 0, 0, 0, 1, 1, 1, 1]  # type: ignore[attr-defined]
    assert told[-1] == progress.Settled(told[-1].block, 1, Address("0x" + "11" * 20), 100, 2)
    assert told[2] == progress.Audit(told[2].block, 0, 1.0, 50)


def test_watching_tells_each_thing_once_while_it_happens() -> None:
    client, chain, given = fake()
    handle = client.post(quote(client, given), given.state)
    watched = handle.watch(poll=0)
    settle(chain, given, SegmentKey(handle.id, 0))
    told = [next(watched) for _ in range(4)]
    settle(chain, given, SegmentKey(handle.id, 1))
    told += list(watched)
    assert [type(event).__name__ for event in told] == ["Claimed", "Committed", "Audit", "Settled"] * 2


def test_disputes_are_told() -> None:
    client, chain, given = fake()
    handle = client.post(quote(client, given), given.state)
    solver, verifier = chain.as_account("0x" + "11" * 20), chain.as_account("0x" + "22" * 20)
    key = SegmentKey(handle.id, 0)
    claim(solver, given, key)
    done = replay(given, 0, "gradient:1")
    commit(solver, given, key, done)
    game, _ = verifier.challenge(key, given.plan.segments[0], verifier.segment(key).seal)
    chain.advance(16)
    solver.reveal_trace(game, verifier.game(game).position, done.trace)
    chain.advance(121)
    solver.timeout(game)
    solver.settle(key, given.plan.segments[0], trace_root(done.trace))
    chain.advance(10**6)
    chain.refund(handle.id)
    told = list(handle.watch(poll=0))
    assert [type(event).__name__ for event in told] == [
        "Claimed",
        "Committed",
        "Audit",
        "Challenged",
        "Moved",
        "DisputeOver",
        "Settled",
        "Refunded",
    ]
    assert told[3] == progress.Challenged(told[3].block, 0, game, verifier.address, solver.address)
    assert told[4] == progress.Moved(told[4].block, 0, game, "TraceRevealed")
    over = progress.DisputeOver(told[5].block, 0, game, solver.address, verifier.address, Reason.TIMEOUT)
    assert told[5] == over
    assert told[7] == progress.Refunded(told[7].block, 200)


def test_other_jobs_are_not_told() -> None:
    client, chain, given = fake()
    first = client.post(quote(client, given), given.state)
    second = client.post(quote(client, given), given.state)
    for job in (first.id, second.id):
        for index in range(2):
            settle(chain, given, SegmentKey(job, index))
    assert len(list(client.watch(second.id, poll=0))) == 8


def test_training_begins_at_the_models_weights_or_at_a_given_state() -> None:
    client, _, given = fake()
    fields = {
        name: getattr(given.program, name)
        for name in ("groups", "state", "data", "nests", "next", "logs", "labels")
    }
    lowered = LoweredProgram(**fields, initial=dict(given.state))
    offer = client.quote(lowered, given.data, STEPS, price=1)
    assert client.post(offer).job.terms.initial_root == given.state.root
    with pytest.raises(PlanError, match="needs a state to begin with"):
        client.post(quote(client, given))
    with pytest.raises(DataError):
        client.post(offer, State({"parameters": given.state["parameters"]}))


def test_a_job_whose_files_contradict_the_chain_has_no_result() -> None:
    client, chain, given = fake()
    terms = replace(given.job.terms, plan_root=bytes(32), deadline=chain.now() + 10**6)
    job, _ = chain.post(terms, given.manifest)
    with pytest.raises(PlanError, match="plan root"):
        client.result(job)


# ---------------------------------------------------------------- over a real chain


def test_the_same_over_a_node(devnet: Devnet) -> None:
    given = sample()
    connected = {"rpc": devnet.rpc, "deployment": devnet.deployment_path.parent, "store": given.store}
    buyer = Client.connect(**connected, key=devnet.keys[0])  # type: ignore[arg-type]
    solver = Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[1])
    solver.deposit(1000)
    offer = quote(buyer, given)
    assert offer.gas_price > 0
    handle = buyer.post(offer, given.state)
    for index in range(2):
        key = SegmentKey(handle.id, index)
        claim(solver, given, key)
        done = replay(given, index)
        commit(solver, given, key, done)
        devnet.advance(31)
        solver.settle(key, offer.plan.segments[index], trace_root(done.trace))
    assert handle.result().root == given.after(STEPS).root
    assert [type(event).__name__ for event in handle.watch(poll=0)] == [
        "Claimed",
        "Committed",
        "Audit",
        "Settled",
    ] * 2
    reader = Client.connect(**connected)  # type: ignore[arg-type]
    assert len(list(reader.watch(handle.id, poll=0))) == 8
    with pytest.raises(ConfigError, match="needs a key"):
        reader.post(offer, given.state)


def test_quoted_gas_is_about_what_is_spent(devnet: Devnet) -> None:
    given, chain = sample(), Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[2])
    client = Client(chain, given.store)
    before = chain.head()[0]
    offer = quote(client, given)
    client.post(offer, given.state)
    spent = gas_spent(chain.node, chain.deployment, before + 1, chain.head()[0])
    assert [one.call for one in spent] == ["Money.approve", "Market.post"]
    assert offer.gas / 2 < sum(one.gas for one in spent) <= offer.gas


def test_a_client_needs_a_deployment(devnet: Devnet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no deployment file"):
        Client.connect(devnet.rpc, deployment=tmp_path, store=FakeStore())
