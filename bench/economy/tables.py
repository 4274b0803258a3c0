"""The numbers of docs/ECONOMICS.md, from :mod:`crowdtrain.economics` and from a run of the simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crowdtrain import economics
from crowdtrain.economics import AUDIT_RATE, AUDIT_SHARE, STAKE_PRICES, Assumptions, Offer

__all__ = ["filled", "simulation", "tables"]

OFFER = Offer(price=1, stake=STAKE_PRICES, segments=100)
GIVEN = Assumptions()
RATES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
COLLUSION = (0.0, 1 / 3, 0.5, 2 / 3)


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is a name."""
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float, digits: int = 3) -> str:
    """So many digits, without exponent."""
    if math.isinf(value):
        return "none is enough"
    size = 0 if value == 0 else math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits - 1 - size)}f}" if value else "0"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


# ------------------------------------------------------------------ from the formulas


def _terms() -> str:
    rows = (
        ("audit rate asked (`auditRate`)", _number(AUDIT_RATE)),
        ("audit share (`auditShare`)", f"{_number(AUDIT_SHARE)} price"),
        ("stake", f"{STAKE_PRICES} prices"),
        ("fee", _percent(OFFER.fee_rate)),
        ("penalty for silence", f"{_number(OFFER.penalty)} prices"),
    )
    return _markdown(("what a quote proposes", ""), rows)


def _stake() -> str:
    def row(rate: float) -> list[str]:
        needed = (
            economics.required_stake(replace(OFFER, audit_rate=rate), replace(GIVEN, collusion=part))
            for part in COLLUSION
        )
        return [_number(rate), *map(_number, needed)]

    return _markdown(
        ("audit rate", *(f"collusion {_percent(part)}" for part in COLLUSION)), [row(rate) for rate in RATES]
    )


def _attacks() -> str:
    rows = [
        (
            attack.name, attack.who, _number(attack.gain), _percent(attack.caught), _number(attack.loss),
            _number(attack.cost), _number(attack.expected),
        )
        for attack in economics.attacks(OFFER, GIVEN)
    ]  # fmt: skip
    return _markdown(("attack", "by", "gain", "fails", "loss if it fails", "cost", "on average"), rows)


def _auditing() -> str:
    def row(rate: float) -> list[str]:
        values = (
            economics.buyer_cost(OFFER, rate),
            economics.share_of_pot(rate),
            economics.auditor_profit(OFFER, GIVEN, rate),
        )
        parts = (
            economics.diligence(OFFER, GIVEN, rate),
            economics.diligence(replace(OFFER, audit_share=0.65), GIVEN, rate),
        )
        return [_number(rate), *map(_number, values), *map(_percent, parts)]

    headings = (
        "auditors expected", "buyer pays", "part of the pot", "auditor's profit", "replay, share 1",
        "replay, share 0.65",
    )  # fmt: skip
    return _markdown(headings, [row(rate) for rate in RATES])


def _record() -> str:
    plain = replace(OFFER, audit_rate=0.0)
    rows = [
        (_number(value), _number(plain.rate(value)), _number(OFFER.rate(value)))
        for value in (0, 2, 8, 24, 72, 152, 1000)
    ]
    return _markdown(("record, prices", "auditors expected", f"if {AUDIT_RATE} are asked for"), rows)


def _farming() -> str:
    def row(reward: float) -> list[str]:
        given = replace(GIVEN, reward=reward)
        costs = (economics.farming(replace(OFFER, audit_rate=rate), given) for rate in (0.05, 0.1, 0.25))
        return [_number(reward), *map(_number, costs)]

    headings = ("worth of a fee's tokens", "to rate 0.05", "to rate 0.1", "to rate 0.25")
    return _markdown(headings, [row(reward) for reward in (0.0, 0.5, 1.0)])


def _unauditable() -> str:
    def row(reward: float) -> list[str]:
        assumed = [replace(GIVEN, reward=reward, collusion=part) for part in (0.0, 0.25, 0.5)]
        always = (
            attack.expected / OFFER.fee
            for given in assumed
            for attack in economics.attacks(OFFER, given)
            if attack.name == "work that nobody can audit"
        )
        chosen = (economics.choosing(given) for given in assumed)
        return [_number(reward), *(_number(round(value, 9)) for value in (*always, *chosen))]

    parts = [f"α = {part}" for part in ("0", "¼", "½")]
    headings = ("e", *(f"always, {part}" for part in parts), *(f"if it pays, {part}" for part in parts))
    return _markdown(headings, [row(reward) for reward in (0.0, 0.5, 0.8, 0.85, 0.9, 1.0)])


def _collusion() -> str:
    def row(part: float) -> list[str]:
        given = replace(GIVEN, collusion=part)
        garbage = economics.cheapest(economics.attacks(OFFER, given), economics.Aim.RESULT)
        return [
            _percent(part), _percent(economics.seen(OFFER, given, OFFER.rate())), _number(garbage.gain),
            _number(garbage.loss), _number(garbage.expected),
            _number(economics.unreplayed(OFFER, given, OFFER.rate())),
        ]  # fmt: skip

    headings = (
        "collusion",
        "garbage is seen",
        "gain",
        "at risk",
        "on average",
        "replays spared if the work is right",
    )
    return _markdown(headings, [row(part) for part in (0.0, 0.25, 0.5, 0.55, 0.6, 0.75)])


def _limits() -> str:
    pairs = ((0.05, 100), (0.1, STAKE_PRICES), (0.25, 25), (0.5, 15))

    def row(rate: float, stake: float) -> list[str]:
        offer = replace(OFFER, audit_rate=rate, stake=stake)
        return [
            f"{_number(rate)}, {stake} prices",
            _percent(economics.needed_diligence(offer, GIVEN, offer.rate())),
            _percent(economics.watching(offer, GIVEN)),
            _percent(economics.draw_limit(offer, GIVEN)),
            _percent(economics.suspicion(offer, GIVEN)),
        ]

    headings = (
        "audit rate, stake", "honest auditors who must replay", "or segments that the buyer must replay",
        "draw blocks that the attacker may make", "wrong segments that pay for watching all",
    )  # fmt: skip
    return _markdown(headings, [row(*pair) for pair in pairs])


def _delays() -> str:
    rows = [
        (
            delay.name, _number(delay.seconds / 3600, 2), _number(delay.cost), _number(delay.cost_per_hour),
            f"{delay.victim}: {_number(delay.received_per_hour)}" if delay.received else "nobody: 0",
        )
        for delay in economics.delays(OFFER, GIVEN)
    ]  # fmt: skip
    return _markdown(("delay", "hours, at most", "cost", "cost of an hour", "an hour's compensation"), rows)


_TABLES: Mapping[str, Callable[[], str]] = {
    "terms": _terms, "stake": _stake, "attacks": _attacks, "auditing": _auditing, "record": _record,
    "farming": _farming, "unauditable": _unauditable, "collusion": _collusion, "limits": _limits, "delays": _delays,
}  # fmt: skip

# ------------------------------------------------------------------ from the simulation


def simulation(result: Mapping[str, Any]) -> str:
    """What a run says, and who earned what."""
    rows = [
        (
            f"{of['kind']} {of['role']}", str(of["segments"]), str(of["draws"]), str(of["caught"]),
            f"{of['expected_caught']:.1f} ± {of['deviation']:.1f}" if of["deviation"] else "",
            *(f"{of[name]:.{1 if abs(of[name]) >= 10 else 2}f}" for name in ("bounties", "profit", "honest")),
        )
        for of in result["outcomes"]
    ]  # fmt: skip
    headings = (
        "who", "segments", "draws", "caught", "lies caught, expected", "bounties", "profit",
        "honest with as much",
    )  # fmt: skip
    facts = (
        f"{result['segments']} segments in {result['rounds']} rounds and {result['blocks']} blocks: "
        f"{result['settled']} "
        f"settled, {result['overturned']} overturned, {result['wrong']} settled though wrong. Burned: "
        f"{result['fees']:.1f} prices of fees, {result['slashed']:.1f} of stakes, bonds and penalties. Left in the "
        f"contracts when everybody had gone: {result['left']} units; unexplained: {result['unexplained']}."
    )
    return f"{facts}\n\n{_markdown(headings, rows)}"


# ------------------------------------------------------------------ into the document


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """All tables of the document by name, with those of a run of the simulation."""
    return {name: make() for name, make in _TABLES.items()} | {"simulation": simulation(result)}


def filled(document: str, made: Mapping[str, str]) -> str:
    """The document with these tables between the lines ``<!-- table: name -->`` and ``<!-- end of table -->``.

    Raises ValueError unless each has exactly one place, and each place a table.
    """
    parts = document.split("<!-- table: ")
    names = [part.partition(" -->")[0] for part in parts[1:]]
    if sorted(names) != sorted(made):
        raise ValueError(f"the document has places for {sorted(names)}, tables are {sorted(made)}")
    done = [parts[0]]
    for name, part in zip(names, parts[1:], strict=True):
        _, end, rest = part.partition(END)
        if not end:
            raise ValueError(f"the table {name} has no line {END!r}")
        done.append(f"<!-- table: {name} -->\n\n{made[name]}\n\n{end}{rest}")
    return "".join(done)


END = "<!-- end of table -->"
