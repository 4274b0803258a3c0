"""Private keys in password-protected files (Web3 Secret Storage, the format of Ethereum wallets)."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic_core import from_json

from crowdtrain._errors import ConfigError
from crowdtrain._eth import Account
from crowdtrain._files import atomic_file
from crowdtrain._sender import account_of
from crowdtrain.chain import Address

__all__ = ["create", "import_key", "unlock"]

MAX_FILE = 2**16
"""most bytes of a key file"""


def create(path: Path, password: str) -> Address:
    """Makes a new key and writes it to ``path``, readable for its owner only.

    Raises ConfigError if there is a file already, or it cannot be written.
    """
    return import_key(path, password, f"0x{bytes(Account.create().key).hex()}")


def import_key(path: Path, password: str, key: str) -> Address:
    """Writes a key that exists to ``path``. Raises ConfigError as :func:`create` does, or if it is none."""
    account = account_of(key)
    if path.exists():
        raise ConfigError(f"{path} exists already; a key file is never overwritten")
    try:
        with atomic_file(path, private=True) as file:
            file.write(json.dumps(Account.encrypt(account.key, password)).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"key file {path} cannot be written: {error}") from error
    return Address(account.address)


def unlock(path: Path, password: str) -> str:
    """The private key in a file, in hexadecimal. Raises ConfigError, which shows neither key nor password."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE)
        key = bytes(Account.decrypt(from_json(text), password))
    except OSError as error:
        raise ConfigError(f"key file {path} cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        wrong = "MAC mismatch" in str(error)
        reason = "the password is wrong" if wrong else "it is not a key file of an Ethereum wallet"
        raise ConfigError(f"key file {path} cannot be opened: {reason}") from None
    return f"0x{key.hex()}"
