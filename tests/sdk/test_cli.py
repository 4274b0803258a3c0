"""The command line, against a real chain and a real gateway."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import safetensors.numpy
from crowdtrain import cid, cli
from crowdtrain._cli_wallet import parse_amount
from crowdtrain._errors import ConfigError, CrowdtrainError, PlanError
from crowdtrain._sender import account_of
from crowdtrain.bundle import save_bundle
from crowdtrain.chain import Address, JobId, SegmentKey
from crowdtrain.devnet import Devnet
from crowdtrain.gateway import Limits, create_app
from crowdtrain.jobs import load_job
from crowdtrain.stores import HttpStore, LocalStore
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine import ProgramError
from crowdtrain_engine.trace import trace_root
from gateway_server import serving
from small_jobs import STEPS, claim, commit, replay, sample
from strategies_support import datasets, training
from typer.testing import CliRunner

GIVEN = sample()
TERMS = [
    "--steps",
    str(STEPS),
    "--segments",
    "2",
    "--interval",
    "2",
    "--price",
    "100",
    "--stake",
    "5e1",
    "--window",
    "30",
    "--audits",
    "0",
    "--audit-share",
    "0.5",
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = LocalStore(tmp_path_factory.mktemp("store"))
    with serving(create_app(store, None, Limits(reserve=0))) as url:
        yield url


@pytest.fixture
def environment(devnet: Devnet, gateway: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user would have set, with a home of its own."""
    for name, value in (
        ("HOME", str(tmp_path)),
        ("CROWDTRAIN_RPC", devnet.rpc),
        ("CROWDTRAIN_DEPLOYMENT", str(devnet.deployment_path)),
        ("CROWDTRAIN_STORE", gateway),
        ("CROWDTRAIN_KEY", devnet.keys[0]),
    ):
        monkeypatch.setenv(name, value)


def run(*words: str, code: int = 0) -> str:
    """What a command prints on stdout."""
    done = CliRunner().invoke(cli.app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    save_bundle(tmp_path / "job", GIVEN.program, GIVEN.data, GIVEN.state)
    return str(tmp_path / "job")


@pytest.mark.usefixtures("environment")
def test_a_job_is_bought_from_the_command_line(
    devnet: Devnet, gateway: str, bundle: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="name a --fleet"):
        run("job", "quote", bundle, "--steps", "4", "--price", "9", "--strategy", "auto")
    assert "100 for each segment, 200 in all" in " ".join(run("job", "quote", bundle, *TERMS).split())
    number = run("job", "post", bundle, *TERMS, "--yes").strip()
    solver = Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[1])
    solver.deposit(1000)
    job = JobId(int(number))
    stored = HttpStore(gateway)
    assert load_job(solver, stored, job).plan.root == GIVEN.plan.root
    assert number in run("job", "list").split()
    risk = CliRunner().invoke(cli.app, ["job", "risk", number])
    assert risk.exit_code == 1
    assert "nobody is enrolled" in " ".join(risk.output.split())
    solver.enroll(500)
    risk = CliRunner().invoke(cli.app, ["job", "risk", number, "--solver", solver.address, "--watchers", "1"])
    assert risk.exit_code == 0, risk.output
    assert "1.000 at this record" in risk.output
    for index in range(2):
        key = SegmentKey(job, index)
        given = GIVEN
        claim(solver, given, key)
        done = replay(given, index)
        commit(solver, given, key, done)
        for blob in given.store.blobs.values():
            stored.put(blob)
        devnet.advance(31)
        solver.settle(key, given.plan.segments[index], trace_root(done.trace))
    lines = run("job", "watch", number).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["claimed", "committed", "audit", "settled"] * 2
    out = tmp_path / "trained.safetensors"
    trained = GIVEN.after(STEPS)
    assert trained.root.hex() in run("job", "result", number, "--out", str(out))
    weights = safetensors.numpy.load_file(out)
    assert (weights["parameters/weight1"] == trained["parameters"]["weight1"]).all()
    me = Address(account_of(devnet.keys[0]).address)
    before = Web3Chain(devnet.rpc, devnet.deployment).tokens(me)
    run("job", "refund", number)  # what auditors did not need
    assert Web3Chain(devnet.rpc, devnet.deployment).tokens(me) == before + 100
    with pytest.raises(CrowdtrainError, match="NothingOwed"):
        run("job", "refund", number)


@pytest.fixture
def crowd(tmp_path: Path) -> tuple[str, str]:
    """A job's folder with the order of 48 steps, and a file of unequal machines."""
    save_bundle(tmp_path / "crowd", training(), datasets(1, 48)[0])
    (tmp_path / "fleet.json").write_text('{"machines": [{"speed": 1e6}, {"speed": 2e6}, {"speed": 4e6}]}')
    return str(tmp_path / "crowd"), str(tmp_path / "fleet.json")


@pytest.mark.usefixtures("environment")
def test_a_strategy_is_posted_from_the_command_line(
    devnet: Devnet, gateway: str, crowd: tuple[str, str]
) -> None:
    folder, fleet = crowd
    given = ["--steps", "48", "--price", "1000", "--audits", "0"]
    chosen = ["--strategy", "elastic diloco", "--workers", "3", "--inner-steps", "8"]
    number = run("job", "post", folder, *given, *chosen, "--yes").strip()
    chain = Web3Chain(devnet.rpc, devnet.deployment)
    files = load_job(chain, HttpStore(gateway), JobId(int(number)))
    train = [spec for spec in files.plan.segments if spec.steps == 8]
    assert (len(train), files.plan.price, max(spec.quorum for spec in files.plan.segments)) == (6, 1000, 6)
    rows = [files.dataset(files.plan.segments.index(spec)).tensors["order"][:16] for spec in train[:3]]
    whole = datasets(1, 48)[0].tensors["order"]
    assert all((rows[k] == whole[k::3]).all() for k in range(3))
    number = run(
        "job", "post", folder, *given, "--strategy", "auto", "--fleet", fleet, "--inner-steps", "4", "--yes"
    )
    assert load_job(chain, HttpStore(gateway), JobId(int(number.strip()))).plan.price == 1000
    told = " ".join(run("job", "quote", folder, *given, "--fleet", fleet).split())
    assert "recommended" in told
    assert "as far as data parallelism in" in told


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "magic"], "no strategy is called 'magic'"),
        (["--strategy", "diloco", "--segments", "2"], "segments and intervals of its own"),
        (["--workers", "2"], "those of a --strategy"),
        (["--strategy", "data parallel"], "post it from Python"),
        (["--strategy", "diloco"], "less than a round"),
        (
            ["--strategy", "diloco", "--inner-steps", "30", "--workers", "1", "--steps", "60"],
            "rows for 48 steps",
        ),
    ],
)
def test_a_strategy_that_cannot_be_posted(crowd: tuple[str, str], words: list[str], message: str) -> None:
    with pytest.raises((ConfigError, PlanError), match=message):
        run("job", "quote", crowd[0], "--steps", "48", "--price", "9", *words)


@pytest.mark.usefixtures("environment")
def test_posting_asks_first(devnet: Devnet, bundle: str) -> None:
    chain = Web3Chain(devnet.rpc, devnet.deployment)
    count = chain.job_count()
    done = CliRunner().invoke(cli.app, ["job", "post", bundle, *TERMS], input="n\n")
    assert done.exit_code == 1
    assert "Pay 300 into escrow?" in done.stderr
    assert chain.job_count() == count


@pytest.mark.usefixtures("environment")
def test_an_auditor_from_the_command_line(devnet: Devnet, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[6])
    monkeypatch.setenv("CROWDTRAIN_KEY", devnet.keys[6])
    chain.deposit(40)
    run("wallet", "enroll", "100")
    me = chain.address
    assert (chain.weight(me), chain.stake(me)) == (100, (0, 100))
    shown = " ".join(run("wallet", "record", "--price", "100").split())
    assert "enrolled as auditor │ 100" in shown
    assert "in 1/10,000 │ 10,000" in shown
    run("wallet", "leave", "30")
    assert (chain.weight(me), chain.leaving(me)[0]) == (70, 30)
    with pytest.raises(CrowdtrainError, match="TooEarly"):
        run("wallet", "leave")
    shown = " ".join(run("wallet", "balance").split())
    assert "of that, leaving │ 30" in shown
    told = json.loads(run("wallet", "explain", "--json"))
    assert told["sum"] == told["contracts"]
    assert [(line["kind"], line["amount"]) for line in told["lines"]] == [
        ("transfer", str(10**24)),
        ("deposit", "40"),
        ("deposit", "60"),
        ("lock", "100"),
    ]
    shown = run("wallet", "explain", me)
    assert "enrolled as auditor" in shown
    assert told["lines"][-1]["transaction"] in shown
    devnet.advance(chain.rules().unbonding + 1)
    run("wallet", "leave")
    assert chain.stake(me) == (30, 70)


@pytest.mark.usefixtures("environment")
def test_a_wallet_from_the_command_line(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROWDTRAIN_PASSWORD", "secret")
    keyfile = ["--keyfile", str(tmp_path / "key.json")]
    address = run("wallet", "new", keyfile[1]).strip()
    assert run("wallet", "address", *keyfile).strip() == address
    devnet.fund(address, 10**6)  # type: ignore[arg-type]
    run("wallet", "deposit", "5e5", *keyfile)
    run("wallet", "withdraw", "--stake", "1000", *keyfile)
    shown = " ".join(run("wallet", "balance", address).split())
    assert "tokens │ 501,000" in shown
    assert "free stake │ 499,000" in shown
    assert (tmp_path / ".crowdtrain" / "journals" / f"{address}.sqlite").exists()


@pytest.mark.parametrize(
    ("text", "amount"), [("0", 0), ("1000", 1000), ("5e18", 5 * 10**18), ("1.5e3", 1500)]
)
def test_amounts_are_exact(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e-1", "nan", "inf", "1e999999999", "ten", "1_0e"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"amount|token units"):
        parse_amount(text)


def test_every_command_explains_itself() -> None:
    for words in (
        [],
        ["devnet"],
        ["serve"],
        ["bench"],
        ["explain"],
        ["job"],
        *[["job", name] for name in ("quote", "post", "watch", "result", "list", "refund")],
        ["wallet"],
        *[["wallet", name] for name in ("new", "address", "balance", "deposit", "withdraw")],
    ):
        assert "Usage" in run(*words, "--help")
    for words in ([], ["job"], ["wallet"], ["devnet"], ["serve"], ["bench"], ["explain"]):
        assert "Example" in run(*words, "--help")


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own."""
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-m", "crowdtrain.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=given, timeout=120)


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["job", "list", "--rpc", "http://127.0.0.1:1"], {}, "no node answers"),
        (["wallet", "address"], {"CROWDTRAIN_KEY": "nonsense"}, "not a private key"),
        (
            ["job", "quote", "/nowhere", "--steps", "1", "--price", "1"],
            {"CROWDTRAIN_RPC": "x"},
            "must begin with",
        ),
    ],
)
def test_an_error_is_one_line(words: list[str], environment: dict[str, str], message: str) -> None:
    done = shell(*words, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith("crowdtrain: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_errors_of_the_engine_are_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ProgramError("nest 3", "is wrong")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "crowdtrain: nest 3: is wrong\n"


def test_packages_add_commands(tmp_path: Path) -> None:
    code = "import typer\napp = typer.Typer()\n@app.command()\ndef run() -> None:\n"
    code += "    'An added command.'\n    print('it ran')\n"
    (tmp_path / "added.py").write_text(code)
    info = tmp_path / "added-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[crowdtrain.commands]\nadded = added:app\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    assert "An added command." in shell("--help", PYTHONPATH=path).stdout
    assert shell("added", PYTHONPATH=path).stdout == "it ran\n"
    assert shell("missing", PYTHONPATH=path).returncode == 2


def test_serving_from_the_command_line(devnet: Devnet, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    where = ["--rpc", devnet.rpc, "--deployment", str(devnet.deployment_path)]
    command = [
        sys.executable,
        "-m",
        "crowdtrain.cli",
        "serve",
        "--folder",
        str(tmp_path),
        "--port",
        str(port),
        *where,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            transport = httpx.HTTPTransport(retries=20)
            with httpx.Client(base_url=url, transport=transport) as client:
                assert client.get("/health").json()["status"] == "ok"
                assert client.post("/blobs", content=b"a blob").json()["cid"] == cid.cid_of(b"a blob")
                assert isinstance(client.get("/jobs").json(), list)
        finally:
            process.terminate()
        assert process.wait(30) in (0, -15)


def test_measuring_this_machine() -> None:
    assert "tensor root" in run("bench", "--threads", "1", "--seconds", "0.01")
