"""Where the chain, the store and the key are: parsed once, from options and the environment.

This is the only place that reads the environment:

=========================  ==================================================================
``CROWDTRAIN_RPC``         address of a node, http://127.0.0.1:8545 if nothing else is said
``CROWDTRAIN_DEPLOYMENT``  deployment file, or a folder of them named by chain id
``CROWDTRAIN_STORE``       a gateway's URL, an IPFS daemon's multiaddress, or a folder
``CROWDTRAIN_KEY``         private key in hexadecimal
``CROWDTRAIN_KEYFILE``     key file (see ``crowdtrain wallet new``)
``CROWDTRAIN_PASSWORD``    its password; asked for on a terminal if it is not set
=========================  ==================================================================
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crowdtrain._errors import ConfigError

if TYPE_CHECKING:
    from crowdtrain.deployment import Deployment
    from crowdtrain.stores import Store
    from crowdtrain.web3_chain import Web3Chain

__all__ = ["Config"]

DEFAULT_RPC = "http://127.0.0.1:8545"
DEFAULT_STORE = "http://127.0.0.1:8350"


@dataclass(frozen=True)
class Config:
    """How to reach chain and store, and as whom."""

    rpc: str = DEFAULT_RPC
    store: str = DEFAULT_STORE
    deployment: Path | None = None
    key: str | None = field(default=None, repr=False)
    keyfile: Path | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def read(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        rpc: str | None = None,
        store: str | None = None,
        deployment: Path | None = None,
        keyfile: Path | None = None,
    ) -> Config:
        """Options where they are given, else the environment, else defaults."""
        named = environment.get
        file, where = named("CROWDTRAIN_KEYFILE"), named("CROWDTRAIN_DEPLOYMENT")
        return cls(
            rpc=rpc or named("CROWDTRAIN_RPC") or DEFAULT_RPC,
            store=store or named("CROWDTRAIN_STORE") or DEFAULT_STORE,
            deployment=deployment or (Path(where) if where else None),
            # a key file that is named on the command line comes before a key in the environment
            key=None if keyfile else named("CROWDTRAIN_KEY") or None,
            keyfile=keyfile or (Path(file) if file else None),
            password=named("CROWDTRAIN_PASSWORD"),
        )

    def private_key(self) -> str:
        """The key, asking for the key file's password on a terminal if need be. Raises ConfigError."""
        from crowdtrain.wallet import unlock

        if self.key:
            return self.key
        if self.keyfile is None:
            raise ConfigError("this needs a key: name a key file with --keyfile, or set CROWDTRAIN_KEY")
        password = self.password
        if password is None and sys.stdin.isatty():
            password = getpass.getpass(f"Password of {self.keyfile}: ")
        if password is None:
            raise ConfigError(f"the password of {self.keyfile} is needed: set CROWDTRAIN_PASSWORD")
        return unlock(self.keyfile, password)

    def find_deployment(self) -> Deployment:
        """The deployment on the node's chain. Raises ConfigError, or what a read of the chain raises."""
        from crowdtrain._rpc import Node
        from crowdtrain.deployment import find_deployment

        return find_deployment(Node(self.rpc).chain_id(), self.deployment)

    def connect(self, *, journal: Path | None = None, read_only: bool = False) -> Web3Chain:
        """The chain, as the account of the key unless ``read_only``. Raises what Web3Chain raises."""
        from crowdtrain.web3_chain import Web3Chain

        key = None if read_only else self.private_key()
        return Web3Chain(self.rpc, self.find_deployment(), key, journal)

    def open_store(self) -> Store:
        """The store. Raises ConfigError or StoreUnavailable."""
        from crowdtrain.stores import open_store

        return open_store(self.store)
