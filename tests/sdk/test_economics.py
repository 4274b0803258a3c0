"""What attacks are said to earn: the formulas against dice, the conditions against the attacks, the rules against
the contracts.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from crowdtrain import economics
from crowdtrain.cli import app
from crowdtrain.economics import Aim, Assumptions, Offer
from crowdtrain.risk import Risk
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

CONTRACTS = Path(__file__).parents[2] / "contracts"
OFFER = Offer(price=1, stake=economics.STAKE_PRICES, segments=100)
GIVEN = Assumptions()

offers = st.builds(
    Offer,
    price=st.floats(0.01, 1e20),
    stake=st.floats(0.1, 1e21),
    audit_rate=st.floats(0, 4),
    audit_share=st.floats(0, 4),
    segments=st.integers(1, 1000),
)
assumptions = st.builds(
    Assumptions,
    collusion=st.floats(0, 1),
    watchers=st.floats(0, 1),
    diligence=st.floats(0, 1),
    draw_control=st.floats(0, 1),
    cost=st.floats(0, 2),
    reward=st.floats(0, 1),
    bounty_returns=st.floats(0, 1),
)


def garbage(offer: Offer, assumed: Assumptions) -> economics.Attack:
    return economics.cheapest(economics.attacks(offer, assumed), Aim.RESULT)


# ------------------------------------------------------------------ rules are those of the contracts


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [
        ("Audit.sol", "START_RATE", economics.START_RATE * 10_000),
        ("Audit.sol", "FLOOR_RATE", economics.FLOOR_RATE * 10_000),
        ("Audit.sol", "HALVING_PRICES", economics.HALVING_PRICES),
        ("Audit.sol", "PENALTY_PART", economics.PENALTY_PART),
        ("libraries/Plan.sol", "MAX_AUDIT", economics.MAX_RATE * 10_000),
        ("libraries/Plan.sol", "MAX_AUDIT", economics.MAX_SHARE * 10_000),
        ("Emission.sol", "SOLVER_PERCENT", economics.SOLVER_REWARD * 100),
        ("Emission.sol", "AUDITOR_PERCENT", economics.AUDITOR_REWARD * 100),
        ("Emission.sol", "BUYER_PERCENT", economics.BUYER_REWARD * 100),
    ],
)
def test_constants_are_those_of_the_contracts(source: str, name: str, value: float) -> None:
    found = re.search(rf"constant {name} = ([\d_]+);", (CONTRACTS / source).read_text())
    assert found is not None
    assert int(found[1].replace("_", "")) == pytest.approx(value)


def test_half_of_what_is_slashed_is_burned() -> None:
    assert "uint256 bounty = amount / 2;" in (CONTRACTS / "Stake.sol").read_text()
    assert economics.BURNED == 0.5


# ------------------------------------------------------------------ formulas against dice


@pytest.mark.parametrize(("rate", "auditors"), [(0.1, 3), (0.5, 10), (1.0, 2), (2.0, 50)])
def test_detection_is_at_most_what_dice_show(rate: float, auditors: int) -> None:
    rng, tries = random.Random(0), 20_000
    weight = 1 / auditors
    honest = auditors // 2 + auditors % 2
    assumed = Assumptions(collusion=1 - honest * weight)
    found = sum(any(rng.random() < rate * weight for _ in range(honest)) for _ in range(tries)) / tries
    least = economics.detection(rate, assumed)
    noise = 4 * math.sqrt(0.25 / tries)
    assert found > least - noise
    if auditors > 20:
        assert found < least + 0.02  # nearly as little, if they are many


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0, 3.0])
def test_part_of_the_pot_is_what_dice_show(rate: float) -> None:
    rng, tries, many = random.Random(1), 20_000, 100
    shares = [1 / (1 + sum(rng.random() < rate / many for _ in range(many))) for _ in range(tries // 10)]
    assert economics.share_of_pot(rate) == pytest.approx(sum(shares) / len(shares), abs=0.03)


def test_an_attack_is_worth_what_dice_show() -> None:
    rng = random.Random(2)
    attack = garbage(OFFER, GIVEN)
    tries = 100_000
    total = sum(-attack.loss if rng.random() < attack.caught else attack.gain for _ in range(tries))
    noise = 4 * (attack.gain + attack.loss) * math.sqrt(attack.caught / tries)
    assert total / tries - attack.cost == pytest.approx(attack.expected, abs=noise)


def test_what_auditors_do_is_an_equilibrium() -> None:
    offer, rate = replace(OFFER, audit_share=0.8), 1.0
    active = economics.diligence(offer, GIVEN, rate)
    assert 0 < active < 1
    others = rate * (GIVEN.collusion + (1 - GIVEN.collusion) * active)
    assert economics.auditor_profit(offer, GIVEN, others) == pytest.approx(-offer.penalty, abs=1e-6)


# ------------------------------------------------------------------ conditions


@given(offers, assumptions)
def test_garbage_loses_above_the_required_stake_and_gains_below(offer: Offer, assumed: Assumptions) -> None:
    # gas would only make it worse; every way to be paid for a wrong result is tried
    needed = economics.required_stake(offer, assumed)
    if 0 < needed < math.inf:
        assert garbage(replace(offer, stake=1.001 * needed), assumed).loses
        assert not garbage(replace(offer, stake=0.999 * needed), assumed).loses
    elif math.isinf(needed):
        assert not garbage(replace(offer, stake=1e30 * offer.price), assumed).loses


@given(offers, assumptions)
def test_garbage_loses_at_the_required_rate_and_share(offer: Offer, assumed: Assumptions) -> None:
    even = 1e-9 * offer.price  # both are found by bisection
    rate = economics.required_rate(offer, assumed)
    if rate < math.inf:
        assert garbage(replace(offer, audit_rate=rate), assumed).expected < even
    share = economics.required_share(offer, assumed)
    if share < math.inf:
        assert garbage(replace(offer, audit_share=share), assumed).expected < even


@given(offers, assumptions, st.floats(0, 1e22))
@example(
    Offer(price=1, stake=48, audit_rate=0, segments=1),
    Assumptions(collusion=1, watchers=0.0625, diligence=0, cost=0, reward=0),
    0.0,
)
def test_a_record_or_a_chain_of_segments_does_not_shield_a_cheat(
    offer: Offer, assumed: Assumptions, record: float
) -> None:
    # auditors of one's own share more pots the shorter one's record: both ends of it have a condition
    needed = max(economics.required_stake(offer, assumed, of) for of in (record, math.inf))
    if needed < offer.stake:
        tried = economics.attacks(offer, assumed, record)
        assert all(attack.loses for attack in tried if attack.aim is Aim.RESULT and attack.caught > 0)


@given(offers, assumptions, st.floats(0, 1))
def test_collusion_never_costs_less_to_find_out(offer: Offer, assumed: Assumptions, more: float) -> None:
    worse = replace(assumed, collusion=assumed.collusion + (1 - assumed.collusion) * more)
    rate = offer.rate()
    assert economics.detection(rate, worse) <= economics.detection(rate, assumed) + 1e-12


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.3, 1.0])
def test_the_proposed_stake_is_enough_at_any_rate_at_which_replays_pay(rate: float) -> None:
    offer = replace(OFFER, audit_rate=rate)
    stake = economics.proposed_stake(offer)
    assert garbage(replace(offer, stake=stake), GIVEN).loses
    assert stake % 5 == 0
    assert economics.proposed_stake(replace(offer, price=0)) == 0
    assert economics.proposed_stake(replace(offer, audit_share=0)) == economics.STAKE_PRICES


@pytest.mark.parametrize("price", [0.0, 1.0])
def test_what_else_a_segment_is_worth_needs_more_stake(price: float) -> None:
    offer, assumed = replace(OFFER, price=price), replace(GIVEN, bonus=2.0)
    assert not garbage(offer, assumed).loses
    stake = economics.proposed_stake(offer, assumed)
    assert garbage(replace(offer, stake=stake), assumed).loses
    assert stake < 2 * economics.required_stake(offer, assumed)


def test_who_watches_and_who_draws() -> None:
    offer = replace(OFFER, audit_rate=0.0)
    watched = economics.watching(OFFER, GIVEN)
    blind = Assumptions(diligence=0.0)
    assert not garbage(OFFER, blind).loses
    assert garbage(OFFER, replace(blind, watchers=watched + 0.001)).loses
    assert not garbage(OFFER, replace(blind, watchers=watched - 0.001)).loses
    control = economics.draw_limit(OFFER, GIVEN)
    assert 0 < control < 1
    assert garbage(OFFER, replace(GIVEN, draw_control=control - 0.001)).loses
    assert not garbage(OFFER, replace(GIVEN, draw_control=control + 0.001)).loses
    assert economics.draw_limit(offer, GIVEN) < 0  # loses in no case
    replaying = economics.needed_diligence(OFFER, GIVEN, OFFER.rate())
    assert garbage(OFFER, replace(GIVEN, diligence=replaying + 0.01)).loses
    assert not garbage(OFFER, replace(GIVEN, diligence=replaying - 0.01)).loses


def test_what_a_quote_proposes_makes_cheats_lose_though_half_of_the_auditors_collude() -> None:
    for record in (0, 10, 1000, math.inf):
        tried = economics.attacks(OFFER, GIVEN, record)
        assert all(attack.loses for attack in tried if attack.aim is not Aim.PAY)
    assert economics.required_stake(OFFER, GIVEN) == pytest.approx(40.6, abs=0.1)
    assert economics.proposed_stake(replace(OFFER, stake=0)) == OFFER.stake
    assert economics.required_rate(OFFER, GIVEN) < OFFER.audit_rate
    assert economics.diligence(OFFER, GIVEN, 1.0) == 1.0  # a newcomer's segments are audited, too


@pytest.mark.parametrize("collusion", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("reward", [0.0, 0.5, 0.84])
def test_pay_without_work_loses_if_rewards_are_worth_less_than_0_85_of_fees(
    reward: float, collusion: float
) -> None:
    tried = economics.attacks(OFFER, Assumptions(reward=reward, collusion=collusion))
    assert all(attack.loses for attack in tried if attack.aim is Aim.PAY)


@pytest.mark.parametrize(("reward", "fees"), [(0.85, 0.0), (1.0, 0.15)])
def test_work_that_nobody_can_audit_pays_above(reward: float, fees: float) -> None:
    # one account with a quarter of the weight is sure to be drawn, and earns the auditors' tokens
    tried = economics.attacks(OFFER, Assumptions(reward=reward, collusion=0.25))
    attack = next(attack for attack in tried if attack.name == "work that nobody can audit")
    assert attack.expected == pytest.approx(fees * OFFER.fee)


@pytest.mark.parametrize("collusion", [0.0, 0.1, 0.25, 0.5])
def test_who_settles_only_what_pays_earns_what_dice_show(collusion: float) -> None:
    rng, tries, many, given = random.Random(3), 20_000, 60, Assumptions(reward=0.8, collusion=collusion)
    each = economics.MAX_RATE * (1 - collusion) / many
    total = 0.0
    for _ in range(tries):
        own = rng.random() < min(1, economics.MAX_RATE * collusion)
        fined = sum(rng.random() < each for _ in range(many))
        total += max(0.0, given.reward * (0.75 + 0.25 * own) + fined / 20 - 1)
    assert economics.choosing(given) == pytest.approx(total / tries, abs=0.003)
    assert economics.choosing(replace(given, reward=1.0, collusion=0.25)) == pytest.approx(0.15)
    if collusion == 0.25:
        assert economics.choosing(given) == pytest.approx(0.016, abs=0.0005)


def test_a_record_costs_nothing_where_all_of_a_fee_comes_back() -> None:
    assert economics.farming(OFFER, Assumptions(collusion=0.25)) == 0
    assert economics.farming(OFFER, Assumptions(collusion=0.0)) == pytest.approx(0.36)


def test_wash_trading_pays_as_soon_as_rewards_are_worth_more_than_fees() -> None:
    dear = economics.attacks(OFFER, Assumptions(reward=1.4))
    wash = next(attack for attack in dear if attack.name.startswith("wash"))
    assert not wash.loses


def test_delays_cost_more_than_they_give() -> None:
    for delay in economics.delays(OFFER, GIVEN):
        assert delay.cost > delay.received >= 0
        assert delay.cost_per_hour > 0


# ------------------------------------------------------------------ for people


def test_a_risk_says_what_to_raise() -> None:
    thin = Risk(replace(OFFER, stake=10), GIVEN)
    assert not thin.is_safe
    assert "GAINS" in thin.summary
    assert any("the stake above 40.6" in advice for advice in thin.advice)
    safe = Risk(OFFER, GIVEN)
    assert safe.is_safe
    assert not safe.advice
    assert not Risk(OFFER, GIVEN, enrolled=0).is_safe


def test_garbage_for_nothing_risks_nothing_without_a_stake() -> None:
    free = Risk(Offer(price=0, stake=0), GIVEN)
    assert not free.is_safe
    assert free.summary.startswith("garbage by solver risks nothing: raise the stake above 0; or ")
    assert Risk(free.offer, replace(GIVEN, collusion=1.0)).advice
    assert economics.watching(free.offer, GIVEN) == math.inf  # no replay takes what is not staked
    assert economics.draw_limit(free.offer, GIVEN) < 0
    assert Risk(Offer(price=0, stake=1), GIVEN).is_safe
    assert economics.watching(replace(OFFER, stake=0), GIVEN) == math.inf


def test_the_command_says_whether_a_job_is_safe() -> None:
    runner = CliRunner()
    safe = runner.invoke(app, ["job", "risk", "--price", "1e18"], env={"COLUMNS": "200"})
    assert safe.exit_code == 0, safe.output
    assert "loses 2.29e17 on average" in safe.output
    bold = runner.invoke(app, ["job", "risk", "--price", "1e18", "--stake", "1e19"], env={"COLUMNS": "200"})
    assert bold.exit_code == 1
    assert "raise the stake above 4.06e19" in bold.output
    assert runner.invoke(app, ["job", "risk"]).exit_code == 2
    shares = ["job", "risk", "--price", "1e18", "--bonus", "2"]
    owned = runner.invoke(app, shares, env={"COLUMNS": "200"})
    assert owned.exit_code == 1
    assert "raise the stake above 1.19e20" in owned.output
    assert runner.invoke(app, [*shares, "--stake", "1.2e20"]).exit_code == 0
    for stake, code in (("3e18", 1), ("5e19", 0)):  # at no price, token units
        wanted = ["job", "risk", "--price", "0", "--bonus", "1e18", "--stake", stake]
        assert runner.invoke(app, wanted).exit_code == code
    free = runner.invoke(app, ["job", "risk", "--price", "0"], env={"COLUMNS": "200"})
    assert (free.exit_code, type(free.exception)) == (1, SystemExit)
    assert "garbage by solver risks nothing: raise the stake above 0" in free.output
