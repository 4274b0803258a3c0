"""The verifier: looks at the chain, decides, acts; replays and moves are computed in threads."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crowdtrain.actions import Action, Answer, Exits, Expire, Load, Settle, Timeout, Void
from crowdtrain.agent import HOPELESS, Agent, job_name, segment_name
from crowdtrain.chain import Chain, Game, Job, JobId, Phase, Segment, SegmentKey, SegmentSpec, SegmentState
from crowdtrain.folders import Log
from crowdtrain.game import Move
from crowdtrain.runs import Hardware, RunId, Runs
from crowdtrain.shelf import Shelf
from crowdtrain.stores import Store
from crowdtrain.watch import ChainView, Watch

from crowdtrain_verifier.checks import Judge, Judgement
from crowdtrain_verifier.decide import (
    Challenge,
    Check,
    Close,
    Commitment,
    Policy,
    Verdict,
    View,
    commitment,
    decide,
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
        self._watch = Watch(chain, self._refuse, self._left_alone, self.agent.first_block)
        self._judgements: dict[Commitment, Judgement] = {}
        self._checked: Segment | None = None
        self._counts = dict.fromkeys(Verdict, 0)
        self._seen = ChainView(0, 0, chain.address, 0, 0, 0, 0)

    def turn(self) -> bool:
        """Looks, decides and acts once; whether to look again soon."""
        # moves are sent before the chain is looked at, so that none is decided upon twice
        collected = self.agent.collect(self._take)
        self._seen = self._watch.refresh()
        self.agent.record(self._seen.events)
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
            case Settle() | Expire() | Void():
                self._exits.take(action, self._spec(action.key))

    def _challenge(self, action: Challenge, key: SegmentKey, deposit: int) -> None:
        attempt, chain = self.agent.attempt, self._chain
        if deposit and not attempt(
            action.about, "bond deposited", partial(chain.deposit, deposit), amount=deposit
        ):
            return
        why = self._judgements[commitment(self._seen.segments[key])].why
        attempt(action.about, "challenged", partial(chain.challenge, key, self._spec(key)), why=why)

    def _spec(self, key: SegmentKey) -> SegmentSpec:
        return self._shelf.books[key.job].plan.segments[key.index]

    # -------------------------------------------------------------- in the threads, and what they bring

    def _check(self, segment: Segment, seen: ChainView) -> Judgement:
        return self._judge.judge(self._shelf.get(seen.jobs[segment.key.job]), segment, seen)

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
            "verdicts": {verdict.value: count for verdict, count in self._counts.items()},
            "games": [
                {"game": game.id, "segment": game.key.index, "phase": game.phase.name.lower()}
                for game in self._games()
            ],
        }
        if self._checked is not None:
            status["work"] = self._judge.run_of(self._checked).shown
        self.agent.show(**status)
