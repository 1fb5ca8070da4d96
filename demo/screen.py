"""What the spectator sees: what is done on the left, with the guest's console; what the event log says on the right."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.protocol.event import Event

_WIDTH = 132
"""Columns where the output is no terminal."""

_SERIAL_S = 0.3
"""Seconds between two lines of a console that are shown; what comes faster is left out."""


class Screen:
    """Prints rows of two columns with the second at which each came."""

    def __init__(self, console: Console | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        plain = console or Console(highlight=False)
        self._console = plain if plain.is_terminal else Console(highlight=False, width=_WIDTH)
        self._monotonic = monotonic
        self._began = monotonic()
        self._serial_shown = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the curtain rose."""
        return self._monotonic() - self._began

    def note(self, sentence: str) -> None:
        """Print one line over the whole width."""
        self._console.print(Text(sentence))

    def act(self, text: str) -> None:
        """Print what is done now."""
        self._row(Text(f"▶ {text}", "bold"), Text())

    def done(self, text: str, *, good: bool = True) -> None:
        """Print how it ended."""
        self._row(Text(f"  {text}", "green" if good else "red"), Text())

    def serial(self, line: str, *, always: bool = False) -> None:
        """Print a line of the guest's console, unless the last one was only just printed."""
        now = self._monotonic()
        if line and (always or now - self._serial_shown >= _SERIAL_S):
            self._serial_shown = now
            self._row(Text(f"  ┆ {_printable(line)}", "cyan"), Text())

    def event(self, event: Event) -> None:
        """Print an event."""
        name = event.domainname or ("" if event.subject == event.node else event.subject[:8])
        synthetic = " (synthetic)" if event.synthetic else ""
        who = f"{event.node} {int(event.sequence):>3} "
        self._row(Text(), Text.assemble((who, "dim"), (event.name, "yellow"), f" {_printable(name)}{synthetic}"))

    def verdict(self, sentence: str, faults: Sequence[str]) -> None:
        """Print whether something held, and if not, where."""
        self._console.print(Text(f"{'✗' if faults else '✓'} {sentence}", "red" if faults else "green"))
        for fault in faults[:5]:
            self._console.print(Text(f"    {fault}", "red"))

    def timings(self, rows: Sequence[tuple[str, float, float | None]]) -> None:
        """Print what took how long: the step, seconds as the client saw them, the node's own milliseconds."""
        table = Table("step", title="timings", title_justify="left")
        table.add_column("seen by the client", justify="right")
        table.add_column("of it on the node", justify="right")
        for step, seconds, node_ms in rows:
            table.add_row(step, f"{seconds * 1000:,.0f} ms", "" if node_ms is None else f"{node_ms:,.0f} ms")
        self._console.print(table)

    def _row(self, left: Text, right: Text) -> None:
        wide = (self._console.width - 12) * 6 // 10
        left.truncate(wide, overflow="ellipsis", pad=True)
        line = Text.assemble((f"{self.elapsed:7.2f} ", "dim"), left, (" │ ", "dim"), right)
        line.rstrip()
        line.truncate(self._console.width, overflow="ellipsis")
        self._console.print(line, no_wrap=True)


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())
