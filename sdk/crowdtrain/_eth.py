"""eth-account and web3.py, without a side effect of theirs.

A dependency of theirs raises Python's recursion limit a hundredfold, with which a stranger's deeply nested
JSON would overflow the stack and kill the process instead of raising RecursionError. So they are imported
only here.
"""

from __future__ import annotations

import sys

_limit = sys.getrecursionlimit()

from eth_account import Account  # noqa: E402
from eth_account.signers.local import LocalAccount  # noqa: E402
from web3 import Web3  # noqa: E402
from web3.exceptions import Web3Exception, Web3RPCError  # noqa: E402
from web3.providers.base import JSONBaseProvider  # noqa: E402
from web3.types import RPCEndpoint, RPCResponse  # noqa: E402

sys.setrecursionlimit(_limit)

__all__ = [
    "Account",
    "JSONBaseProvider",
    "LocalAccount",
    "RPCEndpoint",
    "RPCResponse",
    "Web3",
    "Web3Exception",
    "Web3RPCError",
]
