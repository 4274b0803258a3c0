"""The chain port against the real contracts on a real node."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from crowdtrain._errors import BadAnswer, ConfigError, Corrupt, Refused
from crowdtrain.chain import (
    GameId,
    GroupProof,
    JobId,
    JobTerms,
    PageOpening,
    Phase,
    ProgramLeaf,
    Reason,
    SegmentKey,
    SegmentState,
    ValueProof,
)
from crowdtrain.devnet import Devnet
from crowdtrain.game import DEFENDER_PHASES, attack, defend
from crowdtrain.jobs import load_job
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine.trace import trace_root
from small_jobs import PAY, Sample, claim, commit, replay, sample

STAKE = 1_000


def account(devnet: Devnet, number: int) -> Web3Chain:
    return Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[number])


@pytest.fixture(scope="module")
def buyer(devnet: Devnet) -> Web3Chain:
    return account(devnet, 0)


@pytest.fixture(scope="module")
def solver(devnet: Devnet) -> Web3Chain:
    chain = account(devnet, 1)
    chain.deposit(100 * STAKE)
    return chain


@pytest.fixture(scope="module")
def challenger(devnet: Devnet) -> Web3Chain:
    chain = account(devnet, 2)
    chain.deposit(100 * STAKE)
    return chain


def terms_of(given: Sample, chain: Web3Chain, **changes: int) -> JobTerms:
    return replace(given.job.terms, stake=STAKE, deadline=chain.now() + 10**6, **changes)  # type: ignore[arg-type]


def posted(buyer: Web3Chain, **changes: int) -> tuple[Sample, SegmentKey]:
    given = sample()
    job, _ = buyer.post(terms_of(given, buyer, **changes), given.manifest)
    return given, SegmentKey(job, 0)


# ---------------------------------------------------------------- a job's life


def test_a_posted_job_is_read_back(buyer: Web3Chain) -> None:
    given, tokens, count = sample(), buyer.tokens(buyer.address), buyer.job_count()
    terms = terms_of(given, buyer)
    job, receipt = buyer.post(terms, given.manifest)
    assert buyer.job_count() == count + 1 == job
    record = buyer.job(job)
    assert (record.terms, record.manifest, record.buyer) == (terms, given.manifest, buyer.address)
    assert (record.reserved, record.spent, record.settled) == (0, 0, 0)
    assert buyer.tokens(buyer.address) == tokens - terms.escrow
    (event,) = (event for event in receipt.events if event.name == "Posted")
    assert event.fields["terms"]["escrow"] == terms.escrow  # type: ignore[index]
    assert load_job(buyer, given.store, job).plan == given.plan


def test_a_segment_goes_from_open_to_settled(devnet: Devnet, buyer: Web3Chain, solver: Web3Chain) -> None:
    given, key = posted(buyer)
    start, owed = solver.head()[0] + 1, solver.owed(solver.address)
    assert solver.segment(key).state is SegmentState.OPEN
    claim(solver, given, key)
    claimed = solver.segment(key)
    assert (claimed.state, claimed.solver) == (SegmentState.CLAIMED, solver.address)
    assert claimed.input_root == given.state.root
    assert solver.stake(solver.address)[1] == STAKE
    done = replay(given, 0)
    commit(solver, given, key, done)
    committed = buyer.segment(key)
    output = done.state_at(len(done.trace) - 1)
    assert committed.group_roots == output.group_roots
    assert load_job(buyer, given.store, key.job).load_output(0, committed).root == output.root
    devnet.advance(given.job.terms.window + 1)
    buyer.settle(key, given.plan.segments[0], trace_root(done.trace))
    settled = solver.segment(key)
    assert (settled.state, settled.group_roots, settled.cid) == (
        SegmentState.SETTLED,
        committed.group_roots,
        committed.cid,
    )
    assert solver.owed(solver.address) == owed + PAY
    before = solver.tokens(solver.address)
    solver.withdraw()
    assert solver.tokens(solver.address) == before + PAY
    names = [event.name for event in solver.events(start, solver.head()[0])]
    settling = ["Settled", "Revealed", "Ended", "Accrued", "Unlocked"]
    assert names == ["Claimed", "Locked", "Committed", "Opened", *settling, "Withdrawn"]


def test_a_lease_runs_out(devnet: Devnet, buyer: Web3Chain, solver: Web3Chain) -> None:
    given, key = posted(buyer)
    claim(solver, given, key)
    devnet.advance(given.job.terms.lease + 1)
    buyer.expire(key)
    assert solver.segment(key).state is SegmentState.OPEN


def test_what_is_unspent_comes_back(devnet: Devnet, buyer: Web3Chain) -> None:
    given, key = posted(buyer)
    devnet.advance(10**6 + 1)
    before = buyer.tokens(buyer.address)
    buyer.refund(key.job)
    buyer.withdraw()
    assert buyer.tokens(buyer.address) == before + given.job.terms.escrow


def test_stake_comes_back(challenger: Web3Chain) -> None:
    free, tokens = challenger.stake(challenger.address)[0], challenger.tokens(challenger.address)
    challenger.withdraw_stake(5)
    assert challenger.stake(challenger.address)[0] == free - 5
    assert challenger.tokens(challenger.address) == tokens + 5


# ---------------------------------------------------------------- refusals


def test_a_refusal_names_the_error_and_sends_nothing(buyer: Web3Chain, solver: Web3Chain) -> None:
    given, key = posted(buyer)
    nonce = solver.node.transaction_count(solver.address)
    wrong = tuple(GroupProof(bytes(32), proof.proof) for proof in [GroupProof(b"", (bytes(32),) * 2)] * 3)
    with pytest.raises(Refused, match=r"claim was refused: BadProof\(\)"):
        solver.claim(key, given.plan.segments[0], given.plan.proof(0), wrong)
    with pytest.raises(Refused) as refused:
        solver.commit(key, given.state.root, given.state.group_roots, bytes(32), given.manifest)
    assert refused.value.error == "WrongState"
    assert refused.value.values == {"job": key.job, "segment": 0, "actual": 0, "needed": 1}
    assert solver.node.transaction_count(solver.address) == nonce


def test_of_two_who_race_one_is_refused(devnet: Devnet, buyer: Web3Chain, solver: Web3Chain) -> None:
    given, key = posted(buyer)
    claim(solver, given, key)
    devnet.advance(given.job.terms.lease + 1)
    devnet.node.request("evm_setAutomine", False)
    with ThreadPoolExecutor(2) as pool:
        racers = [pool.submit(chain.expire, key) for chain in (buyer, solver)]
        while devnet.node.request("txpool_status") != {"pending": "0x2", "queued": "0x0"}:
            time.sleep(0.01)
        devnet.node.request("evm_setAutomine", True)
        devnet.node.request("evm_mine")
        (refusal,) = [error for error in (racer.exception(30) for racer in racers) if error is not None]
    assert isinstance(refusal, Refused)
    assert (refusal.error, refusal.values["actual"]) == ("WrongState", SegmentState.OPEN)


def test_an_error_of_the_token_is_named(devnet: Devnet) -> None:
    poor = Web3Chain(devnet.rpc, devnet.deployment, "0x" + "77" * 32)
    devnet.fund(poor.address, 10)
    with pytest.raises(Refused, match=r"ERC20InsufficientBalance\(sender=0x.*balance=10, needed=11\)"):
        poor.deposit(11)


def test_an_account_without_gas_money_is_told(devnet: Devnet) -> None:
    broke = Web3Chain(devnet.rpc, devnet.deployment, "0x" + "78" * 32)
    with pytest.raises(Refused, match="InsufficientGasMoney"):
        broke.deposit(0)


def test_unknown_jobs_and_games_are_refused(buyer: Web3Chain) -> None:
    with pytest.raises(Refused, match=r"UnknownJob\(job=999\)"):
        buyer.job(JobId(999))
    with pytest.raises(Refused, match=r"UnknownGame\(game=999\)"):
        buyer.game(GameId(999))


def test_arguments_that_do_not_fit_are_refused(buyer: Web3Chain) -> None:
    with pytest.raises(Refused, match="InvalidArguments"):
        buyer.refund(JobId(2**64))
    with pytest.raises(Corrupt, match="is not a CID"):
        buyer.post(sample().job.terms, "somewhere")


def test_without_a_key_the_chain_can_only_be_read(devnet: Devnet) -> None:
    reader = Web3Chain(devnet.rpc, devnet.deployment)
    assert reader.now() > 0
    with pytest.raises(ConfigError, match="needs a key"):
        reader.withdraw()
    with pytest.raises(ConfigError, match="needs a key"):
        _ = reader.address


def test_a_deployment_that_is_not_there_is_refused(devnet: Devnet) -> None:
    other = devnet.deployment.model_copy(update={"chain_id": 1})
    with pytest.raises(BadAnswer, match="the node is on chain 31337, the deployment on 1"):
        Web3Chain(devnet.rpc, other)
    nowhere = devnet.deployment.model_copy(
        update={"stake": Web3Chain(devnet.rpc, devnet.deployment, "0x" + "79" * 32).address}
    )
    with pytest.raises(ConfigError, match="where the deployment has stake"):
        Web3Chain(devnet.rpc, nowhere)


def test_a_cid_that_is_none_is_no_cid(buyer: Web3Chain, solver: Web3Chain) -> None:
    given, key = posted(buyer)
    claim(solver, given, key)
    what = (given.state.root, list(given.state.group_roots), bytes(32), b"elsewhere")
    solver.send("Market", "commit", key.job, 0, *what)
    assert solver.segment(key).cid == ""
    assert solver.segment(key).group_roots == given.state.group_roots


# ---------------------------------------------------------------- disputes


def test_a_cheat_is_overturned_and_what_was_shown_is_read(
    devnet: Devnet, buyer: Web3Chain, solver: Web3Chain, challenger: Web3Chain
) -> None:
    given, key = posted(buyer)
    claim(solver, given, key)
    solvers, honest = replay(given, 0, "gradient:1"), replay(given, 0)
    commit(solver, given, key, solvers)
    start = challenger.head()[0]
    number, _ = challenger.challenge(key, given.plan.segments[0], challenger.segment(key).seal)
    devnet.advance(given.job.terms.window)
    kinds = set()
    while (game := challenger.game(number)).phase is not Phase.OVER:
        assert game == solver.game(number)
        kinds.add(game.phase)
        defends = game.phase in DEFENDER_PHASES
        move = defend(game, solvers) if defends else attack(game, honest)
        assert move is not None
        move.send(solver if defends else challenger)
    assert kinds >= {Phase.REVEAL_TRACE, Phase.PICK_WORD, Phase.PICK_PARTIAL, Phase.PROVE}
    assert game.reason is Reason.WRONG_WORD
    assert [event.name for event in game.history][:: len(game.history) - 1] == ["Challenged", "Closed"]
    assert list(game.history) == [
        e for e in challenger.events(start, challenger.head()[0]) if e.fields.get("game") == number
    ]
    assert (len(game.page), len(game.partials)) == (1024, 4)
    segment = challenger.segment(key)
    assert (segment.state, segment.attempt, segment.heir) == (SegmentState.OPEN, 1, challenger.address)
    assert challenger.barred(key.job, solver.address)


def test_a_player_who_is_silent_loses(devnet: Devnet, buyer: Web3Chain, challenger: Web3Chain) -> None:
    silent = account(devnet, 3)
    silent.deposit(STAKE)
    given, key = posted(buyer)
    claim(silent, given, key)
    commit(silent, given, key, replay(given, 0))
    number, _ = challenger.challenge(key, given.plan.segments[0], challenger.segment(key).seal)
    with pytest.raises(Refused, match="ClockRunning"):
        challenger.timeout(number)
    devnet.advance(given.job.terms.window + given.job.terms.clock + 1)
    challenger.timeout(number)
    assert challenger.game(number).reason is Reason.TIMEOUT
    with pytest.raises(Refused, match="WrongPhase"):
        challenger.close(number)


LEAF = ProgramLeaf(b"header", (bytes(32),))
VALUE = ValueProof(3, bytes(32), (bytes(32), bytes(32)))
PAGE = PageOpening(0, 1, bytes(1024), (bytes(32),))
HASH, ROOTS = b"\x07" * 32, [bytes(32), b"\x01" * 32]
NOGAME = GameId(10**6)
MOVES: dict[str, Callable[[Web3Chain], object]] = {
    "reveal_trace": lambda c: c.reveal_trace(NOGAME, HASH, ROOTS),
    "pick_checkpoint": lambda c: c.pick_checkpoint(NOGAME, HASH, 1, HASH, ROOTS, HASH, ROOTS),
    "reveal_states": lambda c: c.reveal_states(NOGAME, HASH, ROOTS),
    "pick_step": lambda c: c.pick_step(NOGAME, HASH, 1, HASH, ROOTS, HASH, ROOTS),
    "reveal_step": lambda c: c.reveal_step(NOGAME, HASH, LEAF, ROOTS),
    "reveal_children": lambda c: c.reveal_children(NOGAME, HASH, ROOTS),
    "pick_child": lambda c: c.pick_child(NOGAME, HASH, 1, HASH, ROOTS, LEAF),
    "dispute_next": lambda c: c.dispute_next(NOGAME, HASH, LEAF),
    "reveal_page": lambda c: c.reveal_page(NOGAME, HASH, bytes(1024)),
    "pick_word": lambda c: c.pick_word(NOGAME, HASH, 1, bytes(1024)),
    "reveal_partials": lambda c: c.reveal_partials(NOGAME, HASH, bytes(8)),
    "pick_partial": lambda c: c.pick_partial(NOGAME, HASH, 1, bytes(8)),
    "prove": lambda c: c.prove(NOGAME, HASH, LEAF, LEAF, [VALUE], [PAGE]),
    "prove_next": lambda c: c.prove_next(NOGAME, HASH, LEAF, VALUE),
    "prove_invalid_nest": lambda c: c.prove_invalid_nest(NOGAME, HASH, LEAF, 1, LEAF, 2, LEAF),
    "prove_invalid_header": lambda c: c.prove_invalid_header(NOGAME, HASH, LEAF, 1, LEAF),
    "timeout": lambda c: c.timeout(NOGAME),
    "close": lambda c: c.close(NOGAME),
}


@pytest.mark.parametrize("name", MOVES)
def test_every_move_reaches_the_contract(challenger: Web3Chain, name: str) -> None:
    with pytest.raises(Refused, match=r"WrongPhase\(actual=0, needed=\d+\)"):
        MOVES[name](challenger)


def test_what_nobody_claimed_cannot_be_voided(buyer: Web3Chain, solver: Web3Chain) -> None:
    given, key = posted(buyer)
    with pytest.raises(Refused, match=r"WrongState\(job=\d+, segment=0, actual=0, needed=2\)"):
        solver.void(key, given.plan.segments[0])
