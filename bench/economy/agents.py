"""Who takes part: honest people, and each way to be dishonest. An agent may have several accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from crowdtrain._errors import Refused
from crowdtrain.chain import Game, GameId, Phase, SegmentState
from crowdtrain.economics import HALVING_PRICES
from crowdtrain.game import Move, attack, defend
from crowdtrain_engine import Dataset
from crowdtrain_engine.trace import Machine, Replay, seal, trace_root

from bench.economy.town import Account, Job, Terms, Town, Work

__all__ = [
    "Abandoner", "Agent", "Audited", "Auditor", "Copier", "Hider", "Liar", "Reporter", "Ring", "Silent", "Slanderer",
    "Solver", "Splitter", "Sybil",
]  # fmt: skip


@dataclass(kw_only=True)
class Audited(Work):
    """A commitment on its way through audit and disputes."""

    agent: Agent
    honest: bool = True
    rate: float = 0.0
    until: int = 0
    attest_until: int = 0
    drawn: list[tuple[Agent, Account]] = field(default_factory=list)
    copied: bytes = b""
    """the first attestation that others could see"""
    games: list[tuple[Agent, Account, GameId]] = field(default_factory=list)
    overturned: bool = False
    settled: bool = False


class Agent:
    """Somebody with money, and with a habit."""

    kind = "honest"
    role = "solver"
    settles = True
    """whether the trace root is shown in the end"""

    def __init__(self, town: Town, accounts: Sequence[Account]) -> None:
        self.town = town
        self.accounts = list(accounts)
        self.given = sum(account.wealth() for account in self.accounts)
        self.segments = 0
        """taken"""
        self.draws = 0
        self.caught = 0
        """times that stake, bond or penalty was lost"""
        self.worth = 0.0
        """profit after the last round, in prices"""
        self.chances: list[float] = []
        """that each of its lies is caught, as the model has it"""

    @property
    def kind_of_role(self) -> str:
        """Kind and role."""
        return f"{self.kind} {self.role}"

    @property
    def earned(self) -> int:
        """Token units more than at the beginning."""
        return sum(account.wealth() for account in self.accounts) - self.given

    # ---------------------------------------------------------------- as solver

    def take(self, account: Account, job: Job, index: int) -> Audited | None:
        """Claims and commits a segment; nothing if it only claims."""
        self.segments += 1
        self.town.claim(account, job, index)
        work = Audited(job, index, account, self.town.run(account, job, index), agent=self)
        self.town.commit(work)
        return work

    def dispute(self, work: Audited) -> None:
        """Plays all games about its commitment, with the others at the board; whoever stays silent is left to the
        clock."""
        for other, challenger, number in work.games:
            self._play(work, other, challenger, number)

    def _play(self, work: Audited, other: Agent, challenger: Account, number: GameId) -> None:
        while (game := challenger.game(number)).phase is not Phase.OVER:
            if self._is_moot(work):
                challenger.close(number)
                return
            move = defend(game, work.run)
            if move is not None:
                move.send(work.solver)
                continue
            answer = other.attack(game, work)
            if answer is None:
                return
            answer.send(challenger)

    def _is_moot(self, work: Audited) -> bool:
        segment = work.solver.segment(work.key)
        return segment.state is not SegmentState.COMMITTED or segment.attempt != work.attempt

    # ---------------------------------------------------------------- as auditor

    def audit(self, account: Account, work: Audited) -> None:
        """Is drawn: replays, then attests or challenges."""
        self._answer(account, work, self.town.run(account, work.job, work.index))

    def _answer(self, account: Account, work: Audited, replay: Replay) -> None:
        root = trace_root(replay.trace)
        if root == work.root:
            self.attest(account, work, root)
        else:
            self.challenge(account, work)

    def attest(self, account: Account, work: Audited, root: bytes) -> None:
        """Takes a seat, if there is one."""
        self.submit(account, work, seal(root, account.raw_address))

    def submit(self, account: Account, work: Audited, attestation: bytes) -> None:
        """Sends an attestation, whatever it is."""
        try:
            account.attest(work.key, work.attempt, work.seal, attestation)
        except Refused as refused:
            if refused.error != "SeatsTaken":
                raise
            return
        work.copied = work.copied or attestation

    def challenge(self, account: Account, work: Audited) -> None:
        """Begins a game."""
        number, _ = account.challenge(work.key, work.spec, work.seal)
        work.games.append((self, account, number))

    def attack(self, game: Game, work: Audited) -> Move | None:
        """The challenger's answer."""
        machine = Machine(self.town.program, Dataset.from_tensors({}), backend="reference")
        own = Replay.run(
            machine, work.job.states[work.index], steps=work.spec.steps, interval=work.spec.interval
        )
        return attack(game, own)


class Solver(Agent):
    """Computes what it commits."""


class Reporter(Agent):
    """Draws where no auditor did, and reports who was silent or attested something else."""

    kind, role = "reports", "reporter"


class Liar(Agent):
    """Commits what it did not compute, and defends it as well as it can."""

    kind = "lazy"

    def take(self, account: Account, job: Job, index: int) -> Audited | None:
        self.segments += 1
        self.town.claim(account, job, index)
        run = self.town.run(account, job, index, self.town.lie())
        work = Audited(job, index, account, run, agent=self, honest=False)
        self.town.commit(work)
        return work


class _SelfDisputer(Liar):
    """A liar who, once challenged, loses to an account of its own before the honest challenger can win."""

    def __init__(self, town: Town, accounts: Sequence[Account]) -> None:
        super().__init__(town, accounts)
        self.second = self.accounts[-1]

    def dispute(self, work: Audited) -> None:
        number, _ = self.second.challenge(work.key, work.spec, work.seal)
        game = self.second.game(number)
        wrong = [bytes(32)] * len(work.run.trace)
        work.solver.reveal_trace(number, game.position, wrong)
        for _, challenger, other in work.games:
            challenger.close(other)


class Ring(_SelfDisputer):
    """Solvers and auditors together: the auditors attest what their solvers tell them, unseen, and replay honestly
    what is others'. The accounts are solvers, then auditors, then one for disputes."""

    kind, role = "colluding", "solver and auditors"
    SOLVERS = 2

    def audit(self, account: Account, work: Audited) -> None:
        if work.solver in self.accounts:
            self.attest(account, work, work.root)
        else:
            super().audit(account, work)


class Sybil(_SelfDisputer):
    """Buys work from itself until its record is long, lies until it is caught, and begins again.
    The accounts are buyer and solver; the buyer disputes as well."""

    kind, role = "sybil", "buyer and solver"
    fees = 0
    """paid for the record"""

    def farm(self, terms: Terms) -> None:
        """One segment of one step at a high price, without audit and nearly without a window."""
        solver, buyer = self.accounts
        value = round(HALVING_PRICES * terms.price * (1 / terms.audit_rate - 1))
        if terms.audit_rate >= 1 or solver.record(solver.address).unbroken >= value:
            return
        wash = Terms(stake=0, audit_rate=0, audit_share=0, price=value, lease=600, window=2, clock=2)
        job = self.town.post(buyer, wash, 1, steps=1)
        self.town.claim(solver, job, 0)
        work = Audited(job, 0, solver, self.town.run(solver, job, 0), agent=self)
        solver.computed -= 1  # a step of eight words costs next to nothing
        self.town.commit(work)
        self.town.devnet.advance(4)
        solver.settle(work.key, work.spec, work.root)
        solver.withdraw()
        fee = solver.rules().fee(value)
        solver.transfer(buyer.address, value - fee)
        self.fees += fee


class Hider(Liar):
    """Commits, and never shows the trace root."""

    kind, role, settles = "hides its trace", "griefer", False


class Abandoner(Agent):
    """Claims, and lets the lease run out."""

    kind, role = "claims and abandons", "griefer"

    def take(self, account: Account, job: Job, index: int) -> Audited | None:
        self.segments += 1
        self.town.claim(account, job, index)
        return None


class Slanderer(Agent):
    """Challenges right work, and says nothing more."""

    kind, role = "false challenges", "griefer"

    def attack(self, game: Game, work: Audited) -> Move | None:
        return None


class Auditor(Agent):
    """Replays what it is drawn for."""

    role = "auditor"


class Silent(Auditor):
    """Does nothing."""

    kind = "silent"

    def audit(self, account: Account, work: Audited) -> None:
        pass


class Copier(Auditor):
    """Attests what another attested, or anything if nobody has."""

    kind = "copying"

    def audit(self, account: Account, work: Audited) -> None:
        self.submit(account, work, work.copied or sha256(account.raw_address).digest())


class Splitter(Auditor):
    """Honest, with its weight split over many accounts; one replay serves them all."""

    kind = "split weight"

    def __init__(self, town: Town, accounts: Sequence[Account]) -> None:
        super().__init__(town, accounts)
        self._last: tuple[object, Replay] | None = None

    def audit(self, account: Account, work: Audited) -> None:
        if self._last is None or self._last[0] is not work:
            self._last = (work, self.town.run(account, work.job, work.index))
        self._answer(account, work, self._last[1])
