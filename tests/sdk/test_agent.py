"""What long-running processes share: folders, ledgers, workers, what is set aside, and the loop."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowdtrain._errors import ChainUnavailable, ConfigError, NotFound, Refused
from crowdtrain.actions import Action, Load
from crowdtrain.agent import Agent, Gate, SetAside, Stopped, Worker, metrics, serve
from crowdtrain.chain import Address, ChainEvent, JobId
from crowdtrain.folders import Ledger, exclusive, open_log, read_status
from crowdtrain_engine import ProgramError

ME, OTHER = Address("0x" + "1" * 40), Address("0x" + "2" * 40)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent[Action]]:
    with open_log(tmp_path, "test", console=False) as log:
        agent: Agent[Action] = Agent(tmp_path, ME, log)
        yield agent
        agent.close()


def logged(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def settled(number: int, solver: str = ME) -> ChainEvent:
    fields: dict[str, object] = {"job": 1, "segment": number, "solver": solver, "price": 102, "fee": 2}
    return ChainEvent(number, 0, f"0x{number}", "Settled", fields, "Market")


# ------------------------------------------------------------------ folders


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "here"),
        pytest.raises(ConfigError, match="in use"),
        exclusive(tmp_path / "here"),
    ):
        pass
    with exclusive(tmp_path / "here"):
        pass


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"), exclusive(tmp_path / "file"):
        pass
    with pytest.raises(ConfigError, match="cannot be read"):
        read_status(tmp_path)


def test_a_ledger_records_each_movement_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, ME)
    ledger.record([settled(1), settled(2, OTHER)])
    ledger.record([settled(1), settled(3)])
    slash = {"account": ME, "amount": 60, "winner": OTHER, "bounty": 30}
    ledger.record([ChainEvent(4, 1, "0x4", "Slashed", dict(slash), "Stake")])
    again = Ledger(tmp_path, ME)
    assert again.record([settled(1), settled(3)]) == []
    for each in (ledger, again):
        assert (each.earned, each.lost, each.last_block) == (204, 64, 4)


def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path: Path) -> None:
    Ledger(tmp_path, ME).record([settled(1), settled(2)])
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    ledger = Ledger(tmp_path, ME)
    assert (ledger.earned, ledger.lost) == (204, 2)
    ledger.record([settled(2), settled(3)])
    assert [json.loads(line)["block"] for line in path.read_text().splitlines()] == [1, 1, 2, 2, 3, 3]


# ------------------------------------------------------------------ threads


def test_a_worker_does_one_task_and_tells_how_it_ended() -> None:
    wake = threading.Event()
    worker: Worker[Load] = Worker("test", wake)
    go = threading.Event()
    worker.start(Load(JobId(1)), go.wait)
    assert worker.busy == Load(JobId(1))
    assert worker.collect() is None
    with pytest.raises(RuntimeError):
        worker.start(Load(JobId(2)), go.wait)
    go.set()
    assert wake.wait(10)
    outcome = worker.collect()
    assert outcome is not None
    assert outcome.result is True
    assert worker.busy is None
    worker.close()


def test_a_gate_holds_and_ends_tasks() -> None:
    gate = Gate()
    gate.hold(True)
    passed, ended = threading.Event(), threading.Event()

    def task() -> None:
        gate.check()
        gate.wait()
        passed.set()
        gate.hold(True)
        try:
            gate.wait()
        except Stopped:
            ended.set()

    thread = threading.Thread(target=task)
    thread.start()
    assert not passed.wait(0.05)
    gate.hold(False)
    assert passed.wait(10)
    gate.stop()
    assert ended.wait(10)
    thread.join()
    with pytest.raises(Stopped):
        gate.check()


def test_what_fails_again_and_again_is_left_alone_for_longer() -> None:
    now = [0.0]
    aside = SetAside(lambda: now[0])
    assert [aside.put("job 1", "no") for _ in range(12)] == [2.0 * 2**i for i in range(8)] + [
        512.0,
        600.0,
        600.0,
        600.0,
    ][:4]
    now[0] = 599
    assert aside.keys == {"job 1"}
    assert aside.reasons == {"job 1": "no"}
    now[0] = 601
    assert aside.keys == frozenset()
    aside.clear("job 1")
    assert aside.put("job 1", "no") == 2.0


@pytest.mark.parametrize(
    ("error", "pause"),
    [(NotFound("gone"), 2), (ProgramError("nest 1", "wrong"), 3600), (ZeroDivisionError("a bug"), 2)],
)
def test_a_task_that_fails_is_set_aside(agent: Agent[Action], error: Exception, pause: int) -> None:
    def fail() -> None:
        raise error

    agent.work.start(Load(JobId(7)), fail)
    assert agent.wake.wait(10)
    assert agent.collect(lambda task, result: pytest.fail("nothing was done"))
    assert agent.resting.keys == {"job 7"}
    last = logged(agent.folder)[-1]
    assert last["about"] == "job 7"
    assert last["again_in"] == pause
    assert ("exception" in last) == isinstance(error, ZeroDivisionError)


def test_a_refusal_sets_aside_and_an_outage_does_not(agent: Agent[Action]) -> None:
    def refuse() -> None:
        raise Refused("claim", "Barred", {"job": 1})

    def fail() -> None:
        raise ChainUnavailable("no node answers")

    assert not agent.attempt("segment 0 of job 1", "claimed", refuse)
    assert agent.resting.keys == {"segment 0 of job 1"}
    assert agent.attempt("segment 0 of job 1", "claimed", lambda: None)
    assert agent.resting.keys == frozenset()
    with pytest.raises(ChainUnavailable):
        agent.attempt("segment 0 of job 1", "claimed", fail)


# ------------------------------------------------------------------ the loop


def test_the_loop_goes_on_after_an_outage_and_ends_with_a_signal(agent: Agent[Action]) -> None:
    turns: list[int] = []
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def turn() -> bool:
        turns.append(len(turns))
        if len(turns) == 2:
            raise ChainUnavailable("no node answers")
        if len(turns) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    serve(agent, turn, poll=0.001, most=0.01)
    assert turns == [0, 1, 2, 3]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    with pytest.raises(Stopped):
        agent.gate.check()


def test_a_task_does_not_hold_up_the_end(agent: Agent[Action]) -> None:
    def work() -> None:
        while True:
            agent.gate.wait()

    def turn() -> bool:
        if agent.work.busy is None:
            agent.work.start(Load(JobId(1)), work)
        os.kill(os.getpid(), signal.SIGINT)
        return True

    serve(agent, turn, poll=0.001, most=0.01)


def test_status_and_metrics(agent: Agent[Action]) -> None:
    agent.record([settled(1)])
    agent.show(role="solver", stake={"free": 5, "locked": 7}, work={"loss": 0.5, "segment": 3})
    status = read_status(agent.folder)
    assert status["stake"] == {"free": 5, "locked": 7}
    assert status["earned"] == 102
    with metrics(agent, 0) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    assert {"crowdtrain_stake_locked 7.0", "crowdtrain_work_loss 0.5", "crowdtrain_earned 102.0"} <= set(
        lines
    )
