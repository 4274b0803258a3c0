"""The side of a plan that merges: its programs, what it remembers, and how changes reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crowdtrain_engine import TensorType

from crowdtrain.optim.rule import Optimizer
from crowdtrain.strategies.blueprint import Ref, Role
from crowdtrain.strategies.codecs import Codec
from crowdtrain.strategies.crew import BUFFERS, PARAMETERS, Team
from crowdtrain.strategies.programs import Written, change, encode, merge, receive

__all__ = ["Merging"]


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
        sign: bool = False,
        decay: float = 1.0,
        members: Sequence[int] | None = None,
    ) -> None:
        """``members`` are the workers that have the part: all, if they are not given."""
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
        )  # fmt: skip
        self._encode: Written | None = None
        self._receive = receive(self._types, broadcast) if broadcast else None
        self._decay = decay
        self._memory: dict[str, Ref] = {}
        """the merge's own groups: the optimizer's slots, counters"""
        self._lost: dict[int, Ref] = {}
        self.bases = dict.fromkeys(self.members, crew.shared[part])
        """the part as each worker has received it last"""

    def send(self, worker: int, round_: int, local: Ref) -> Ref:
        """What a worker's tensors, or its gradients, travel as: they themselves, or a code of their change."""
        if self._codec is None:
            return local
        if self._encode is None:
            self._encode = encode(self._types, self._codec, decay=self._decay)
        return self._sent(self._encode, {"base": self.bases[worker], "local": local}, worker, round_)

    def send_gradients(self, worker: int, round_: int, gradients: Ref) -> Ref:
        """As :meth:`send`, for gradients."""
        assert self._codec is not None
        if self._codec.is_exact:
            return gradients
        if self._encode is None:
            self._encode = change(self._types, self._codec, decay=self._decay)
        return self._sent(self._encode, {"gradients": gradients}, worker, round_)

    def _sent(self, written: Written, inputs: dict[str, Ref], worker: int, round_: int) -> Ref:
        if worker in self._lost:
            inputs["lost"] = self._lost[worker]
        inputs["code"] = self._code_before(written)
        out = self.crew.apply(written, inputs, Role("encode", round_, worker))
        if "lost" in out:
            self._lost[worker] = out["lost"]
        return out["code"]

    def _code_before(self, written: Written) -> Ref:
        """Something for the group that becomes a code to begin as: words 0, the same for everybody."""
        return self.crew.zeros(written.program, "code")

    def merge(self, round_: int, sent: Sequence[Ref], buffers: Sequence[Ref] = ()) -> None:
        """Merges what the members sent; what they go on from is in ``crew.shared``, and in ``bases``."""
        crew, part = self.crew, self.part
        kind = "local" if self._codec is None else "change"
        inputs = {f"{kind}.{k}": ref for k, ref in enumerate(sent)}
        if self._buffered is not None:
            inputs |= {BUFFERS: crew.shared[self._buffered]}
            inputs |= {f"{BUFFERS}.{k}": ref for k, ref in enumerate(buffers)}
        inputs[PARAMETERS] = crew.shared[part]
        inputs |= self._memory
        if self._broadcast is not None and "code" not in inputs:
            inputs["code"] = crew.zeros(self._merge.program, "code")
        out = crew.apply(self._merge, inputs, Role("merge", round_))
        lost = ("code",) if self._broadcast is not None else ()
        passing = {PARAMETERS, BUFFERS, *lost, *(name for name in out if "." in name)}
        self._memory = {name: ref for name, ref in out.items() if name not in passing}
        crew.shared[part] = out[PARAMETERS]
        if self._buffered is not None:
            crew.shared[self._buffered] = out[BUFFERS]
        if self._receive is None:
            self.bases = dict.fromkeys(self.members, out[PARAMETERS])
            return
        for worker in self.members:
            inputs = {"base": self.bases[worker], "code": out["code"]}
            received = crew.apply(self._receive, inputs, Role("receive", round_, worker))
            self.bases[worker] = received["base"]
