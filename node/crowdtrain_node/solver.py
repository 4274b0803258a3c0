"""The solver: looks at the chain, decides, acts; work and moves of disputes are computed in threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from crowdtrain import tensors
from crowdtrain.actions import (
    HELD,
    Action,
    Answer,
    Exits,
    Expire,
    Forfeit,
    Load,
    Settle,
    Timeout,
    Void,
    Withdraw,
)
from crowdtrain.agent import HOPELESS, Agent, job_name, segment_name
from crowdtrain.chain import (
    NONE,
    Chain,
    ChainEvent,
    Game,
    Job,
    JobId,
    Phase,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
)
from crowdtrain.folders import Log
from crowdtrain.game import Move, defend
from crowdtrain.game.sabotage import Sabotage
from crowdtrain.jobs import JobFiles
from crowdtrain.plan import leaf
from crowdtrain.runs import TRIAL, TRIAL_MOST, Appraisal, Hardware, Progress, Run, RunId, Runs, Speeds
from crowdtrain.shelf import Shelf
from crowdtrain.stores import Store
from crowdtrain.watch import ChainView, Watch, shown_audit
from crowdtrain_engine import merkle
from crowdtrain_engine.trace import Replay, seal, trace_root

from crowdtrain_node.decide import (
    Appraise,
    Claim,
    Commit,
    Execute,
    Policy,
    Prepare,
    Reveal,
    View,
    decide,
)

__all__ = ["Solver"]

MAX_SEGMENTS = 4096
MAX_REPLAYS = 2
_UNPAID = {
    "Expired": "its lease ran out",
    "Voided": "an input was opened again",
    "Overturned": "a dispute proved it wrong",
    "Forfeited": "its trace root was not revealed in time",
}
"""events after which a segment is not paid, and why"""


class Solver:
    """A solver's process, turn by turn. ``folder`` keeps its work; ``sabotage`` makes it a cheat."""

    def __init__(
        self,
        folder: Path,
        log: Log,
        chain: Chain,
        store: Store,
        policy: Policy,
        hardware: Hardware,
        sabotage: Sabotage | None = None,
    ) -> None:
        self.agent: Agent[Action] = Agent(folder, chain.address, log)
        self._chain = chain
        self._store = store
        self._policy = policy
        self._hardware = hardware
        self._sabotage = sabotage
        self._exits = Exits(self.agent, chain)
        self._shelf = Shelf(store, hardware.memory)
        self._runs = Runs(folder / "runs")
        self._watch = Watch(chain, self._refuse, self._left_alone, self.agent.first_block)
        self._appraisals: dict[bytes, Appraisal] = {}
        self._speeds = Speeds(folder / "speeds.json", hardware)
        self._prepared: dict[SegmentKey, bytes] = {}
        self._replays: dict[Path, Replay] = {}
        self._last_run: Run | None = None
        self._seen = ChainView(0, 0, chain.address, 0, 0, 0, 0)

    # -------------------------------------------------------------- one turn

    def turn(self) -> bool:
        """Looks, decides and acts once; whether to look again soon."""
        # moves are sent before the chain is looked at, so that none is decided upon twice
        collected = self.agent.collect(self._take)
        self._seen = self._watch.refresh()
        self.agent.record(self._seen.events)
        self._tell(self._seen.events)
        self._tidy()
        actions = decide(self._view(), self._policy)
        for action in actions:
            self._act(action)
            if self.agent.moves.done:
                break  # a clock is running: the move goes first
        self._show()
        return collected or bool(actions) or any(game.phase is not Phase.OVER for game in self._games())

    def close(self) -> None:
        """Ends the threads."""
        self.agent.close()

    def _view(self) -> View:
        agent, seen = self.agent, self._seen
        runs = [(segment.key, self._runs.get(RunId.of(segment))) for segment in self._held()]
        return View(
            chain=seen,
            books=self._shelf.books,
            appraisals={
                root: self._speeds.corrected(root, appraisal) for root, appraisal in self._appraisals.items()
            },
            prepared=dict(self._prepared),
            complete=frozenset(key for key, run in runs if run.complete),
            stored=frozenset(key for key, run in runs if run.cid),
            changed=frozenset(self._exits.changed),
            resting=agent.resting.keys,
            working=agent.work.busy is not None,
            answering=agent.moves.busy is not None,
        )

    def _held(self) -> list[Segment]:
        segments = self._seen.segments.values()
        return [s for s in segments if s.solver == self._chain.address and s.state in HELD]

    def _games(self) -> list[Game]:
        return [game for game in self._seen.games.values() if game.defender == self._chain.address]

    # -------------------------------------------------------------- acting

    def _act(self, action: Action) -> None:
        match action:
            case Load() | Appraise() | Prepare() | Execute():
                self.agent.work.start(action, partial(self._do, action, self._seen))
            case Answer(game):
                self.agent.moves.start(action, partial(self._answer, self._seen.games[game], self._seen))
            case Claim(key, deposit):
                self._claim(key, deposit)
            case Commit(key):
                self._commit(key)
            case Settle() | Expire() | Void() | Forfeit():
                self._exits.take(action, self._spec(action.key), self._trace_root(action.key))
            case Reveal(key):
                attempt = self._seen.segments[key].attempt
                call = partial(self._chain.reveal, key, attempt, self._trace_root(key))
                self.agent.attempt(action.about, "trace root revealed", call)
            case Timeout(game):
                self.agent.attempt(action.about, "won by the clock", partial(self._chain.timeout, game))
            case Withdraw():
                self.agent.attempt(action.about, "withdrew", self._chain.withdraw, amount=self._seen.owed)

    def _spec(self, key: SegmentKey) -> SegmentSpec:
        return self._shelf.books[key.job].plan.segments[key.index]

    def _claim(self, key: SegmentKey, deposit: int) -> None:
        about, chain, book = segment_name(key), self._chain, self._shelf.books[key.job]
        inputs = self._seen.inputs(book, key)
        if inputs is not None:
            call = partial(chain.claim, key, self._spec(key), book.plan.proof(key.index), inputs)
            self.agent.attempt_with(deposit, chain, about, "claimed", call, price=self._spec(key).price)

    def _commit(self, key: SegmentKey) -> None:
        run = self._run(key, self._seen)
        sealed = seal(trace_root(run.trace), bytes.fromhex(self._chain.address[2:]))
        call = partial(self._chain.commit, key, run.id.input_root, run.group_roots, sealed, run.cid)
        self.agent.attempt(segment_name(key), "committed", call, root=merkle.root(run.group_roots).hex())

    def _trace_root(self, key: SegmentKey) -> bytes:
        """Root of the trace of an own segment; NONE if it is not known, or another's."""
        if self._seen.segments[key].solver != self._chain.address:
            return NONE
        run = self._run(key, self._seen)
        return trace_root(run.trace) if run.complete else NONE

    # -------------------------------------------------------------- in the threads

    def _do(self, action: Action, seen: ChainView) -> object:
        match action:
            case Load(job):
                return self._shelf.get(seen.jobs[job])
            case Appraise(key):
                return Appraisal.of(self._files(key, seen).program(key.index), self._hardware)
            case Prepare(key):
                return self._prepare(key, seen)
            case Execute(key):
                return self._execute(key, seen)
        raise TypeError(f"{action} is not for the worker")

    def _files(self, key: SegmentKey, seen: ChainView) -> JobFiles:
        return self._shelf.get(seen.jobs[key.job])

    def _prepare(self, key: SegmentKey, seen: ChainView) -> bytes:
        files = self._files(key, seen)
        appraisal, spec = Appraisal.of(files.program(key.index), self._hardware), files.spec(key.index)
        appraisal.check(spec, self._hardware, self._runs.size)
        files.dataset(key.index)
        root = files.input_root(key.index, seen.of_job(key.job))
        run = self._runs.get(RunId(key, leaf(spec), root))
        run.prepare(files, seen.of_job(key.job))
        # what a trial costs is not paid for, so it must be short
        if spec.steps > 1 and appraisal.seconds <= TRIAL_MOST and spec.program_root not in self._speeds:
            took = run.measure(files, self._hardware, self.agent.gate.wait)
            self._speeds.learn(spec.program_root, took)
        return root

    def _execute(self, key: SegmentKey, seen: ChainView) -> Run:
        files, run = self._files(key, seen), self._run(key, seen)
        self._last_run = run
        run.prepare(files, seen.of_job(key.job))
        state = run.execute(files, self._hardware, self.agent.gate.wait, self._sabotage)
        run.stored(tensors.save_state(self._store, state))
        return run

    def _answer(self, game: Game, seen: ChainView) -> Move | None:
        run = self._run(game.key, seen)
        replay = self._replays.pop(run.folder, None)
        if replay is None:
            replay = run.replay(
                self._files(game.key, seen), self._hardware, self.agent.gate.check, self._sabotage
            )
        self._replays[run.folder] = replay
        while len(self._replays) > MAX_REPLAYS:
            del self._replays[next(iter(self._replays))]
        move = defend(game, replay)
        return self._sabotage.answer(game, move) if self._sabotage else move

    def _run(self, key: SegmentKey, seen: ChainView) -> Run:
        return self._runs.get(RunId.of(seen.segments[key]))

    # -------------------------------------------------------------- what the threads bring

    def _take(self, action: Action, result: object) -> None:
        match action, result:
            case Answer(), Move():
                call = partial(result.send, self._chain)
                self.agent.attempt(action.about, f"move: {result.call}", call, pause=action.pause)
                return
            case Answer(), _:
                self.agent.resting.put(action.about, "it is left unanswered", HOPELESS)
                self.agent.log.warning("no answer", about=action.about)
                return
            case Appraise(key), Appraisal():
                self._appraisals[self._spec(key).program_root] = result
            case Prepare(key), bytes():
                self._prepared[key] = result
            case Execute(key), Run(progress=progress):
                self._learn(key, progress)
        self.agent.resting.clear(action.about)
        self.agent.log.info(f"{action.name}: done", about=action.about)

    def _learn(self, key: SegmentKey, progress: Progress | None) -> None:
        """Takes the speed of a run for that of its program from now on."""
        root = self._spec(key).program_root
        # a few steps say little, where more were tried
        if progress and progress.rate and (progress.timed >= TRIAL or root not in self._speeds):
            self._speeds.learn(root, 1 / progress.rate)

    # -------------------------------------------------------------- keeping order

    def _refuse(self, job: Job) -> str | None:
        terms = job.terms
        if self._policy.jobs and job.id not in self._policy.jobs:
            return "it is not one of the jobs that were chosen"
        if terms.segments > MAX_SEGMENTS:
            return f"it has {terms.segments} segments, at most {MAX_SEGMENTS} are followed"
        if terms.stake > self._policy.max_stake:
            return f"its stake is {terms.stake}, at most {self._policy.max_stake} is allowed"
        if terms.escrow < self._policy.min_price:
            return f"its escrow is {terms.escrow}, a segment must pay {self._policy.min_price} at least"
        return None

    def _left_alone(self, job: JobId, reason: str) -> None:
        self.agent.log.info("job left alone", about=job_name(job), reason=reason)

    def _tidy(self) -> None:
        """Ends work that is lost, and deletes what is no longer needed."""
        held = {RunId.of(segment) for segment in self._held()}
        working = self.agent.work.busy
        for run in self._runs:
            segment = self._seen.segments.get(run.key)
            busy = isinstance(working, (Execute, Prepare)) and working.key == run.key
            if isinstance(working, Execute) and busy:
                run.cancelled = run.id not in held
            if busy or segment is None or run.id in held:
                continue
            if segment.state is SegmentState.SETTLED or segment.state in HELD:
                self._runs.drop(run)
        old = self._speeds.forget(time.time())
        books, known = self._shelf.books, self._seen.segments
        self._prepared = {
            key: root
            for key, root in self._prepared.items()
            if key in known and key.job in books and self._spec(key).program_root not in old
        }
        if working is None:
            self._shelf.trim({which.key.job for which in held}, self._seen.jobs.keys())

    # -------------------------------------------------------------- what people see

    def _tell(self, events: Sequence[ChainEvent]) -> None:
        """Says of each own segment what was paid, or why nothing was."""
        for event in events:
            fields: Mapping[str, Any] = event.fields
            if event.contract != "Market" or fields.get("solver") != self._chain.address:
                continue
            about = segment_name(SegmentKey(fields["job"], fields["segment"])) if "segment" in fields else ""
            if event.name == "Settled":
                price, fee = fields["price"], fields["fee"]
                self.agent.log.info("paid", about=about, price=price, fee=fee, pay=price - fee)
            elif event.name in _UNPAID:
                self.agent.log.warning("not paid", about=about, why=_UNPAID[event.name])

    def _show(self) -> None:
        seen, working = self._seen, self.agent.work.busy
        status: dict[str, object] = {
            "role": "solver",
            "address": seen.address,
            "block": seen.block,
            "tokens": seen.tokens,
            "stake": {"free": seen.free, "locked": seen.locked},
            "owed": seen.owed,
            "doing": f"{working.name} {working.about}" if isinstance(working, Action) else "waiting",
            "held": [
                {"job": s.key.job, "segment": s.key.index, "state": s.state.name.lower(), "until": s.until}
                | ({"audit": shown_audit(seen.rounds[s.key])} if s.key in seen.rounds else {})
                for s in self._held()
            ],
            "record": asdict(seen.record),
            "games": [
                {"game": game.id, "segment": game.key.index, "phase": game.phase.name.lower()}
                for game in self._games()
                if game.phase is not Phase.OVER
            ],
        }
        if self._last_run is not None:
            status["work"] = self._last_run.shown
        self.agent.show(**status)
