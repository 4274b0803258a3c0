"""Where the contracts of a chain are: a JSON file for each chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eth_utils.address import is_checksum_address
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from crowdtrain._errors import ConfigError
from crowdtrain._files import atomic_file
from crowdtrain.chain import Address

__all__ = ["FOLDERS", "Deployment", "find_deployment"]

FOLDERS = (Path("deployments"), Path("~/.crowdtrain/deployments"))
"""where deployment files are looked for, in this order; each is named after its chain id: ``31337.json``"""
SOLIDITY_NAMES = {"token": "Money", "rewards": "Token"}
"""contracts that are not called as in the file"""


def _address(text: str) -> Address:
    if not is_checksum_address(text):
        raise ValueError("an address with its checksum is needed")
    return Address(text)


Checked = Annotated[str, AfterValidator(_address)]


class Deployment(BaseModel):
    """Addresses of the contracts on chain ``chain_id``, which are there since ``block``."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    chain_id: Annotated[int, Field(ge=1, lt=2**63)]
    block: Annotated[int, Field(ge=0, lt=2**63)]
    token: Checked
    stake: Checked
    market: Checked
    dispute: Checked
    referee: Checked
    audit: Checked
    rewards: Checked
    """the protocol's own token"""
    emission: Checked
    crowdfund: Checked

    @property
    def contracts(self) -> dict[str, Address]:
        """Address of every contract by its name in Solidity."""
        named = self.model_dump(exclude={"chain_id", "block"})
        return {SOLIDITY_NAMES.get(field, field.capitalize()): address for field, address in named.items()}

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """The deployment in a file. Raises ConfigError, saying what is wrong, if there is none."""
        try:
            return cls.model_validate_json(path.expanduser().read_bytes())
        except OSError as error:
            raise ConfigError(f"deployment file {path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "file"
            raise ConfigError(f"deployment file {path}: {where}: {first['msg']}") from error

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all. Raises ConfigError."""
        try:
            with atomic_file(path.expanduser()) as file:
                file.write(self.model_dump_json(indent=2).encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"deployment file {path} cannot be written: {error}") from error


def find_deployment(chain_id: int, where: Path | None = None) -> Deployment:
    """The deployment on a chain: from the file or folder ``where``, or from the usual folders.

    Raises ConfigError if there is no file for the chain, or it is for another.
    """
    folders = FOLDERS if where is None else (where,)
    for folder in (path.expanduser() for path in folders):
        path = folder / f"{chain_id}.json" if folder.is_dir() else folder
        if path.is_file():
            deployment = Deployment.load(path)
            if deployment.chain_id != chain_id:
                raise ConfigError(
                    f"{path} is for chain {deployment.chain_id}, the node is on chain {chain_id}"
                )
            return deployment
    places = ", ".join(map(str, folders))
    raise ConfigError(f"no deployment file {chain_id}.json for chain {chain_id} in {places}; name one")
