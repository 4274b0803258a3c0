"""Judging a commitment: one's own run beside it, and the Referee's arithmetic before any bond is paid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from crowdtrain._errors import PlanError, StoreError
from crowdtrain.agent import Gate
from crowdtrain.chain import NONE, Address, Chain, Game, Round, Segment, SegmentKey, SegmentSpec
from crowdtrain.game import CHALLENGER_PHASES, Flaw, Move, attack, find_flaw, spot_check, worth_challenging
from crowdtrain.jobs import JobFiles
from crowdtrain.runs import Appraisal, Hardware, Run, RunId, Runs, Unaffordable
from crowdtrain.watch import ChainView
from crowdtrain_engine import ProgramError
from crowdtrain_engine.trace import Replay, seal, trace_root

from crowdtrain_verifier.decide import Verdict

__all__ = ["Judge", "Judgement", "faulty"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, with what a dispute is played from: one's own run, or the flaw of the program."""

    verdict: Verdict
    why: str
    replay: Replay | None = None
    flaw: Flaw | None = None
    trace_root: bytes = NONE
    """of one's own run, if the commitment is right"""

    def answer(self, game: Game) -> Move | None:
        """The challenger's next move, or None if there is none."""
        if self.flaw is not None:
            return self.flaw.prove(game) if game.phase in CHALLENGER_PHASES else None
        return None if self.replay is None else attack(game, self.replay)


def faulty(chain: Chain, key: SegmentKey, attempt: int, audit: Round) -> tuple[Address, ...]:
    """Auditors, but for oneself, who were silent about a settled attempt, or attested another trace."""
    found, attestors = [], chain.attestors(key, attempt)
    for auditor in attestors:
        right = seal(audit.trace_root, bytes.fromhex(auditor[2:]))
        if chain.attestation(key, attempt, auditor) != right:
            found.append(auditor)
    if audit.is_drawn_in_time and audit.attestations < audit.seats:
        silent = [auditor for auditor in chain.auditors() if auditor not in attestors]
        found += [auditor for auditor in silent if chain.is_drawn(key, attempt, auditor)]
    return tuple(auditor for auditor in found if auditor != chain.address)


class Judge:
    """Judges commitments by runs of one's own, which are kept in ``runs``."""

    def __init__(self, runs: Runs, hardware: Hardware, gate: Gate) -> None:
        self._runs = runs
        self._hardware = hardware
        self._gate = gate
        self._rates: dict[bytes, float] = {}
        """steps a second, by program root, where they were measured"""

    def run_of(self, segment: Segment) -> Run:
        """One's own run of a commitment."""
        return self._runs.get(RunId.of(segment))

    def judge(self, files: JobFiles, segment: Segment, seen: ChainView) -> Judgement:
        """Runs the segment, on from the last checkpoint, and compares. For a thread of its own.

        Raises what the store raises, Unaffordable if the replay needs too much, PlanError if the segment's inputs
        have changed, and ProgramError for a program that is invalid in a way that cannot be proved.
        """
        index = segment.key.index
        try:
            program = files.program(index)
        except ProgramError as error:
            flaw = find_flaw(files.leaves(index))
            if flaw is None:
                raise
            return Judgement(Verdict.INVALID, str(error), flaw=flaw)
        run = self.run_of(segment)
        if not run.complete:
            self._check_cost(Appraisal.of(program, self._hardware), files.spec(index), segment, seen)
            run.prepare(files, seen.of_job(segment.key.job))
            run.execute(files, self._hardware, self._gate.wait)
        if run.progress and run.progress.rate:
            self._rates[program.root] = run.progress.rate
        replay = run.replay(files, self._hardware, self._gate.check)
        if not worth_challenging(replay, segment.solver, segment.group_roots, segment.seal):
            why = "output and trace are those of one's own run"
            return Judgement(Verdict.RIGHT, why, trace_root=trace_root(replay.trace))
        last = replay.steps - 1
        wrong = [*spot_check(replay, 0), *spot_check(replay, last), *_disputed(files, segment, replay)]
        if wrong:
            return Judgement(Verdict.DOUBTFUL, f"one's own words of nests {sorted(set(wrong))} are wrong")
        what = "output" if segment.group_roots != run.group_roots else "trace"
        return Judgement(Verdict.WRONG, f"its {what} is not that of one's own run", replay=replay)

    def _check_cost(self, appraisal: Appraisal, spec: SegmentSpec, segment: Segment, seen: ChainView) -> None:
        appraisal.check(spec, self._hardware, self._runs.size)
        rate = self._rates.get(spec.program_root)
        needed = spec.steps / rate if rate else spec.steps * appraisal.seconds
        left = segment.until - seen.now
        if needed > left and not segment.games:
            raise Unaffordable(f"its replay takes about {needed:.0f} s, the window ends in {left} s")


def _disputed(files: JobFiles, segment: Segment, replay: Replay) -> list[int]:
    """Nests of the last step whose word, where the solver's output differs first, one's own run has wrong.

    Empty if the solver's output is not to be had, or does not differ.
    """
    try:
        theirs = files.load_output(segment.key.index, segment)
    except (StoreError, PlanError):
        return []
    step, program = replay.step(replay.steps - 1), replay.program
    for tensor, value in zip(theirs.tensors, program.next, strict=True):
        ours = step.values[value]
        differing = np.flatnonzero(tensor.reshape(-1).view(np.uint32) != ours)
        if differing.size and value >= program.first_nest:
            word = int(differing[0])
            fold = program.nests[value - program.first_nest].fold_length
            right = step.accumulators(value, word, [fold])[0]
            return [] if right == int(ours[word]) else [value - program.first_nest]
    return []
