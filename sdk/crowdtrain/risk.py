"""How safe a job is against cheats, for people: the cheapest attacks, and what to raise (:mod:`.economics`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table

from crowdtrain import economics
from crowdtrain.economics import Aim, Assumptions, Attack, Delay, Offer

__all__ = ["Risk"]


@dataclass(frozen=True, slots=True)
class Risk:
    """A segment of a job, seen with the attacker's eyes."""

    offer: Offer
    given: Assumptions
    record: float = math.inf
    """worth of the solver's record; without limit by default, where audits are rarest"""
    enrolled: int | None = None
    """weight of all auditors, where it is known"""

    @property
    def attacks(self) -> Sequence[Attack]:
        """Every attack, in the order of the documentation."""
        return economics.attacks(self.offer, self.given, self.record)

    @property
    def delays(self) -> Sequence[Delay]:
        """Every way to hold up the segment."""
        return economics.delays(self.offer, self.given)

    @property
    def cheapest(self) -> Attack:
        """The best way to be paid for a wrong result."""
        return economics.cheapest(self.attacks, Aim.RESULT)

    @property
    def is_safe(self) -> bool:
        """Whether garbage loses, and somebody is enrolled who could see it."""
        return self.cheapest.loses and self.enrolled != 0

    @property
    def advice(self) -> Sequence[str]:
        """What to raise or do, each enough by itself; nothing if garbage loses."""
        if self.cheapest.loses:
            return ()
        offer, given = self.offer, self.given
        found = (
            ("the stake", economics.required_stake(offer, given, self.record), amount),
            ("the audit rate", economics.required_rate(offer, given), rate_text),
            ("the audit share", economics.required_share(offer, given), lambda share: f"{share:.4f} prices"),
            ("the part of segments that you replay yourself", economics.watching(offer, given), percent),
        )
        told = [f"raise {what} above {text(value)}" for what, value, text in found if value < math.inf]
        if not offer.price:
            told.append("ask for a stake, and replay segments yourself")
        elif len(told) < 2:
            # neither stake nor rate nor share is enough alone
            told.append(
                f"ask for what a quote proposes: {economics.AUDIT_RATE} auditors at least, who share "
                f"{economics.AUDIT_SHARE} prices, and a stake of {economics.STAKE_PRICES} prices"
            )
        return tuple(told)

    @property
    def summary(self) -> str:
        """One line for a quote."""
        if self.enrolled == 0:
            return "nobody is enrolled as auditor: only who watches unasked would see a cheat"
        attack = self.cheapest
        if attack.loses:
            return f"{attack.name} by {attack.who}: loses {amount(-attack.expected)} on average"
        earns = f"GAINS {amount(attack.expected)}" if attack.expected else "risks nothing"
        return f"{attack.name} by {attack.who} {earns}: {'; or '.join(self.advice)}"

    def __rich__(self) -> Group:
        return Group(self._facts(), self._attacks(), self._delays())

    def _facts(self) -> Table:
        offer, given = self.offer, self.given
        rate = offer.rate(self.record)
        active = min(given.diligence, economics.diligence(offer, given, rate))
        table = Table("", "risk", title="What a cheat is up against", show_header=False)
        rows = [
            (
                "auditors expected",
                f"{rate:.3f} at this record, {offer.rate(0):.3f} of an account without one",
            ),
            ("garbage is seen", f"{percent(economics.seen(offer, given, rate))} of the time"),
            ("stake", f"{amount(offer.stake)}; above {self._needed_stake()} garbage loses"),
            (
                "assumed",
                f"{percent(given.collusion)} of auditors collude, {percent(active)} of the others replay",
            ),
            ("cost of auditing", f"{amount(economics.buyer_cost(offer, rate))} for each segment, on average"),
            ("cheapest attack", self.summary),
        ]
        if self.enrolled:
            rows.insert(4, ("auditors enrolled", f"{amount(self.enrolled)}; as much again makes a half"))
        for row in rows:
            table.add_row(*row)
        return table

    def _needed_stake(self) -> str:
        return amount(economics.required_stake(self.offer, self.given, self.record))

    def _attacks(self) -> Table:
        table = Table(
            "attack", "by", "gain", "seen", "loss if seen", "on average", title="Attacks, each once"
        )
        for attack in self.attacks:
            money = (
                amount(attack.gain),
                percent(attack.caught),
                amount(attack.loss),
                amount(attack.expected),
            )
            table.add_row(attack.name, attack.who, *money)
        return table

    def _delays(self) -> Table:
        table = Table("delay", "at most", "costs an hour", "an hour gives", title="Holding up the segment")
        for delay in self.delays:
            gets = (
                f"{delay.victim} {amount(delay.received_per_hour)}" if delay.received else "nobody anything"
            )
            table.add_row(delay.name, f"{delay.seconds / 3600:.1f} hours", amount(delay.cost_per_hour), gets)
        return table


def amount(value: float) -> str:
    """Token units, three digits, exponents as on the command line: ``1.5e18``."""
    if math.isinf(value):
        return "no amount"
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def rate_text(value: float) -> str:
    """Auditors expected."""
    return f"{value:.4f}"


def percent(value: float) -> str:
    """A part of 1."""
    return f"{100 * value:.1f} %"
