"""Deposits through a node that kills this process; run by test_sender.py with RPC, deployment, key and
journal.
"""

from __future__ import annotations

import sys
from pathlib import Path

from crowdtrain.deployment import Deployment
from crowdtrain.web3_chain import Web3Chain

if __name__ == "__main__":
    rpc, deployment, key, journal, amount = sys.argv[1:]
    chain = Web3Chain(rpc, Deployment.load(Path(deployment)), key, Path(journal))
    print(chain.deposit(int(amount)).transaction)
