"""The side of a plan that merges: its programs, what it remembers, and how changes reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crowdtrain_engine import TensorType

from crowdtrain.optim.rule import Optimizer
from crowdtrain.strategies.blueprint import Either, Ref, Role
from crowdtrain.strategies.codecs import Codec, Exact
from crowdtrain.strategies.crew import BUFFERS, CLOCK, PARAMETERS, Team
from crowdtrain.strategies.programs import Written, change, encode, merge, receive

__all__ = ["ElasticMerging", "Merging"]


class Merging:
    """The side of a plan that merges one part of the parameters: its programs, and what it remembers."""

    def __init__(
        self,
        crew: Team,
        part: str,
        optimizer: Optimizer,
        *,
        codec: Codec | None = None,
        broadcast: Codec | None = None,
        gradients: str | None = None,
        sign: bool = False,
        decay: float = 1.0,
        members: Sequence[int] | None = None,
        weights: Sequence[int] = (),
    ) -> None:
        """``members`` are the workers that have the part: all, if they are not given. ``gradients`` is the group that
        they send instead of the part itself. ``weights`` are the steps that each takes in a round, where changes count
        by them."""
        self.crew = crew
        self.part = part
        self._types: Mapping[str, TensorType] = crew.types[part]
        self.members = tuple(range(crew.workers) if members is None else members)
        self._buffered = crew.buffers_of(part)
        self.buffers = crew.types[self._buffered] if self._buffered is not None else {}
        """those that are merged along with the part"""
        self._codec = codec
        self._broadcast = broadcast
        self._merge = merge(
            self._types, len(self.members), optimizer,
            codec=codec, broadcast=broadcast, sign=sign, buffers=self.buffers or None,
            weights=list(map(float, weights)), clocks=sorted(set(weights)),
        )  # fmt: skip
        self._gradients = gradients
        self._encode: Written | None = None
        self._receive = receive(self._types, broadcast) if broadcast else None
        self._decay = decay
        self._memory: dict[str, Ref] = {}
        """the merge's own groups: the optimizer's slots, counters"""
        self._quorum = 0
        """of what is gathered"""
        self._lost: dict[int, Ref] = {}
        self.bases = dict.fromkeys(self.members, crew.shared[part])
        """the part as each worker has received it last"""
        self._gathered: dict[str, Ref | Either] = {}
        """what the members have sent to the merge of this round"""

    def start(self, worker: int) -> dict[str, Ref]:
        """What a worker begins the next round with."""
        return {self.part: self.bases[worker]}

    def gather(self, worker: int, round_: int, out: Mapping[str, Ref]) -> None:
        """Sends what came out of a worker's training to the merge of the round."""
        place = self.members.index(worker)
        self._gathered[self._name(place)] = self._send(worker, round_, out[self._gradients or self.part])
        if self._buffered is not None:
            self._gathered[f"{BUFFERS}.{place}"] = out[self._buffered]

    def _name(self, place: int) -> str:
        return f"{'local' if self._codec is None else 'change'}.{place}"

    def _send(self, worker: int, round_: int, local: Ref) -> Ref:
        """What a worker's tensors, or its gradients, travel as: they themselves, or a code of their change."""
        if self._codec is None or (self._gradients and self._codec.is_exact):
            return local
        if self._gradients:
            self._encode = self._encode or change(self._types, self._codec, decay=self._decay)
            inputs = {"gradients": local}
        else:
            self._encode = self._encode or encode(self._types, self._codec, decay=self._decay)
            inputs = {"base": self.bases[worker], "local": local}
        if worker in self._lost:
            inputs["lost"] = self._lost[worker]
        # something for the group that becomes a code to begin as: words 0, the same for everybody
        inputs["code"] = self.crew.zeros(self._encode.program, "code")
        out = self.crew.apply(self._encode, inputs, Role("encode", round_, worker))
        if "lost" in out:
            self._lost[worker] = out["lost"]
        return out["code"]

    def merge(self, round_: int) -> dict[str, Ref]:
        """Merges what was gathered; what the members go on from is in ``crew.shared``, and in ``bases``. Gives all that
        came out."""
        crew, part = self.crew, self.part
        inputs = {**self._gathered, PARAMETERS: crew.shared[part], **self._memory}
        if self._buffered is not None:
            inputs[BUFFERS] = crew.shared[self._buffered]
        if self._broadcast is not None and "code" not in inputs:
            inputs["code"] = crew.zeros(self._merge.program, "code")
        out = crew.apply(self._merge, inputs, Role("merge", round_), quorum=self._quorum)
        passing = {PARAMETERS, BUFFERS, *self._gathered, *(("code",) if self._broadcast is not None else ())}
        self._memory = {name: ref for name, ref in out.items() if name not in passing}
        crew.shared[part] = out[PARAMETERS]
        if self._buffered is not None:
            crew.shared[self._buffered] = out[BUFFERS]
        if self._receive is None:
            self.bases = dict.fromkeys(self.members, out[PARAMETERS])
            return out
        for worker in self.members:
            base = {"base": self.bases[worker], "code": out["code"]}
            received = crew.apply(self._receive, base, Role("receive", round_, worker))
            self.bases[worker] = received["base"]
        return out


class ElasticMerging(Merging):
    """As :class:`Merging`, of programs that are clocked, but merges take any ``quorum`` of the members, or more if more
    are there when one is claimed.

    Who comes late adds the change to that of the next round. A change counts by the steps that it took.
    """

    def __init__(
        self,
        crew: Team,
        part: str,
        optimizer: Optimizer,
        *,
        quorum: int,
        steps: Sequence[int],
        codec: Codec | None = None,
        broadcast: Codec | None = None,
        decay: float = 1.0,
        members: Sequence[int] | None = None,
    ) -> None:
        """``steps`` are those that each member takes in a round."""
        codec = codec or Exact()
        super().__init__(
            crew, part, optimizer, codec=codec, broadcast=broadcast, decay=decay, members=members, weights=steps
        )  # fmt: skip
        self._offered = ("code", "weight", *((BUFFERS,) if self.buffers else ()))
        """what each member sends"""
        self._quorum = quorum * len(self._offered)
        self._steps = dict(zip(self.members, steps, strict=True))
        self._encodings = {
            count: encode(self._types, codec, decay=decay, weight=float(count), buffers=self.buffers or None)
            for count in set(steps)
        }
        program = self._encodings[steps[0]].program
        self._nothing = {name: crew.zeros(program, name) for name in ("code", "lost", "weight", "fresh")}
        self._kept = dict.fromkeys(self.members, (self._nothing, self._nothing))
        """what each member's last encoding left, and the one before it"""
        self._merged: dict[int, list[Ref]] = {worker: [] for worker in self.members}
        """the weights that the merges took from each member"""
        clock = crew.draft.begin(CLOCK, crew.layouts[self.members[0]].tensors[CLOCK])
        self._memory = {f"{CLOCK}.{count}": clock for count in steps}

    def start(self, worker: int) -> dict[str, Ref]:
        return {**super().start(worker), CLOCK: self._memory[f"{CLOCK}.{self._steps[worker]}"]}

    def gather(self, worker: int, round_: int, out: Mapping[str, Ref]) -> None:
        kept, before = self._kept[worker]
        before = {**before, "fresh": self._nothing["fresh"]}
        inputs: dict[str, Ref | Either] = {"base": self.bases[worker], "local": out[self.part]}
        inputs |= {name: Either(ref, before[name]) for name, ref in kept.items()}
        inputs |= dict(zip(("merged", "earlier"), reversed(self._merged[worker][-2:]), strict=False))
        otherwise = self._nothing
        if self._buffered is not None:
            inputs[BUFFERS] = out[self._buffered]
            otherwise = {**otherwise, BUFFERS: self.crew.shared[self._buffered]}
        sent = self.crew.apply(self._encodings[self._steps[worker]], inputs, Role("encode", round_, worker))
        self._kept[worker] = ({name: sent[name] for name in self._nothing}, kept)
        place = self.members.index(worker)
        for name in self._offered:
            target = self._name(place) if name == "code" else f"{name}.{place}"
            self._gathered[target] = Either(sent[name], otherwise[name])

    def merge(self, round_: int) -> dict[str, Ref]:
        out = super().merge(round_)
        for place, worker in enumerate(self.members):
            self._merged[worker].append(out[f"weight.{place}"])
        return out
