"""Key files and configuration: nothing secret is shown, nothing is overwritten."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from crowdtrain import wallet
from crowdtrain._errors import ConfigError
from crowdtrain._sender import account_of
from crowdtrain.config import DEFAULT_RPC, DEFAULT_STORE, Config
from eth_account import Account

KEY = "0x" + "42" * 32
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def keyfile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wallet") / "key.json"
    wallet.import_key(path, PASSWORD, KEY)
    return path


def test_a_key_comes_back_with_its_password(keyfile: Path) -> None:
    assert wallet.unlock(keyfile, PASSWORD) == KEY
    assert stat.S_IMODE(keyfile.stat().st_mode) == 0o600


def test_other_wallets_can_open_it(keyfile: Path) -> None:
    assert bytes(Account.decrypt(json.loads(keyfile.read_text()), PASSWORD)).hex() == KEY[2:]


def test_a_new_key_is_new(tmp_path: Path) -> None:
    address = wallet.create(tmp_path / "new.json", PASSWORD)
    assert str(account_of(wallet.unlock(tmp_path / "new.json", PASSWORD)).address) == address


def test_a_key_file_is_never_overwritten(keyfile: Path) -> None:
    with pytest.raises(ConfigError, match="never overwritten"):
        wallet.create(keyfile, PASSWORD)


def test_a_wrong_password_is_said_and_not_shown(keyfile: Path) -> None:
    with pytest.raises(ConfigError, match="the password is wrong") as caught:
        wallet.unlock(keyfile, "incorrect")
    assert "incorrect" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '"text"', '{"version": 9}', '{"version": 3, "crypto": {}}', "[" * 9999]
)
def test_what_is_no_key_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ConfigError, match="not a key file"):
        wallet.unlock(tmp_path / "file", PASSWORD)
    with pytest.raises(ConfigError, match="cannot be read"):
        wallet.unlock(tmp_path / "absent", PASSWORD)


# ---------------------------------------------------------------- configuration


def test_without_anything_defaults_hold() -> None:
    assert Config.read({}) == Config(DEFAULT_RPC, DEFAULT_STORE)


def test_the_environment_is_read_once() -> None:
    environment = {
        "CROWDTRAIN_RPC": "http://node",
        "CROWDTRAIN_STORE": "store",
        "CROWDTRAIN_DEPLOYMENT": "here",
        "CROWDTRAIN_KEY": KEY,
        "CROWDTRAIN_KEYFILE": "file",
        "CROWDTRAIN_PASSWORD": "secret",
    }
    config = Config.read(environment)
    assert config == Config("http://node", "store", Path("here"), KEY, Path("file"), "secret")
    assert config.private_key() == KEY


def test_options_come_before_the_environment(keyfile: Path) -> None:
    environment = {
        "CROWDTRAIN_RPC": "http://node",
        "CROWDTRAIN_KEY": "0x" + "11" * 32,
        "CROWDTRAIN_PASSWORD": PASSWORD,
    }
    config = Config.read(environment, rpc="http://other", keyfile=keyfile)
    assert config.rpc == "http://other"
    assert config.private_key() == KEY


def test_secrets_are_not_shown() -> None:
    shown = repr(Config.read({"CROWDTRAIN_KEY": KEY, "CROWDTRAIN_PASSWORD": "secret"}))
    assert KEY not in shown
    assert "secret" not in shown


def test_a_missing_key_or_password_is_said(keyfile: Path) -> None:
    with pytest.raises(ConfigError, match="needs a key"):
        Config.read({}).private_key()
    with pytest.raises(ConfigError, match="password"):
        Config.read({}, keyfile=keyfile).private_key()
