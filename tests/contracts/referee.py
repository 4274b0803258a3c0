"""The deployed Referee, asked many things at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

from crowdtrain._eth import Web3  # not from web3: see there
from web3.contract import Contract
from web3.types import TxParams

__all__ = ["GAS", "Answer", "Call", "Referee"]

Call = tuple[str, tuple[Any, ...]]
"""a function of the Referee and its arguments"""

GAS: TxParams = {"gas": 10**12}


class Answer(NamedTuple):
    """What a call gave."""

    result: tuple[Any, ...] | str
    """decoded, or the name of the error"""
    gas: int
    """of a transaction that makes the call"""


class Referee:
    """The Referee at an address of a chain. ``calls`` is the contract ``Calls`` of the harness."""

    def __init__(self, referee: Contract, calls: Contract) -> None:
        self.contract = referee
        self._calls = calls

    def __call__(self, calls: list[Call]) -> list[tuple[Any, ...] | str]:
        """For each call the decoded result, or the name of the error."""
        return [answer.result for answer in self.answers(calls)]

    def answers(self, calls: list[Call]) -> list[Answer]:
        """As calling, with the gas that each call took."""
        data = [self.contract.encode_abi(name, args=list(args)) for name, args in calls]
        succeeded, results, gas = self._calls.functions.run(self.contract.address, data).call(GAS)
        return [
            Answer(self._decode(name, ok, result), _gas(bytes.fromhex(call[2:]), taken))
            for (name, _), call, ok, result, taken in zip(calls, data, succeeded, results, gas, strict=True)
        ]

    def _decode(self, name: str, succeeded: bool, result: bytes) -> tuple[Any, ...] | str:
        codec = self.contract.w3.codec
        if succeeded:
            outputs = self.contract.get_function_by_name(name).abi["outputs"]
            return tuple(codec.decode([_type(output) for output in outputs], result))
        names = {
            bytes(Web3.keccak(text=f"{e['name']}({','.join(_type(i) for i in e['inputs'])})")[:4]): e["name"]
            for e in self.contract.abi
            if e["type"] == "error"
        }
        return names[result[:4]]


def _gas(calldata: bytes, taken: int) -> int:
    """Gas of a transaction with this calldata, whose call takes ``taken`` (EIP-7623)."""
    zeros = calldata.count(0)
    tokens = zeros + 4 * (len(calldata) - zeros)
    return 21_000 + max(4 * tokens + taken, 10 * tokens)


def _type(parameter: Any) -> str:
    if parameter["type"].startswith("tuple"):
        inner = ",".join(_type(component) for component in parameter["components"])
        return f"({inner}){parameter['type'][5:]}"
    return str(parameter["type"])
