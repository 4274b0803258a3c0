"""What each transaction with the contracts cost in gas, read back from the chain's blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eth_utils.abi import function_abi_to_4byte_selector

from crowdtrain import _abi
from crowdtrain._errors import BadAnswer
from crowdtrain._rpc import Node
from crowdtrain.chain import GameId
from crowdtrain.deployment import Deployment

__all__ = ["Spent", "Summary", "gas_spent", "summarize"]


@dataclass(frozen=True, slots=True)
class Spent:
    """A transaction: its sender, what it called (``Market.claim``), its gas, the dispute it belongs to."""

    block: int
    sender: str
    call: str
    gas: int
    succeeded: bool
    game: GameId | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """All transactions of one kind."""

    call: str
    count: int
    least: int
    mean: int
    most: int


def gas_spent(node: Node, deployment: Deployment, first: int, last: int) -> list[Spent]:
    """Every transaction with a contract of ``deployment`` in blocks ``first … last``, in order.

    Raises ChainUnavailable or BadAnswer as any read does.
    """
    calls = _calls(deployment)
    challenged = _abi.contract("Dispute").topics["Challenged"]
    found = []
    for number in range(first, last + 1):
        block = node.request("eth_getBlockByNumber", hex(number), True)
        if not isinstance(block, dict) or not isinstance(block.get("transactions"), list):
            raise BadAnswer(f"block {number} does not list its transactions")
        for sent in block["transactions"]:
            data = bytes.fromhex(str(sent["input"])[2:])
            call = calls.get((str(sent["to"]).lower(), data[:4]))
            receipt = node.receipt(str(sent["hash"]))
            if call is None or receipt is None:
                continue
            begun = [log.topics[1] for log in receipt.logs if log.topics[:1] == (challenged,)]
            of = begun[0] if begun else data[4:36] if call.startswith("Dispute.") else None
            game = None if of is None else GameId(int.from_bytes(of, "big"))
            found.append(Spent(number, str(sent["from"]), call, receipt.gas, receipt.succeeded, game))
    return found


def _calls(deployment: Deployment) -> dict[tuple[str, bytes], str]:
    return {
        (address.lower(), _selector(entry)): f"{name}.{entry['name']}"
        for name, address in deployment.contracts.items()
        for entry in _abi.artifact(name)["abi"]
        if entry["type"] == "function"
    }


def _selector(entry: Any) -> bytes:
    return bytes(function_abi_to_4byte_selector(entry))


def summarize(spent: Iterable[Spent]) -> Sequence[Summary]:
    """Count, least, mean and most gas of each kind of transaction that succeeded, in alphabetical order."""
    kinds: dict[str, list[int]] = {}
    for one in spent:
        if one.succeeded:
            kinds.setdefault(one.call, []).append(one.gas)
    return [
        Summary(call, len(gas), min(gas), sum(gas) // len(gas), max(gas))
        for call, gas in sorted(kinds.items())
    ]
