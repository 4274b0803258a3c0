"""The verifier: looks at the chain, decides, acts; replays and moves are computed in threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from crowdtrain.actions import (
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
    Address,
    Chain,
    ChainEvent,
    Game,
    Job,
    JobId,
    Outcome,
    Phase,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
)
from crowdtrain.folders import Log
from crowdtrain.game import Move
from crowdtrain.runs import Hardware, RunId, Runs
from crowdtrain.shelf import Shelf
from crowdtrain.stores import Store
from crowdtrain.watch import ChainView, Watch, shown_audit
from crowdtrain_engine.trace import seal

from crowdtrain_verifier.checks import Judge, Judgement, faulty
from crowdtrain_verifier.decide import (
    PUNISH_GAS,
    Attempt,
    Attest,
    Challenge,
    Check,
    Close,
    Commitment,
    Draw,
    Enroll,
    Inspect,
    Policy,
    Punish,
    Verdict,
    View,
    commitment,
    decide,
    is_worth,
)

__all__ = ["Verifier"]

MAX_SEGMENTS = 4096


class Verifier:
    """A verifier's process, turn by turn. ``folder`` keeps its replays."""

    def __init__(
        self, folder: Path, log: Log, chain: Chain, store: Store, policy: Policy, hardware: Hardware
    ) -> None:
        self.agent: Agent[Action] = Agent(folder, chain.address, log)
        self._chain = chain
        self._policy = policy
        self._exits = Exits(self.agent, chain)
        self._shelf = Shelf(store, hardware.memory)
        self._runs = Runs(folder / "runs")
        self._judge = Judge(self._runs, hardware, self.agent.gate)
        self._watch = Watch(chain, self._refuse, self._left_alone, self.agent.first_block, audits=True)
        self._judgements: dict[Commitment, Judgement] = {}
        self._checked: Segment | None = None
        self._ended: set[Attempt] = set()
        self._faults: dict[Attempt, tuple[Address, ...]] = {}
        self._counts = dict.fromkeys(Verdict, 0)
        self._seen = ChainView(0, 0, chain.address, 0, 0, 0, 0)

    def turn(self) -> bool:
        """Looks, decides and acts once; whether to look again soon."""
        # moves are sent before the chain is looked at, so that none is decided upon twice
        collected = self.agent.collect(self._take)
        self._seen = self._watch.refresh()
        self.agent.record(self._seen.events)
        self._note(self._seen.events)
        self._tidy()
        actions = decide(self._view(), self._policy)
        for action in actions:
            self._act(action)
            if self.agent.moves.done:
                break  # a clock is running: the move goes first
        self._show()
        return collected or bool(actions) or bool(self._games())

    def close(self) -> None:
        """Ends the threads."""
        self.agent.close()

    def _view(self) -> View:
        return View(
            chain=self._seen,
            books=self._shelf.books,
            verdicts={which: judgement.verdict for which, judgement in self._judgements.items()},
            changed=frozenset(self._exits.changed),
            ended=frozenset(self._ended),
            faults=dict(self._faults),
            gas_price=self._chain.gas_price() if self._policy.ether else 0,
            resting=self.agent.resting.keys,
            working=self.agent.work.busy is not None,
            answering=self.agent.moves.busy is not None,
        )

    def _games(self) -> list[Game]:
        games = self._seen.games.values()
        return [g for g in games if g.challenger == self._chain.address and g.phase is not Phase.OVER]

    # -------------------------------------------------------------- acting

    def _act(self, action: Action) -> None:
        attempt, chain = self.agent.attempt, self._chain
        match action:
            case Load(job):
                job_record = self._seen.jobs[job]
                self.agent.work.start(action, partial(self._shelf.get, job_record))
            case Check(key):
                self._checked = self._seen.segments[key]
                self.agent.work.start(action, partial(self._check, self._checked, self._seen))
            case Answer(game):
                seen = self._seen.games[game]
                judgement = self._judgements[commitment(self._seen.segments[seen.key])]
                self.agent.moves.start(action, partial(judgement.answer, seen))
            case Challenge(key, deposit):
                self._challenge(action, key, deposit)
            case Close(game):
                attempt(action.about, "bond taken back", partial(chain.close, game))
            case Timeout(game):
                attempt(action.about, "ended by the clock", partial(chain.timeout, game))
            case Settle() | Expire() | Void() | Forfeit():
                self._exits.take(action, self._spec(action.key), self._trace_root(action.key))
            case Attest(key):
                self._attest(action, self._seen.segments[key])
            case Draw(key):
                call = partial(chain.draw, key, self._seen.segments[key].attempt)
                attempt(action.about, "auditors drawn", call)
            case Enroll(amount, deposit):
                call = partial(chain.enroll, amount)
                self.agent.attempt_with(
                    deposit, chain, action.about, "enrolled as auditor", call, amount=amount
                )
            case Inspect(key, number):
                self.agent.work.start(action, partial(self._inspect, key, number))
            case Punish(key, number, auditor):
                attempt(action.about, "auditor reported", partial(chain.punish, key, number, auditor))
                self._faults = _without(self._faults, (key, number), auditor)
            case Withdraw():
                attempt(action.about, "withdrew", chain.withdraw, amount=self._seen.owed)

    def _attest(self, action: Attest, segment: Segment) -> None:
        attestation = seal(self._trace_root(segment.key), bytes.fromhex(self._chain.address[2:]))
        which = (segment.key, segment.attempt, segment.seal)
        call = partial(self._chain.attest, *which, attestation)
        self.agent.attempt(action.about, "attested", call)

    def _trace_root(self, key: SegmentKey) -> bytes:
        """Root of the trace of a commitment that was judged right; else NONE."""
        judgement = self._judgements.get(commitment(self._seen.segments[key]))
        return NONE if judgement is None else judgement.trace_root

    def _challenge(self, action: Challenge, key: SegmentKey, deposit: int) -> None:
        segment = self._seen.segments[key]
        why = self._judgements[commitment(segment)].why
        call = partial(self._chain.challenge, key, self._spec(key), segment.seal)
        self.agent.attempt_with(deposit, self._chain, action.about, "challenged", call, why=why)

    def _spec(self, key: SegmentKey) -> SegmentSpec:
        return self._shelf.books[key.job].plan.segments[key.index]

    # -------------------------------------------------------------- in the threads, and what they bring

    def _check(self, segment: Segment, seen: ChainView) -> Judgement:
        return self._judge.judge(self._shelf.get(seen.jobs[segment.key.job]), segment, seen)

    def _inspect(self, key: SegmentKey, attempt: int) -> tuple[Address, ...]:
        audit = self._chain.round(key, attempt)
        gas_price = self._chain.gas_price() if self._policy.ether else 0
        worth = is_worth(audit.penalty // 2, PUNISH_GAS, gas_price, self._policy)
        return faulty(self._chain, key, attempt, audit) if worth else ()

    def _take(self, action: Action, result: object) -> None:
        match action, result:
            case Answer(), Move():
                call = partial(result.send, self._chain)
                self.agent.attempt(action.about, f"move: {result.call}", call, pause=action.pause)
                return
            case Answer(), _:
                self.agent.resting.put(action.about, "there is nothing to answer", HOPELESS)
                self.agent.log.error("no answer", about=action.about)
                return
            case Check(), Judgement() if self._checked is not None:
                self._enter(self._checked, result)
            case Inspect(key, number), tuple():
                self._ended.discard((key, number))
                if result:
                    self._faults[key, number] = result
        self.agent.resting.clear(action.about)

    def _enter(self, segment: Segment, judgement: Judgement) -> None:
        """Notes what was found of a commitment."""
        verdict = judgement.verdict
        self._judgements[commitment(segment)] = judgement
        self._counts[verdict] += 1
        if verdict is Verdict.RIGHT:
            self._judge.run_of(segment).forget_states()
        write = self.agent.log.info if verdict is Verdict.RIGHT else self.agent.log.warning
        write(f"judged {verdict}", about=segment_name(segment.key), why=judgement.why, solver=segment.solver)

    # -------------------------------------------------------------- keeping order

    def _note(self, events: Sequence[ChainEvent]) -> None:
        """Notes settled attempts, whose auditors are to be looked at."""
        for event in events if self._policy.tidy else ():
            fields: Mapping[str, Any] = event.fields
            if event.name == "Ended" and fields["outcome"] == Outcome.SETTLED:
                self._ended.add((SegmentKey(JobId(fields["job"]), fields["segment"]), fields["attempt"]))

    def _refuse(self, job: Job) -> str | None:
        segments, stake = job.terms.segments, job.terms.stake
        if self._policy.jobs and job.id not in self._policy.jobs:
            return "it is not one of the jobs that were chosen"
        if segments > MAX_SEGMENTS:
            return f"it has {segments} segments, at most {MAX_SEGMENTS} are followed"
        if stake > self._policy.max_stake:
            return f"a dispute takes a bond of {stake}, at most {self._policy.max_stake} is allowed"
        return None

    def _left_alone(self, job: JobId, reason: str) -> None:
        self.agent.log.info("job left alone", about=job_name(job), reason=reason)

    def _tidy(self) -> None:
        """Ends replays that nobody needs any more, and deletes what is no longer needed."""
        seen, checking = self._seen, self.agent.work.busy
        checked = self._checked if isinstance(checking, Check) else None
        if checked is not None:
            self._judge.run_of(checked).cancelled = not self._is_pending(checked)
        present = {commitment(segment) for segment in seen.segments.values()}
        self._judgements = {which: found for which, found in self._judgements.items() if which in present}
        for run in self._runs:
            segment = seen.segments.get(run.key)
            if segment is None or (checked and checked.key == run.key):
                continue
            other = segment.state is SegmentState.COMMITTED and RunId.of(segment) != run.id
            if segment.state is SegmentState.SETTLED or other:
                self._runs.drop(run)
        if checking is None:
            disputed = {game.key.job for game in self._games()}
            self._shelf.trim(disputed, seen.jobs.keys())

    def _is_pending(self, checked: Segment) -> bool:
        """Whether a verdict on a commitment could still change something."""
        segment = self._seen.segments.get(checked.key)
        if segment is None or commitment(segment) != commitment(checked):
            return False
        return self._seen.now <= segment.until or any(g.key == segment.key for g in self._games())

    # -------------------------------------------------------------- what people see

    def _show(self) -> None:
        seen, working = self._seen, self.agent.work.busy
        status: dict[str, object] = {
            "role": "verifier",
            "address": seen.address,
            "block": seen.block,
            "tokens": seen.tokens,
            "stake": {"free": seen.free, "locked": seen.locked},
            "doing": f"{working.name} {working.about}" if working else "waiting",
            "owed": seen.owed,
            "enrolled": seen.weight,
            "audits": [
                {"job": key.job, "segment": key.index, "attested": key in seen.attested, **shown_audit(audit)}
                for key, audit in seen.rounds.items()
                if key in seen.drawn
            ],
            "record": asdict(seen.record),
            "verdicts": {verdict.value: count for verdict, count in self._counts.items()},
            "games": [
                {"game": game.id, "segment": game.key.index, "phase": game.phase.name.lower()}
                for game in self._games()
            ],
        }
        if self._checked is not None:
            status["work"] = self._judge.run_of(self._checked).shown
        self.agent.show(**status)


def _without(
    faults: Mapping[Attempt, tuple[Address, ...]], which: Attempt, auditor: Address
) -> dict[Attempt, tuple[Address, ...]]:
    left = tuple(other for other in faults[which] if other != auditor)
    return {other: found for other, found in {**faults, which: left}.items() if found}
