"""Following a chain: what is read again, what is left alone, and what a reorganisation does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from crowdtrain._errors import BadAnswer, ChainUnavailable, Refused
from crowdtrain.chain import ChainEvent, Game, GameId, GroupProof, Job, JobId, SegmentKey, SegmentState
from crowdtrain.fakes import FakeChain
from crowdtrain.watch import Book, Watch
from crowdtrain_engine import merkle
from small_jobs import SEGMENTS, Sample, sample

FIRST = SegmentKey(JobId(1), 0)


class Town:
    """A fake chain with one job, and the account that watches it."""

    def __init__(self) -> None:
        self.given: Sample = sample()
        self.buyer = FakeChain("0x" + "b0" * 20)
        self.buyer.mint(10_000)
        self.chain = self.buyer.as_account("0x" + "11" * 20)
        self.chain.mint(1_000)
        self.post()

    def post(self, **changes: object) -> None:
        self.buyer.post(replace(self.given.job.terms, **changes), self.given.manifest)  # type: ignore[arg-type]

    @property
    def book(self) -> Book:
        return Book(self.given.plan, self.given.state.group_roots)

    def claim(self) -> None:
        roots = self.given.state.group_roots
        inputs = [GroupProof(root, tuple(merkle.Tree(roots).proof(i))) for i, root in enumerate(roots)]
        self.chain.deposit(self.given.job.terms.stake)
        self.chain.claim(FIRST, self.given.plan.segments[0], self.given.plan.proof(0), inputs)


def everything(job: Job) -> str | None:
    return None


def test_what_happens_is_seen() -> None:
    town = Town()
    watch = Watch(town.chain, everything)
    view = watch.refresh()
    assert [segment.state for segment in view.segments_of(JobId(1))] == [SegmentState.OPEN] * SEGMENTS
    assert (view.tokens, view.free, view.locked) == (1_000, 0, 0)
    town.claim()
    view = watch.refresh()
    assert view.segments[FIRST].state is SegmentState.CLAIMED
    assert view.jobs[JobId(1)].reserved == view.segments[FIRST].price
    assert (view.free, view.locked) == (0, town.given.job.terms.stake)
    assert [event.name for event in view.events if event.name == "Claimed"] == ["Claimed"]
    assert watch.refresh().events == ()
    town.post()
    assert JobId(2) in watch.refresh().jobs


def test_inputs_are_those_of_the_sources_as_they_stand() -> None:
    town = Town()
    watch = Watch(town.chain, everything)
    view = watch.refresh()
    assert view.input_root(town.book, FIRST) == town.given.state.root
    assert view.input_root(town.book, SegmentKey(JobId(1), 1)) is None
    town.claim()
    output = town.given.after(3)
    town.chain.commit(FIRST, town.given.state.root, output.group_roots, bytes(32), "cid")
    view = watch.refresh()
    assert view.input_root(town.book, SegmentKey(JobId(1), 1)) == output.root
    proofs = view.inputs(town.book, SegmentKey(JobId(1), 1))
    assert proofs is not None
    for group, proof in enumerate(proofs):
        assert merkle.verify(output.root, proof.root, group, proof.proof)


def test_a_refused_job_is_left_alone_and_told_once() -> None:
    town = Town()
    told: list[tuple[JobId, str]] = []
    watch = Watch(town.chain, lambda job: "too cheap", lambda *what: told.append(what))
    assert watch.refresh().jobs == {}
    town.claim()
    assert watch.refresh().segments == {}
    assert told == [(JobId(1), "too cheap")]


def test_a_finished_job_is_forgotten() -> None:
    town = Town()
    watch = Watch(town.chain, everything)
    watch.refresh()
    town.buyer.advance(2**41)
    for _ in range(20):
        town.buyer.advance(1)
    assert watch.refresh().jobs == {}


class Moody(FakeChain):
    """A chain whose node fails in ways that tests choose."""

    failing: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    """names of events that are not told"""

    def segment(self, key: SegmentKey):  # type: ignore[no-untyped-def]
        if "segment" in self.failing:
            raise ChainUnavailable("no node answers")
        return super().segment(key)

    def game(self, game: GameId) -> Game:
        if "game" in self.failing:
            raise Refused("game", "UnknownGame", {"game": game})
        return super().game(game)

    def job(self, job: JobId) -> Job:
        if "job" in self.failing:
            raise BadAnswer("a job without sense")
        return super().job(job)

    def events(self, first_block: int, last_block: int) -> list[ChainEvent]:
        return [event for event in super().events(first_block, last_block) if event.name not in self.hidden]


def moody(town: Town) -> Moody:
    return Moody(town.chain.address, world=town.chain._world)


def test_what_could_not_be_read_is_read_the_next_time() -> None:
    town = Town()
    chain = moody(town)
    watch = Watch(chain, everything)
    watch.refresh()
    town.claim()
    chain.failing = frozenset({"segment"})
    with pytest.raises(ChainUnavailable):
        watch.refresh()
    chain.failing = frozenset()
    assert watch.refresh().segments[FIRST].state is SegmentState.CLAIMED


def test_a_job_that_makes_no_sense_does_not_hide_the_others() -> None:
    town = Town()
    chain = moody(town)
    chain.failing = frozenset({"job"})
    told: list[JobId] = []
    watch = Watch(chain, everything, lambda job, reason: told.append(job))
    assert watch.refresh().jobs == {}
    chain.failing = frozenset()
    town.post()
    assert list(watch.refresh().jobs) == [JobId(2)]
    assert told == [JobId(1)]


def test_an_event_that_vanishes_makes_its_segment_be_read_again() -> None:
    """After a reorganisation the contracts' state counts, and not what was read before."""
    town = Town()
    chain = moody(town)
    watch = Watch(chain, everything)
    watch.refresh()
    town.claim()
    assert watch.refresh().segments[FIRST].state is SegmentState.CLAIMED
    world = chain._world
    world.segments[FIRST] = replace(world.segments[FIRST], state=SegmentState.OPEN)
    chain.hidden = frozenset({"Claimed"})
    town.buyer.advance(1)
    assert watch.refresh().segments[FIRST].state is SegmentState.OPEN


def test_a_dispute_that_vanishes_is_forgotten() -> None:
    town = Town()
    chain = moody(town)
    watch = Watch(chain, everything)
    town.claim()
    town.chain.commit(FIRST, town.given.state.root, town.given.after(3).group_roots, bytes(32), "cid")
    town.buyer.deposit(town.given.job.terms.stake)
    town.buyer.challenge(FIRST, town.given.plan.segments[0], bytes(32))
    view = watch.refresh()
    assert [game.attempt for game in view.games_of(view.segments[FIRST])] == [0]
    chain.failing, chain.hidden = frozenset({"game"}), frozenset({"Challenged"})
    town.buyer.advance(1)
    assert watch.refresh().games == {}


def names(events: Sequence[ChainEvent]) -> list[str]:
    return [event.name for event in events]


def test_events_are_told_from_the_block_that_was_asked_for() -> None:
    town = Town()
    for _ in range(30):
        town.buyer.advance(1)
    assert "Posted" not in names(Watch(town.chain, everything).refresh().events)
    assert "Posted" in names(Watch(town.chain, everything, first_block=1).refresh().events)
