"""What happens, for people who watch: live on a terminal, line by line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from crowdtrain_engine import Program
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crowdtrain.chain import Address, ChainEvent, Game, GameId, Segment, SegmentState
from crowdtrain.game.narration import narrate
from crowdtrain.watch import ChainView

__all__ = ["Account", "Screen", "money"]

_STATES = {
    SegmentState.OPEN: ("open", "dim"),
    SegmentState.CLAIMED: ("training", "yellow"),
    SegmentState.COMMITTED: ("committed", "cyan"),
    SegmentState.SETTLED: ("settled", "green"),
}
_DISPUTE_LINES = 18
_EVENT_LINES = 10
UNIT = 10**18


def money(amount: int) -> str:
    """Token units as tokens, with two digits."""
    return f"{amount / UNIT:,.2f}"


@dataclass(frozen=True, slots=True)
class Account:
    """What an account has, in token units, and what its process says of itself."""

    name: str
    tokens: int
    free: int
    locked: int
    owed: int
    status: Mapping[str, object] = field(default_factory=dict)


class Screen:
    """Shows one job. ``program`` is that of a segment, ``names`` says what to call an account."""

    def __init__(
        self, console: Console, program: Callable[[int], Program], names: Mapping[Address, str]
    ) -> None:
        self._console = console
        self._program = program
        self._names = names
        self._live = (
            Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        )
        self._started = time.monotonic()
        self._events: list[str] = []
        self._told: dict[GameId, int] = {}
        self._dispute: list[str] = []
        self._progress: dict[tuple[str, int], tuple[int, float]] = {}

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(
        self,
        view: ChainView,
        segments: Sequence[Segment],
        accounts: Sequence[Account],
        moved: Sequence[Game],
    ) -> None:
        """Shows the chain as it stands, what is new in ``view.events``, and the disputes that moved."""
        for event in view.events:
            line = self._tell(event)
            if line:
                self._say(self._events, line)
        for game in moved:
            self._tell_game(game)
        for account in accounts:
            work = account.status.get("work")
            if isinstance(work, Mapping) and isinstance(work.get("loss"), float):
                done = _int(work.get("step")), float(work["loss"])
                self._progress[account.name, _int(work.get("segment"))] = done
        if self._live:
            self._live.update(self._render(view, segments, accounts))

    def say(self, line: str) -> None:
        """Adds a line to the events."""
        self._say(self._events, line)

    def _say(self, lines: list[str], line: str) -> None:
        elapsed = time.monotonic() - self._started
        lines.append(f"{elapsed:5.1f}s  {line}")
        if not self._live:
            self._console.print(lines[-1], highlight=False, markup=False, soft_wrap=True)

    def _tell_game(self, game: Game) -> None:
        known = self._told.get(game.id, 0)
        for line in narrate(game, self._program(game.key.index))[known:]:
            self._say(self._dispute, f"dispute {game.id}: {line}")
        self._told[game.id] = len(game.history)

    def name(self, address: object) -> str:
        """What to call an account."""
        return self._names.get(Address(str(address)), str(address))

    def _tell(self, event: ChainEvent) -> str | None:
        if event.contract == "Emission":
            return None
        f = event.fields
        who = {
            key: self.name(f[key])
            for key in ("solver", "buyer", "challenger", "account", "winner", "auditor")
            if key in f
        }
        segment = f"segment {f.get('segment')}"
        match event.name:
            case "Posted":
                return f"{who['buyer']} posts job {f['job']}"
            case "Claimed":
                return f"{segment}: {who['solver']} claims it"
            case "Committed":
                return f"{segment}: {who['solver']} commits its result"
            case "Settled":
                price, fee = _int(f["price"]), _int(f["fee"])
                return (
                    f"{segment}: settled, {money(price - fee)} for {who['solver']}, {money(fee)} are burned"
                )
            case "Attested":
                return f"{segment}: {who['auditor']} was drawn as auditor, has run it again, and attests under seal"
            case "Audited":
                return f"{segment}: {who['auditor']} attested right, and gets {money(_int(f['amount']))}"
            case "Forfeited":
                return (
                    f"{segment}: {who['solver']} did not reveal its trace root in time, and loses the stake"
                )
            case "Expired":
                return f"{segment}: the lease of {who['solver']} ran out"
            case "Overturned":
                return f"{segment}: the work of {who['solver']} is overturned by {who['challenger']}"
            case "Voided":
                return f"{segment}: the work of {who['solver']} is void, it was built on overturned work"
            case "Slashed":
                amount, bounty = _int(f["amount"]), _int(f["bounty"])
                return (
                    f"{who['account']} loses {money(amount)} of stake: {money(bounty)} go to "
                    f"{who['winner']}, {money(amount - bounty)} are burned"
                )
            case "Challenged":
                return f"{segment}: {who['challenger']} challenges {self.name(f['defender'])}"
            case "Refunded":
                return f"{who['buyer']} gets {money(_int(f['amount']))} back"
        return None

    # ---------------------------------------------------------------- the terminal

    def _render(
        self, view: ChainView, segments: Sequence[Segment], accounts: Sequence[Account]
    ) -> RenderableType:
        elapsed = int(time.monotonic() - self._started)
        settled = sum(segment.state is SegmentState.SETTLED for segment in segments)
        head = Table.grid(expand=True)
        head.add_column(ratio=1)
        head.add_column(ratio=1)
        clock = f"{elapsed // 60}:{elapsed % 60:02}"
        head.add_row(
            Text(f" {clock}   block {view.block}   {settled} of {len(segments)} segments settled"),
            ProgressBar(total=len(segments), completed=settled),
        )
        tables = Table.grid(expand=True, padding=(0, 1))
        tables.add_column(ratio=5)
        tables.add_column(ratio=6)
        tables.add_row(self._segments(segments), self._accounts(accounts))
        parts: list[RenderableType] = [head, tables]
        if self._dispute:
            lines = Text("\n".join(self._dispute[-_DISPUTE_LINES:]))
            parts.append(Panel(lines, title="the dispute, move by move", border_style="red"))
        parts.append(Panel(Text("\n".join(self._events[-_EVENT_LINES:])), title="events", border_style="dim"))
        return Group(*parts)

    def _segments(self, segments: Sequence[Segment]) -> Table:
        table = Table(title="segments", expand=True, title_style="bold", padding=(0, 1))
        for column in ("#", "state", "solver", "loss", "disputes"):
            table.add_column(column, no_wrap=True)
        for segment in segments:
            word, style = _STATES[segment.state]
            solver = self.name(segment.solver) if segment.state is not SegmentState.OPEN else ""
            progress = self._progress.get((solver, segment.key.index))
            if segment.state is SegmentState.CLAIMED and progress:
                word = f"step {progress[0]}"
            shown = f"{progress[1]:.4f}" if progress else ""
            games = str(segment.games) if segment.games else ""
            table.add_row(
                str(segment.key.index), Text(word, style=style), solver, shown, Text(games, style="red")
            )
        return table

    def _accounts(self, accounts: Sequence[Account]) -> Table:
        table = Table(title="accounts", expand=True, title_style="bold", padding=(0, 1))
        table.add_column("who", no_wrap=True)
        for column in ("wallet", "free stake", "locked", "owed"):
            table.add_column(column, justify="right", no_wrap=True)
        for account in accounts:
            amounts = (account.tokens, account.free, account.locked, account.owed)
            table.add_row(account.name, *map(money, amounts))
        return table


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
