"""``crowdtrain job risk``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from crowdtrain._cli_wallet import parse_address, parse_amount
from crowdtrain.config import Config
from crowdtrain.economics import AUDIT_RATE, AUDIT_SHARE, Assumptions, Offer, proposed_stake
from crowdtrain.launch import Deployed, Rpc, StoreAt

if TYPE_CHECKING:
    from crowdtrain.chain import Chain
    from crowdtrain.stores import Store

__all__ = ["risk"]


def risk(
    number: Annotated[int | None, typer.Argument(min=1, help="Number of a job on the chain.")] = None,
    price: Annotated[
        str | None, typer.Option(help="Token units for each segment, of a job yet to post.")
    ] = None,
    stake: Annotated[
        str | None, typer.Option(help="Token units a solver locks; what a quote proposes by default.")
    ] = None,
    audits: Annotated[float, typer.Option(min=0, max=4, help="Auditors asked for.")] = AUDIT_RATE,
    audit_share: Annotated[
        float, typer.Option(min=0, max=4, help="Prices that auditors share.")
    ] = AUDIT_SHARE,
    segments: Annotated[int, typer.Option(min=1, help="Segments, of a job yet to post.")] = 1,
    solver: Annotated[
        str | None,
        typer.Option(help="Account whose record counts, of a job on the chain; the best by default."),
    ] = None,
    collusion: Annotated[float, typer.Option(min=0, max=1, help="Part of auditors that collude.")] = 0.5,
    watchers: Annotated[float, typer.Option(min=0, max=1, help="Chance that others replay a segment.")] = 0.0,
    cost: Annotated[float, typer.Option(min=0, help="Cost of computing a segment, in prices.")] = 0.6,
    reward: Annotated[float, typer.Option(min=0, help="Worth of the tokens that a unit of fee mints.")] = 1.0,
    bonus: Annotated[
        float,
        typer.Option(
            min=0,
            help="Worth of what else a segment brings its solver, such as shares of a campaign's model: in prices; in "
            "token units if the price is 0.",
        ),
    ] = 0.0,
    gas_price: Annotated[str, typer.Option(help="Token units for each gas.")] = "0",
    rpc: Rpc = None,
    store: StoreAt = None,
    deployment: Deployed = None,
) -> None:
    """Prints the cheapest attacks on a job, what they lose, and what to raise if one does not. Ends with exit
    code 1 in that case."""
    from rich.console import Console

    from crowdtrain.risk import Risk

    given = Assumptions(
        collusion=collusion, watchers=watchers, cost=cost, reward=reward, gas_price=parse_amount(gas_price)
    )
    record, enrolled = math.inf, None
    if price is not None and number is None:
        offer = _offered(parse_amount(price), stake, audits, audit_share, segments)
    elif number is not None and price is None:
        config = Config.read(rpc=rpc, store=store, deployment=deployment)
        chain = config.connect(read_only=True)
        offer, enrolled = _posted(chain, config.open_store(), number), chain.total_weight()
        if solver is not None:
            record = float(chain.record(parse_address(solver)).unbroken)
    else:
        raise typer.BadParameter("name a job on the chain, or the --price of one yet to post")
    found = Risk(offer, replace(given, bonus=bonus * (offer.price or 1)), record, enrolled)
    Console().print(found)
    if not found.is_safe:
        raise typer.Exit(1)


def _offered(price: int, stake: str | None, audits: float, share: float, segments: int) -> Offer:
    offer = Offer(price=price, stake=0, audit_rate=audits, audit_share=share, segments=segments)
    return replace(offer, stake=proposed_stake(offer) if stake is None else parse_amount(stake))


def _posted(chain: Chain, store: Store, number: int) -> Offer:
    """The dearest segment of a job: where a stake is worth least."""
    from crowdtrain.chain import JobId
    from crowdtrain.jobs import load_job

    files = load_job(chain, store, JobId(number))
    price = max(spec.price for spec in files.plan.segments)
    return Offer.of(files.job.terms, chain.rules(), price)
