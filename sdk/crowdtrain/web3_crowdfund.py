"""The port of campaigns over an EVM node: :class:`Web3Campaigns`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from crowdtrain import _records as records
from crowdtrain import cid as cids
from crowdtrain._errors import BadAnswer, Refused
from crowdtrain.chain import Address, JobId, Receipt, SegmentSpec
from crowdtrain.crowdfund import Campaign, CampaignTerms, Holding, Stage
from crowdtrain.web3_chain import Web3Chain

__all__ = ["Web3Campaigns"]


class Web3Campaigns:
    """A :class:`crowdtrain.crowdfund.Campaigns` of the chain and account of ``chain``."""

    def __init__(self, chain: Web3Chain) -> None:
        self._chain = chain
        self._known: set[Address] = set()

    @property
    def chain(self) -> Web3Chain:
        """The chain and account."""
        return self._chain

    # ---------------------------------------------------------------- reads

    def count(self) -> int:
        return self._chain.number("Crowdfund", "count")

    def address_of(self, index: int) -> Address:
        """See :class:`crowdtrain.crowdfund.Campaigns`."""
        (address,) = self._chain.read("Crowdfund", "campaigns", index)
        return Address(address)

    def campaign(self, address: Address) -> Campaign:
        """See :class:`crowdtrain.crowdfund.Campaigns`: everything as of one block."""
        at = self._check(address)
        block = self._chain.node.block().number

        def read(function: str) -> Any:
            (value,) = self._chain.read("Campaign", function, at=at, block=block)
            return value

        job = read("job")
        return Campaign(
            address=at,
            terms=_terms_of(read("terms")),
            manifest=records.cid_text(read("manifest")),
            stage=records.member(Stage, read("stage")),
            raised=read("raised"),
            job=JobId(job) if job else None,
            credited_steps=read("creditedSteps"),
            returned=read("returned"),
            shares=read("totalSupply"),
        )

    def holding(self, address: Address, account: Address) -> Holding:
        """See :class:`crowdtrain.crowdfund.Campaigns`: everything as of one block."""
        at = self._check(address)
        block = self._chain.node.block().number

        def number(function: str) -> int:
            return self._chain.number("Campaign", function, account, at=at, block=block)

        (backer,) = self._chain.read("Campaign", "backers", account, at=at, block=block)
        is_launched = self._chain.number("Campaign", "job", at=at, block=block) > 0
        return Holding(
            pledged=backer["pledged"],
            shares=number("balanceOf"),
            has_unclaimed_shares=is_launched and backer["pledged"] > 0 and not backer["sharesClaimed"],
            returns=number("returnOf"),
            income=number("incomeOf"),
            rewards=number("rewardsOf"),
        )

    def is_credited(self, address: Address, segment: int) -> bool:
        (credited,) = self._chain.read("Campaign", "credited", segment, at=self._check(address))
        return bool(credited)

    def _check(self, address: Address) -> Address:
        """Refuses what is no campaign: any contract could pretend to be one."""
        if address not in self._known:
            if not self._chain.is_campaign(address):
                raise Refused("campaign", "UnknownCampaign", {"campaign": address})
            self._know(address)
        return address

    def _know(self, address: Address) -> None:
        self._known.add(address)
        self._chain.follow(address, "Campaign")

    # ---------------------------------------------------------------- moves

    def create(self, terms: CampaignTerms, manifest: str) -> tuple[Address, Receipt]:
        receipt = self._chain.send("Crowdfund", "create", _fields(terms), cids.to_bytes(manifest))
        address = Address(cast(str, _field(receipt, "Created", "campaign")))
        self._know(address)
        return address, receipt

    def pledge(self, address: Address, amount: int) -> tuple[int, Receipt]:
        """See :class:`crowdtrain.crowdfund.Campaigns`."""
        receipt = self._pay(address, "pledge", amount)
        return cast(int, _field(receipt, "Pledged", "amount")), receipt

    def refund(self, address: Address, backer: Address) -> Receipt:
        return self._send(address, "refund", backer)

    def launch(self, address: Address) -> tuple[JobId, Receipt]:
        receipt = self._send(address, "launch")
        return JobId(cast(int, _field(receipt, "Launched", "job"))), receipt

    def claim_shares(self, address: Address, backer: Address) -> Receipt:
        return self._send(address, "claimShares", backer)

    def credit(self, address: Address, segment: int, spec: SegmentSpec) -> Receipt:
        return self._send(address, "credit", segment, records.spec_fields(spec))

    def finish(self, address: Address) -> Receipt:
        return self._send(address, "finish")

    def claim_return(self, address: Address, backer: Address) -> Receipt:
        return self._send(address, "claimReturn", backer)

    def pay_income(self, address: Address, amount: int) -> Receipt:
        """See :class:`crowdtrain.crowdfund.Campaigns`."""
        return self._pay(address, "payIncome", amount)

    def claim_income(self, address: Address) -> Receipt:
        return self._send(address, "claimIncome")

    def collect_rewards(self, address: Address, epoch: int) -> Receipt:
        return self._send(address, "collectRewards", epoch)

    def claim_rewards(self, address: Address) -> Receipt:
        return self._send(address, "claimRewards")

    def _pay(self, address: Address, function: str, amount: int) -> Receipt:
        self._chain.approve(self._check(address), amount)
        return self._send(address, function, amount)

    def _send(self, address: Address, function: str, *arguments: object) -> Receipt:
        return self._chain.send("Campaign", function, *arguments, at=self._check(address))


def _terms_of(fields: Mapping[str, Any]) -> CampaignTerms:
    return CampaignTerms(
        name=fields["name"],
        symbol=fields["symbol"],
        job=records.terms_of(fields["job"]),
        pledge_deadline=fields["pledgeDeadline"],
        steps=fields["steps"],
        backers=fields["backers"],
        solvers=fields["solvers"],
        auditors=fields["auditors"],
    )


def _fields(terms: CampaignTerms) -> tuple[object, ...]:
    job = records.terms_fields(terms.job)
    parts = (terms.backers, terms.solvers, terms.auditors)
    return (terms.name, terms.symbol, job, terms.pledge_deadline, terms.steps, *parts)


def _field(receipt: Receipt, event: str, field: str) -> object:
    for seen in receipt.events:
        if seen.name == event and seen.contract in ("Crowdfund", "Campaign"):
            return seen.fields[field]
    raise BadAnswer(f"the receipt of {receipt.transaction} has no event {event}")
