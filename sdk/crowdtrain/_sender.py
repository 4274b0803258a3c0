"""Sending transactions so that a crash, a lost answer or a reorganisation never makes two of one.

Each is simulated, signed, written to the journal, and only then sent. Before the next one is made,
everything that the journal holds and no block does is sent again, the same bytes, and waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from eth_typing import HexStr

from crowdtrain import _abi
from crowdtrain._errors import BadAnswer, ChainUnavailable, ConfigError, Refused
from crowdtrain._eth import Account, LocalAccount
from crowdtrain._rpc import Block, Node, RpcError, TransactionReceipt
from crowdtrain.chain import Address
from crowdtrain.journal import Entry, Fate, Journal

__all__ = ["Sender", "account_of", "refusal"]

MAX_FEE = 10**13
"""wei for each gas that are never exceeded, whatever a node suggests"""
MAX_GAS = 2**24
"""of a transaction (EIP-7825); a chain may refuse one that asks for more, whatever it needs"""
_REPEAT = 15.0
"""seconds after which a transaction that is in no block is handed over again"""
_GONE = 3
"""times that the nonce must be seen used by another transaction before it is believed"""


def account_of(key: str) -> LocalAccount:
    """The account of a private key in hexadecimal. Raises ConfigError, which does not show the key."""
    try:
        account: LocalAccount = Account.from_key(key)
    except (ValueError, TypeError) as error:
        del error
        raise ConfigError("the key is not a private key: 32 bytes in hexadecimal are needed") from None
    return account


class Sender:
    """Sends for one account on one chain, and waits ``patience`` seconds for each transaction."""

    def __init__(
        self,
        node: Node,
        account: LocalAccount,
        chain_id: int,
        journal: Journal,
        *,
        patience: float = 180.0,
        poll: float = 0.3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._account = account
        self._chain_id = chain_id
        self._journal = journal
        self._patience = patience
        self._poll = poll
        self._clock = clock
        self._lock = threading.RLock()

    @property
    def address(self) -> Address:
        """The account that sends."""
        return Address(self._account.address)

    def send(self, label: str, to: str, data: bytes) -> TransactionReceipt:
        """Carries out a call as a transaction.

        Raises Refused if the contract would refuse, or did; ChainUnavailable if it is in no block in time,
        in which case the next call, whichever it is, goes on waiting for it.
        """
        with self._lock:
            for entry, receipt in self.resume():
                # an earlier call for the same was cut short: this is its answer
                if (entry.to, entry.data) == (to, data) and receipt.succeeded:
                    return receipt
            self.simulate(label, to, data)
            entry = self._sign(label, to, data)
            self._journal.add(entry)
            self._hand_over(entry)
            entry, receipt = self._wait([entry])
            if not receipt.succeeded:
                self.simulate(label, to, data, receipt.block)
                raise Refused(label, "Reverted", {"transaction": receipt.transaction})
            return receipt

    def simulate(self, label: str, to: str, data: bytes, block: int | str = "latest") -> bytes:
        """What the call would return. Raises Refused, with the contract's error, if it would revert."""
        try:
            return self._node.call(to, data, self.address, block)
        except RpcError as error:
            raise refusal(label, error) from error

    def resume(self) -> list[tuple[Entry, TransactionReceipt]]:
        """Sends again what the journal holds and no block does, and waits for it: what came of each."""
        with self._lock:
            count = self._node.transaction_count(self.address)
            unsettled: dict[int, list[Entry]] = {}
            for entry in self._journal.unsettled(count):
                unsettled.setdefault(entry.nonce, []).append(entry)
            done: list[tuple[Entry, TransactionReceipt]] = []
            for nonce, entries in sorted(unsettled.items()):
                if nonce > count + len(done):
                    # a gap before it, which only a node that told a wrong nonce can have caused
                    self._journal.mark(entries[-1], Fate.DROPPED)
                    continue
                done.append(self._wait(entries, hand_over=True))
            return done

    # ---------------------------------------------------------------- making a transaction

    def _sign(self, label: str, to: str, data: bytes) -> Entry:
        block = self._node.block()
        try:
            gas = self._node.estimate_gas(self.address, to, data)
        except RpcError as error:
            raise refusal(label, error) from error
        most = min(block.gas_limit, MAX_GAS)
        if gas > most:
            raise BadAnswer(f"{label} is said to need {gas} gas, a transaction may have {most}")
        # the state may change before the transaction is in a block, so a quarter more than it needs now
        gas = min(gas + gas // 4 + 10_000, most)
        tip = self._node.tip()
        max_fee = 2 * block.base_fee + tip
        self._afford(label, gas, max_fee)
        return self._signed(label, to, data, self._node.transaction_count(self.address), gas, max_fee, tip)

    def _afford(self, label: str, gas: int, max_fee: int) -> None:
        if max_fee > MAX_FEE:
            raise BadAnswer(f"{label} is said to cost {max_fee} wei for each gas, at most {MAX_FEE} are paid")
        balance = self._node.balance(self.address)
        if balance < gas * max_fee:
            values = {"account": self.address, "balance": balance, "needed": gas * max_fee}
            raise Refused(label, "InsufficientGasMoney", values)

    def _signed(
        self, label: str, to: str, data: bytes, nonce: int, gas: int, max_fee: int, tip: int
    ) -> Entry:
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": nonce,
                "to": HexStr(to),
                "data": data,
                "value": 0,
                "gas": gas,
                "maxFeePerGas": max_fee,
                "maxPriorityFeePerGas": tip,
            }
        )
        raw, name = bytes(signed.raw_transaction), f"0x{bytes(signed.hash).hex()}"
        return Entry(nonce, name, raw, label, to, data, gas, max_fee, tip)

    def _dearer(self, entry: Entry) -> list[Entry]:
        """The same transaction, in the journal, with fees raised by an eighth, the least that nodes take in
        its place; nothing if the account cannot afford it."""
        tip = max(entry.tip + entry.tip // 8 + 1, self._node.tip())
        max_fee = max(entry.max_fee + entry.max_fee // 8 + 1, 2 * self._node.block().base_fee + tip)
        try:
            self._afford(entry.label, entry.gas, max_fee)
        except Refused:
            return []
        dearer = self._signed(entry.label, entry.to, entry.data, entry.nonce, entry.gas, max_fee, tip)
        self._journal.add(dearer)
        return [dearer]

    # ---------------------------------------------------------------- waiting for it

    def _hand_over(self, entry: Entry) -> None:
        # known already, its nonce used, or the node busy: waiting for the receipt tells which
        with suppress(RpcError):
            self._node.send(entry.raw)

    def _wait(self, entries: list[Entry], *, hand_over: bool = False) -> tuple[Entry, TransactionReceipt]:
        """Waits until one of these transactions, which share a nonce, is in a block.

        Raises ChainUnavailable if none is in time, or if another transaction took the nonce.
        """
        started = sent = self._clock()
        gone = 0
        while True:
            for entry in entries:
                receipt = self._node.receipt(entry.hash)
                if receipt is not None:
                    self._journal.mark(entry, Fate.MINED if receipt.succeeded else Fate.FAILED)
                    return entry, receipt
            last, now = entries[-1], self._clock()
            gone = gone + 1 if self._node.transaction_count(self.address) > last.nonce else 0
            if gone == _GONE:
                self._journal.mark(last, Fate.DROPPED)
                raise ChainUnavailable(
                    f"{last.label}: another transaction took nonce {last.nonce}; try again"
                )
            if now - started > self._patience:
                raise ChainUnavailable(
                    f"{last.label}: {last.hash} is in no block after {self._patience:.0f} s"
                )
            if hand_over or now - sent > _REPEAT:
                hand_over, sent = False, now
                if self._is_too_cheap(last):
                    entries = [*entries, *self._dearer(last)]
                self._hand_over(entries[-1])
            time.sleep(self._poll)

    def _is_too_cheap(self, entry: Entry) -> bool:
        block: Block = self._node.block()
        return block.base_fee + entry.tip > entry.max_fee


def refusal(label: str, error: RpcError) -> Refused | ChainUnavailable:
    """What an error of the node means for a call: a contract's refusal, with its error, or no answer."""
    if not error.is_revert:
        return ChainUnavailable(f"{label}: the node cannot tell: {error}")
    name, values = _abi.decode_error(error.data or b"")
    return Refused(label, name, values)
