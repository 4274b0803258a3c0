"""Calls, results, events and errors of the contracts, by the ABIs that their build leaves in
:mod:`.artifacts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.abi import (
    collapse_if_tuple,
    event_abi_to_log_topic,
    function_abi_to_4byte_selector,
)
from eth_utils.address import to_checksum_address

from crowdtrain._errors import BadAnswer, ConfigError, Refused

__all__ = ["CONTRACTS", "Contract", "Event", "artifact", "contract", "decode_error", "encode_arguments"]

CONTRACTS = (
    "Money",
    "Stake",
    "Market",
    "Dispute",
    "Referee",
    "Audit",
    "Token",
    "Emission",
    "Crowdfund",
    "Campaign",
)
Entry = Mapping[str, Any]
"""an entry of an ABI, or one of its inputs or outputs"""


@cache
def artifact(name: str) -> Entry:
    """What the compiler made of a contract: ``abi`` and ``bytecode``. Raises ConfigError if it is not
    there.
    """
    path = resources.files("crowdtrain.artifacts") / f"{name}.json"
    try:
        loaded: Entry = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing; run contracts/tools/build.py") from error
    return loaded


@dataclass(frozen=True)
class Event:
    """An event of a contract."""

    name: str
    topic: bytes
    indexed: tuple[Entry, ...]
    plain: tuple[Entry, ...]

    def decode(self, topics: Sequence[bytes], data: bytes) -> dict[str, object]:
        """Fields by their Solidity names. Raises BadAnswer if topics or data are not those of this event."""
        if len(topics) != 1 + len(self.indexed):
            raise BadAnswer(f"event {self.name} has {len(topics)} topics, not {1 + len(self.indexed)}")
        fields = {
            field["name"]: _decode([field], topic, f"event {self.name}")[0]
            for field, topic in zip(self.indexed, topics[1:], strict=True)
        }
        values = _decode(self.plain, data, f"event {self.name}")
        return fields | {field["name"]: value for field, value in zip(self.plain, values, strict=True)}


class Contract:
    """The ABI of one contract."""

    def __init__(self, name: str) -> None:
        self.name = name
        abi: list[Entry] = artifact(name)["abi"]
        self._functions = {entry["name"]: entry for entry in abi if entry["type"] == "function"}
        self.events = {
            topic: Event(
                entry["name"],
                topic,
                tuple(field for field in entry["inputs"] if field["indexed"]),
                tuple(field for field in entry["inputs"] if not field["indexed"]),
            )
            for entry in abi
            if entry["type"] == "event"
            for topic in [event_abi_to_log_topic(entry)]  # type: ignore[arg-type]
        }
        self.topics = {event.name: event.topic for event in self.events.values()}
        self.errors = {
            function_abi_to_4byte_selector(entry): entry  # type: ignore[arg-type]
            for entry in abi
            if entry["type"] == "error"
        }

    def encode(self, function: str, arguments: Sequence[object]) -> bytes:
        """Calldata of a call. Raises Refused if the arguments are not of the types that it takes."""
        entry: Any = self._functions[function]
        try:
            return function_abi_to_4byte_selector(entry) + encode_arguments(entry["inputs"], arguments)
        except EncodingError as error:
            raise Refused(function, "InvalidArguments", {"why": str(error)[:200]}) from error

    def decode(self, function: str, data: bytes) -> tuple[object, ...]:
        """What a call returned. Raises BadAnswer if the bytes are no such result."""
        return _decode(self._functions[function]["outputs"], data, f"{self.name}.{function}")


@cache
def contract(name: str) -> Contract:
    """The ABI of the contract ``name``."""
    return Contract(name)


def encode_arguments(inputs: Iterable[Entry], arguments: Sequence[object]) -> bytes:
    """``abi.encode`` of arguments; a structure is a tuple of its fields."""
    return abi_encode([collapse_if_tuple(dict(field)) for field in inputs], arguments)


def decode_error(data: bytes) -> tuple[str, dict[str, object]]:
    """Name and values of the error that a contract reverted with; ``Reverted`` with the bytes if it is not
    known.
    """
    selector, rest = data[:4], data[4:]
    entry = _errors().get(selector)
    if entry is not None:
        try:
            values = _decode(entry["inputs"], rest, entry["name"])
        except BadAnswer:
            return "Reverted", {"data": f"0x{data[:256].hex()}"}
        names = [field["name"] or str(i) for i, field in enumerate(entry["inputs"])]
        return entry["name"], dict(zip(names, map(printable, values), strict=True))
    return "Reverted", {"data": f"0x{data[:256].hex()}"} if data else {}


@cache
def _errors() -> dict[bytes, Entry]:
    known: dict[bytes, Entry] = {
        bytes.fromhex("08c379a0"): {"name": "Error", "inputs": [{"name": "message", "type": "string"}]},
        bytes.fromhex("4e487b71"): {"name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
    }
    for name in CONTRACTS:
        known |= contract(name).errors
    return known


def printable(value: object) -> object:
    """A value of an error, as Refused has it."""
    return f"0x{value.hex()}" if isinstance(value, bytes) else value


def _decode(fields: Sequence[Entry], data: bytes, where: str) -> tuple[object, ...]:
    types = [collapse_if_tuple(dict(field)) for field in fields]
    try:
        values = abi_decode(types, data)
    except (DecodingError, OverflowError, UnicodeDecodeError) as error:
        raise BadAnswer(f"{where}: {len(data)} bytes are not {', '.join(types)}: {error}") from error
    return tuple(_named(field, value) for field, value in zip(fields, values, strict=True))


def _named(field: Entry, value: Any) -> object:
    """A decoded value, with structures as dictionaries and addresses with their checksum."""
    kind: str = field["type"]
    if kind.endswith("]"):
        inner = {**field, "type": kind[: kind.rindex("[")]}
        return tuple(_named(inner, item) for item in value)
    if kind == "tuple":
        parts = zip(field["components"], value, strict=True)
        return {part["name"]: _named(part, item) for part, item in parts}
    return to_checksum_address(value) if kind == "address" else value
