"""A small job with everything it needs, in a store, as it would stand on chain."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crowdtrain import tensors
from crowdtrain.chain import Address, Chain, Job, JobId, JobTerms, Segment, SegmentKey, SegmentState
from crowdtrain.game.sabotage import parse
from crowdtrain.jobs import load_job, publish_job
from crowdtrain.plan import Plan, chain
from crowdtrain.stores import FakeStore
from crowdtrain_engine import Dataset, Program, State, execute, merkle
from crowdtrain_engine.trace import Machine, Replay, seal, trace_root
from small_programs import perceptron, perceptron_data, perceptron_state

BUYER = Address("0x00000000000000000000000000000000000B0b01")
SOLVER = Address("0x00000000000000000000000000000000000A11CE")
STEPS, SEGMENTS, INTERVAL, PRICE = 5, 2, 2, 100
PAY = 98
"""the price without the fee"""


@dataclass(frozen=True)
class Sample:
    """Two segments of a perceptron's training."""

    store: FakeStore
    program: Program
    data: Dataset
    state: State
    plan: Plan
    manifest: str

    @property
    def job(self) -> Job:
        terms = JobTerms(
            plan_root=self.plan.root,
            initial_root=self.state.root,
            initial_groups=len(self.state),
            segments=len(self.plan.segments),
            escrow=self.plan.price,
            stake=50,
            lease=60,
            window=30,
            clock=120,
            audit_rate=0,
            audit_share=0,
            deadline=2_000_000_000,
        )
        return Job(JobId(1), BUYER, terms, 0, 0, 0, self.manifest)

    def after(self, steps: int) -> State:
        """The state after so many steps, by the reference interpreter."""
        return execute(self.program, self.state, self.data, steps=steps, backend="reference")[0]

    def committed(self, index: int, state: State) -> Segment:
        """Segment ``index`` with ``state`` committed and stored."""
        segment = open_segment(index)
        cid = tensors.save_state(self.store, state)
        return replace(
            segment,
            state=SegmentState.COMMITTED,
            group_roots=state.group_roots,
            output_root=state.root,
            cid=cid,
        )


def open_segment(index: int) -> Segment:
    """A segment that nobody has claimed."""
    zero = bytes(32)
    nobody = Address("0x" + "00" * 20)
    key = SegmentKey(JobId(1), index)
    return Segment(key, SegmentState.OPEN, nobody, 0, 0, 0, nobody, 0, nobody, 0, 0, zero, zero, zero, zero)


def sample(price: int = PRICE) -> Sample:
    """A fresh sample in a store of its own."""
    store = FakeStore()
    program, data, state = perceptron(STEPS), perceptron_data(STEPS), perceptron_state()
    plan = chain(program, data.root, segments=SEGMENTS, steps=STEPS, interval=INTERVAL, price=price)
    manifest = publish_job(store, plan, [program], [data], state)
    assert merkle.root(state.group_roots) == state.root
    return Sample(store, program, data, state, plan, manifest)


def claim(chain: Chain, given: Sample, key: SegmentKey) -> None:
    """Claims a segment of the sample's job as the chain's account."""
    files = load_job(chain, given.store, key.job)
    proofs = files.input_proofs(key.index, lambda index: chain.segment(SegmentKey(key.job, index)))
    chain.claim(key, files.spec(key.index), files.plan.proof(key.index), proofs)


def replay(given: Sample, index: int, cheat: str | None = None) -> Replay:
    """Segment ``index`` as it is run honestly, or with a way to cheat."""
    spec = given.plan.segments[index]
    first = sum(earlier.steps for earlier in given.plan.segments[:index])
    machine = Machine(
        given.program, given.data, backend="reference", deviation=parse(cheat) if cheat else None
    )
    return Replay.run(machine, given.after(first), steps=spec.steps, interval=spec.interval)


def commit(chain: Chain, given: Sample, key: SegmentKey, done: Replay) -> None:
    """Stores and commits what was run."""
    output = done.state_at(len(done.trace) - 1)
    sealed = seal(trace_root(done.trace), bytes.fromhex(chain.address[2:]))
    cid = tensors.save_state(given.store, output)
    chain.commit(key, done.trace[0], output.group_roots, sealed, cid)
