"""What each attack on a job is expected to earn, and which stake or audit rate makes it lose (docs/ECONOMICS.md).

Amounts are token units, times seconds, rates expected numbers of auditors. All of it follows from an
:class:`Offer`, which is on chain, and :class:`Assumptions`, which nobody can read there. Results are
estimates for people, never inputs of a transaction, so they are floats.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from crowdtrain.chain import WHOLE, JobTerms, Rules

__all__ = [
    "AUDIT_RATE", "AUDIT_SHARE", "GAS", "LEAST_TIME", "SEGMENT_GAS", "STAKE_PRICES", "Aim", "Assumptions", "Attack",
    "Delay", "Offer", "any_drawn", "at_stake", "attacks", "auditor_profit", "buyer_cost", "cheapest", "choosing",
    "delays", "detection", "diligence", "draw_limit", "farming", "needed_diligence", "proceeds", "proposed_stake",
    "required_rate", "required_share", "required_stake", "seen", "share_of_pot", "suspicion", "unreplayed",
    "watching",
]  # fmt: skip

# ------------------------------------------------------------------ rules of the contracts

START_RATE = 1.0
"""auditors expected for an account without a record"""
FLOOR_RATE = 0.05
"""least auditors expected for anybody"""
HALVING_PRICES = 8
"""a record worth so many prices halves the rate"""
MAX_RATE = 4.0
"""most auditors that a job can ask for"""
MAX_SHARE = 4.0
"""most prices in a pot"""
PENALTY_PART = 10
"""silence costs this part of the pot or of the fee, whichever is less"""
BURNED = 0.5
"""part of what is slashed that nobody gets"""
FINE = (1 - BURNED) / PENALTY_PART
"""what reporting an auditor's silence gives, in fees at most"""
SOLVER_REWARD, AUDITOR_REWARD, BUYER_REWARD = 0.60, 0.25, 0.15
"""who gets which part of the tokens that a fee mints"""

# ------------------------------------------------------------------ what a quote proposes

AUDIT_RATE = 0.1
"""auditors a job asks for if nothing else is said"""
AUDIT_SHARE = 1.0
"""prices in an audit's pot: an auditor alone is paid as the solver is"""
STAKE_PRICES = 50
"""prices that a solver stakes then (:func:`proposed_stake`)"""
LEAST_TIME = 600
"""seconds in which somebody notices what happened, computes an answer, and has it in a block"""

GAS = {
    "approve": 60_000, "post": 250_000, "claim": 270_000, "commit": 190_000, "settle": 340_000, "expire": 90_000,
    "attest": 150_000, "challenge": 330_000, "lose": 130_000, "forfeit": 160_000, "punish": 110_000,
}  # fmt: skip
"""gas of single transactions, at most about (``make bench-gas`` measures it); ``lose`` is the first move of a game
that is lost on purpose"""
SEGMENT_GAS = GAS["claim"] + GAS["commit"] + GAS["settle"]
"""gas of a segment that nobody disputes"""
YEAR = 365 * 24 * 3600
HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A segment as its job offers it."""

    price: float
    stake: float
    audit_rate: float = AUDIT_RATE
    """least auditors expected that the job asks for"""
    audit_share: float = AUDIT_SHARE
    """pot of an audit, in prices"""
    fee_rate: float = 0.02
    """part of the price that is burned"""
    lease: float = 6060
    window: float = 6120
    clock: float = 13_800
    segments: int = 1
    """how many segments one solver could hold at once"""

    @classmethod
    def of(cls, terms: JobTerms, rules: Rules, price: int) -> Offer:
        """A segment at ``price`` of a job with these terms."""
        return cls(
            price=price,
            stake=terms.stake,
            audit_rate=terms.audit_rate / WHOLE,
            audit_share=terms.audit_share / WHOLE,
            fee_rate=rules.fee_rate / WHOLE,
            lease=terms.lease,
            window=terms.window,
            clock=terms.clock,
            segments=terms.segments,
        )

    @property
    def fee(self) -> float:
        """Burned when the segment settles."""
        return self.price * self.fee_rate

    @property
    def pot(self) -> float:
        """Shared by the auditors who attest right; the buyer's again if there is none."""
        return self.price * self.audit_share

    @property
    def penalty(self) -> float:
        """What silence or a wrong attestation costs an auditor."""
        return min(self.pot, self.fee) / PENALTY_PART

    def rate(self, record: float = math.inf) -> float:
        """Auditors expected for a solver whose record since its last fault is worth ``record`` token units."""
        own = HALVING_PRICES * self.price
        decayed = START_RATE * own / (own + record) if own + record > 0 else START_RATE
        return max(decayed, FLOOR_RATE, self.audit_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the chain does not show. The defaults favour the attacker."""

    collusion: float = 0.5
    """part of the enrolled weight that attests whatever the solver tells it to"""
    diligence: float = 1.0
    """most of the other weight that replays what it is drawn for, and challenges what is wrong; less does
    where replays do not pay (:func:`diligence`)"""
    watchers: float = 0.0
    """chance that somebody honest replays the segment without being drawn"""
    draw_control: float = 0.0
    """chance that the attacker makes the block of the draw, and picks its hash"""
    bounty_returns: float = 1.0
    """chance that who is caught collects the bounty: by losing a game against an account of their own before
    the honest one can be won"""
    cost: float = 0.6
    """cost of computing a segment, in prices"""
    reward: float = 1.0
    """worth of the protocol tokens that a unit of fee mints"""
    bonus: float = 0.0
    """what else a settled segment is worth to its solver, such as shares of a campaign"""
    gas_price: float = 0.0
    """token units for each gas"""
    interest: float = 0.10
    """what locked money costs, a year"""


class Aim(enum.Enum):
    """What an attack is for."""

    RESULT = "a wrong result is paid for"
    PAY = "pay without work"
    DELAY = "others lose time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way to misbehave, once: ``gain`` if it succeeds, ``loss`` if it fails, ``cost`` in either case."""

    name: str
    who: str
    aim: Aim
    how: str
    gain: float = 0.0
    loss: float = 0.0
    caught: float = 1.0
    """chance that it fails"""
    cost: float = 0.0

    @property
    def expected(self) -> float:
        """What the attacker has more, on average; negative if the attack loses."""
        return (1 - self.caught) * self.gain - self.caught * self.loss - self.cost

    @property
    def loses(self) -> bool:
        """Whether it is better not to try."""
        return self.expected < 0


# ------------------------------------------------------------------ chances and values


def detection(rate: float, given: Assumptions) -> float:
    """Least chance that somebody honest replays a segment audited at ``rate``.

    An auditor of weight w out of W is drawn with chance min(1, rate · w / W), independently of the others; the chance
    that none of the diligent is drawn is at most exp(−rate · their part of W), and nearly that if they are many.
    """
    honest = rate * (1 - given.collusion) * given.diligence
    unseen = given.draw_control + (1 - given.draw_control) * math.exp(-honest)
    return 1 - (1 - given.watchers) * unseen


def proceeds(offer: Offer, given: Assumptions, rate: float) -> float:
    """What a segment is worth, once settled, to a solver with auditors of its own whom nobody honest
    joined: price, rewards, and the pot if one of its own was drawn."""
    own = any_drawn(rate * given.collusion)
    rewards = offer.fee * given.reward * (SOLVER_REWARD + AUDITOR_REWARD * own)
    return offer.price - offer.fee + given.bonus + rewards + offer.pot * own


def at_stake(offer: Offer, given: Assumptions) -> float:
    """What a solver who is caught loses: all that is burned, and the bounty if another gets it."""
    return offer.stake * (BURNED + (1 - BURNED) * (1 - given.bounty_returns))


def share_of_pot(rate: float) -> float:
    """Part of the pot that an auditor who is drawn can expect: 1 / (1 + others), who are Poisson
    distributed with mean ``rate``."""
    return any_drawn(rate) / rate if rate > 0 else 1.0


def auditor_profit(offer: Offer, given: Assumptions, rate: float) -> float:
    """What an honest auditor earns from a right segment it is drawn for, after the cost of the replay."""
    rewards = offer.fee * given.reward * AUDITOR_REWARD
    income = (offer.pot + rewards) * share_of_pot(rate)
    return income - given.cost * offer.price - GAS["attest"] * given.gas_price


def diligence(offer: Offer, given: Assumptions, rate: float) -> float:
    """Part of the honest weight that replays, if none does it at a loss and colluders always attest.

    The more attest, the less each earns: this is where replaying earns what silence does, minus the penalty.
    """

    def others(active: float) -> float:
        return rate * (given.collusion + (1 - given.collusion) * active)

    def pays(active: float) -> bool:
        return auditor_profit(offer, given, others(active)) >= -offer.penalty

    if pays(1.0):
        return 1.0
    return _least(lambda active: not pays(active), 0.0, 1.0)  # it pays up to there


def seen(offer: Offer, given: Assumptions, rate: float) -> float:
    """Least chance that garbage audited at ``rate`` is caught, by auditors who replay only what pays."""
    active = min(given.diligence, diligence(offer, given, rate))
    return detection(rate, replace(given, diligence=active))


def needed_diligence(offer: Offer, given: Assumptions, rate: float) -> float:
    """Part of the honest weight that must replay for garbage to lose; above 1 if it does not lose at all."""
    honest = rate * (1 - given.collusion)
    lost = at_stake(offer, given)
    if honest == 0 or lost == 0:
        return math.inf
    needed = math.log1p(proceeds(offer, given, rate) / lost) + math.log1p(-given.watchers)
    return max(0.0, needed / honest)


def suspicion(offer: Offer, given: Assumptions) -> float:
    """Part of segments that must be wrong for the bounty alone to pay for replaying each of them."""
    bounty = offer.stake * (1 - BURNED)
    return given.cost * offer.price / bounty if bounty > 0 else math.inf


def unreplayed(offer: Offer, given: Assumptions, rate: float) -> float:
    """What a solver of right work spares its own auditors by telling them the trace root: their replays."""
    return rate * given.collusion * given.cost * offer.price


def watching(offer: Offer, given: Assumptions) -> float:
    """Part of its segments that a buyer has to replay for garbage to lose without any audit; infinite where
    nothing is at stake."""
    gain, lost = proceeds(offer, given, offer.rate()), at_stake(offer, given)
    return gain / (gain + lost) if lost > 0 else math.inf


def draw_limit(offer: Offer, given: Assumptions) -> float:
    """Part of the draws' blocks that the attacker may make with garbage still losing; negative if it does not
    lose without."""
    rate = offer.rate()
    unseen = 1 - seen(offer, replace(given, draw_control=0.0, watchers=0.0), rate)
    allowed = (1 - watching(offer, given)) / (1 - given.watchers) if given.watchers < 1 else math.inf
    return (allowed - unseen) / (1 - unseen) if unseen < 1 else -math.inf


def any_drawn(rate: float) -> float:
    """Chance that at least one auditor is drawn, where ``rate`` of many are expected: Poisson's."""
    return -math.expm1(-rate)


def buyer_cost(offer: Offer, rate: float) -> float:
    """What auditing a segment costs the buyer: the pot, if anybody is drawn and attests right."""
    return any_drawn(rate) * offer.pot


# ------------------------------------------------------------------ attacks for a wrong result


def _garbage(offer: Offer, given: Assumptions, record: float) -> Attack:
    rate = offer.rate(record)
    alone = given.collusion == 0
    return Attack(
        name="garbage" if alone else "garbage, own auditors",
        who="solver" if alone else "solver and auditors",
        aim=Aim.RESULT,
        gain=proceeds(offer, given, rate),
        loss=at_stake(offer, given),
        caught=seen(offer, given, rate),
        cost=SEGMENT_GAS * given.gas_price,
        how="commits what it did not compute; if challenged, loses to itself first to get the bounty back",
    )


def _garbage_alone(offer: Offer, given: Assumptions, record: float) -> Attack:
    return _garbage(offer, replace(given, collusion=0.0), record)


def _garbage_chain(offer: Offer, given: Assumptions, record: float) -> Attack:
    """Garbage on garbage: one stake is lost, the others come back as voided, but so is all the pay."""
    one = _garbage(offer, given, record)
    unseen = 1 - one.caught
    if unseen >= 1:
        best = float(offer.segments)
    elif unseen <= 0:
        best = 1.0
    else:
        best = -1 / math.log(unseen) - one.loss / one.gain if one.gain > 0 else 1.0
    count = max(1, min(offer.segments, round(best)))
    return replace(
        one,
        name="chain of garbage, own auditors",
        gain=count * one.gain,
        caught=1 - unseen**count,
        cost=count * one.cost,
        how=f"builds {count} on each other; if one is challenged, overturns the first: the rest is voided",
    )


def farming(offer: Offer, given: Assumptions, record: float = 0.0) -> float:
    """Cost of bringing a record to where audits are rarest, by buying work from oneself.

    The fees are lost but for the rewards that come back; one segment of one step at a high price will do.
    """
    least = max(FLOOR_RATE, offer.audit_rate)
    needed = max(0.0, HALVING_PRICES * offer.price * (START_RATE / least - 1) - record)
    returned = _returned(given, _own_drawn(MAX_RATE, given))
    return needed * offer.fee_rate * max(0.0, 1 - returned)


def _farmed(offer: Offer, given: Assumptions, record: float) -> Attack:
    return replace(
        _garbage(offer, given, math.inf),
        name="farmed record, then garbage",
        cost=farming(offer, given, 0.0 if math.isinf(record) else record),
        how="buys work from itself until audits are rarest, then commits garbage",
    )


# ------------------------------------------------------------------ attacks for pay without work


def _copied(offer: Offer, given: Assumptions, record: float) -> Attack:
    return Attack(
        name="copied or guessed attestation",
        who="auditor",
        aim=Aim.PAY,
        gain=offer.pot * share_of_pot(offer.rate(record)),
        loss=offer.penalty,
        cost=GAS["attest"] * given.gas_price,
        how="attests without the trace root; another's attestation names the other",
    )


def _silent(offer: Offer, given: Assumptions, record: float) -> Attack:
    return Attack(
        name="silence",
        who="auditor",
        aim=Aim.PAY,
        loss=offer.penalty,
        how="is drawn and does nothing; forgoes its part of the pot too",
    )


def _wash(offer: Offer, given: Assumptions, record: float) -> Attack:
    own = any_drawn(offer.rate(record) * given.collusion)
    return Attack(
        name="wash trade for rewards",
        who="buyer and solver",
        aim=Aim.PAY,
        gain=(_returned(given, own) - 1) * offer.fee,
        caught=0.0,
        cost=SEGMENT_GAS * given.gas_price,
        how="buys work from itself; the fee is burned for real, rewards come back",
    )


def _own_drawn(rate: float, given: Assumptions) -> float:
    """Chance that the attacker's weight is drawn, all of it in one account: likelier than split."""
    return min(1.0, rate * given.collusion)


def _returned(given: Assumptions, own: float) -> float:
    """What the tokens of a unit of fee bring back to a buyer who is the solver, and with chance ``own`` the only
    auditor who attests."""
    return given.reward * (SOLVER_REWARD + BUYER_REWARD + AUDITOR_REWARD * own)


def _penalties(offer: Offer, given: Assumptions, record: float) -> Attack:
    rate = max(offer.rate(record), MAX_RATE)
    fined = rate * (1 - given.collusion)
    own = _own_drawn(rate, given)
    return Attack(
        name="work that nobody can audit",
        who="buyer, solver, auditor",
        aim=Aim.PAY,
        gain=(fined * FINE + _returned(given, own) - 1) * offer.fee,
        caught=0.0,
        cost=(SEGMENT_GAS + own * GAS["attest"] + fined * GAS["punish"]) * given.gas_price,
        how="withholds data from the auditors it asks for, reports their silence, and attests itself",
    )


def choosing(given: Assumptions) -> float:
    """What :func:`attacks`' work that nobody can audit gains, in fees without gas, for each try by who stakes nothing,
    sees who is drawn, and settles only if that pays. Never negative: what is not settled costs no fee."""
    own, fined = _own_drawn(MAX_RATE, given), MAX_RATE * (1 - given.collusion)

    def settled(back: float) -> float:
        chance, total = math.exp(-fined), 0.0  # that so many are fined: Poisson's
        for count in range(64):
            total += chance * max(0.0, count * FINE + back - 1)
            chance *= fined / (count + 1)
        return total

    return own * settled(_returned(given, 1.0)) + (1 - own) * settled(_returned(given, 0.0))


# ------------------------------------------------------------------ attacks for delay


def _self_dispute(offer: Offer, given: Assumptions, record: float) -> Attack:
    return Attack(
        name="dispute against oneself",
        who="solver",
        aim=Aim.DELAY,
        loss=offer.stake * BURNED,
        cost=(GAS["challenge"] + GAS["lose"]) * given.gas_price,
        how="keeps no auditor from attesting and no other from challenging; the loser's half is burned",
    )


def _hidden(offer: Offer, given: Assumptions, record: float) -> Attack:
    return Attack(
        name="trace root not revealed",
        who="solver",
        aim=Aim.DELAY,
        loss=offer.stake * BURNED,
        cost=(GAS["claim"] + GAS["commit"]) * given.gas_price,
        how="is forfeited; half of the stake goes to the buyer, who may be an accomplice",
    )


def _abandoned(offer: Offer, given: Assumptions, record: float) -> Attack:
    return Attack(
        name="claim and abandon",
        who="solver",
        aim=Aim.DELAY,
        cost=_interest(offer.stake, offer.lease, given) + (GAS["claim"] + GAS["expire"]) * given.gas_price,
        how="lets the lease run out; the next lease needs another account, to which the stake can move",
    )


def _slander(offer: Offer, given: Assumptions, record: float) -> Attack:
    return Attack(
        name="false challenge",
        who="challenger",
        aim=Aim.DELAY,
        loss=offer.stake,
        cost=GAS["challenge"] * given.gas_price,
        how="loses the bond, half of it to the solver",
    )


def _interest(amount: float, seconds: float, given: Assumptions) -> float:
    return amount * given.interest * seconds / YEAR


_ATTACKS: tuple[Callable[[Offer, Assumptions, float], Attack], ...] = (
    _garbage_alone, _garbage, _garbage_chain, _farmed,
    _copied, _silent, _wash, _penalties,
    _self_dispute, _hidden, _abandoned, _slander,
)  # fmt: skip


def attacks(offer: Offer, given: Assumptions, record: float = math.inf) -> list[Attack]:
    """Every attack, by a solver whose record is worth ``record``: without limit, where audits are rarest."""
    return [attack(offer, given, record) for attack in _ATTACKS]


def cheapest(tried: Iterable[Attack], aim: Aim) -> Attack:
    """The attack with this aim that loses least, or gains most."""
    return max((attack for attack in tried if attack.aim is aim), key=lambda attack: attack.expected)


# ------------------------------------------------------------------ what to ask for


def required_stake(offer: Offer, given: Assumptions, record: float = math.inf) -> float:
    """Stake above which garbage loses: burned part · stake > proceeds · unseen / seen. Infinite if nobody
    looks."""
    rate = offer.rate(record)
    caught = seen(offer, given, rate)
    if caught <= 0:
        return math.inf
    lost = proceeds(offer, given, rate) * (1 - caught) / caught
    return lost / at_stake(replace(offer, stake=1.0), given)


def proposed_stake(offer: Offer, given: Assumptions | None = None) -> float:
    """A fifth more than what makes garbage lose though half of the auditors collude, rounded up to five prices;
    the default where no stake is enough, because replays do not pay."""
    needed = 1.2 * required_stake(offer, given or Assumptions())
    if offer.price == 0:
        return 0.0 if math.isinf(needed) else needed
    prices = STAKE_PRICES if math.isinf(needed) else 5 * math.ceil(needed / offer.price / 5)
    return prices * offer.price


def required_rate(offer: Offer, given: Assumptions) -> float:
    """Least audit rate at which garbage loses, by a solver with the best record. Infinite if no rate does it."""
    return _least(
        lambda rate: required_stake(replace(offer, audit_rate=rate), given) < offer.stake,
        FLOOR_RATE,
        MAX_RATE,
    )


def required_share(offer: Offer, given: Assumptions) -> float:
    """Least audit share, in prices, at which garbage loses. Infinite if none does it."""
    return _least(
        lambda share: required_stake(replace(offer, audit_share=share), given) < offer.stake, 0.0, MAX_SHARE
    )


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Least number of a range for which a condition holds; infinite if it holds nowhere.

    It may end to hold, or begin again, further on: more auditors share the same pot. What holds for less than a
    64th of the range only is overlooked.
    """
    if holds(low):
        return low
    steps = [low + (high - low) * i / 64 for i in range(65)]
    for before, after in pairwise(steps):
        if holds(after):
            for _ in range(50):
                middle = (before + after) / 2
                before, after = (before, middle) if holds(middle) else (middle, after)
            return after
    return math.inf


# ------------------------------------------------------------------ griefing


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """What holding up a segment costs: ``cost`` to the griefer, of which ``received`` reaches ``victim``."""

    name: str
    seconds: float
    cost: float
    received: float
    victim: str

    @property
    def cost_per_hour(self) -> float:
        """Cost of an hour of delay."""
        return self.cost * HOUR / self.seconds

    @property
    def received_per_hour(self) -> float:
        """What the victim gets for an hour."""
        return self.received * HOUR / self.seconds


def delays(offer: Offer, given: Assumptions) -> list[Delay]:
    """Ways to hold up a segment, each as long as it can last once."""
    bounty = offer.stake * (1 - BURNED)
    tried = {attack.name: attack for attack in attacks(offer, given) if attack.aim is Aim.DELAY}

    def delay(name: str, seconds: float, received: float, victim: str, more: float = 0.0) -> Delay:
        cost = -tried[name].expected + more
        return Delay(name=name, seconds=seconds, cost=cost, received=received, victim=victim)

    return [
        delay("claim and abandon", offer.lease, 0.0, "nobody"),
        # the buyer is no accomplice here, so the whole stake is gone
        delay(
            "trace root not revealed", offer.lease + offer.window + offer.clock, bounty, "buyer", more=bounty
        ),
        # an honest solver answers at once, so that the challenger's clock alone runs
        delay("false challenge", offer.clock, bounty, "solver"),
        delay("dispute against oneself", offer.lease + offer.window + 2 * offer.clock, 0.0, "nobody"),
    ]
