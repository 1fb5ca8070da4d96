"""Records watched as they change: drawn anew on a terminal, appended elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import anyio
import click
import msgspec

from orchestrator.bus.serving import background
from orchestrator.cli import render
from orchestrator.cli.session import Session
from orchestrator.engine.table import Table
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Denied
from orchestrator.protocol.node import Lease, Node
from orchestrator.store.kv import KeyValue

FILL_S = 5.0
"""Seconds within which a bucket must have been read once."""

LEASES_S = 2.0
"""Seconds for which a list of nodes waits to learn which are online."""

SETTLE_S = 0.1
"""Seconds between two pictures: what changes meanwhile is in the next."""

_NO_WRAP, _WRAP, _CLEAR = "\x1b[?7l", "\x1b[?7h", "\x1b[0J"

T = TypeVar("T")


class Picture(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """How records are shown. whole: all of them; head and row: one after the other; document: one for programs."""

    whole: Callable[[list[T]], str]
    head: Sequence[str]
    row: Callable[[T], Sequence[str]]
    document: Callable[[T], Any]


class Display(Generic[T]):
    """Shows records as they become: `update` takes all there are, by key, and shows what is new in them."""

    def __init__(self, format: str, picture: Picture[T]) -> None:
        self._format = format
        self._picture = picture
        self._before: dict[str, T] = {}
        self._shown: dict[str, Any] | None = None
        self._widths: list[int] = []
        self._height = 0

    def update(self, records: Mapping[str, T]) -> None:
        """Show how the records are now."""
        first = self._shown is None
        seen = {key: self._visible(record) for key, record in records.items()}
        shown, self._shown = self._shown or {}, seen
        gone = [record for key, record in self._before.items() if key not in seen]
        news = [records[key] for key in seen if seen[key] != shown.get(key)]
        self._before = dict(records)
        if not (first or gone or news):
            return
        if self._format == "table" and render.on_terminal():
            self._draw(list(records.values()))
        elif self._format == "table":
            self._append(news, gone, first=first)
        else:
            self._print(news, gone)

    def _visible(self, record: T) -> Any:
        return tuple(self._picture.row(record)) if self._format == "table" else self._picture.document(record)

    def _draw(self, records: list[T]) -> None:
        """Draw all over what was drawn before; what is higher than the screen is cut, since nothing above it can be reached."""
        lines = self._picture.whole(records).split("\n")
        room = max(2, shutil.get_terminal_size().lines - 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} more"]
        up = f"\x1b[{self._height}F" if self._height else ""
        self._height = len(lines)
        text = "".join(f"{line}\x1b[K\n" for line in lines)
        click.echo(f"{_NO_WRAP}{up}{text}{_CLEAR}{_WRAP}", nl=False, color=True)

    def _append(self, news: list[T], gone: list[T], *, first: bool) -> None:
        rows = [[render.printable(cell) for cell in self._picture.row(record)] for record in news]
        if first:
            self._widths = [max(map(len, column)) for column in zip(self._picture.head, *rows, strict=True)]
            render.say(render.line(self._picture.head, self._widths))
        for row in rows:
            render.say(render.line(row, self._widths))
        for record in gone:
            name, _, *rest = self._picture.row(record)
            render.say(render.line([name, "gone", *rest], self._widths))

    def _print(self, news: list[T], gone: list[T]) -> None:
        for record in news:
            render.show_each(self._format, self._picture.document(record), str)
        for record in gone:
            render.show_each(self._format, {**msgspec.to_builtins(self._picture.document(record)), "gone": True}, str)


class Pulse:
    """Beats whenever a table has changed."""

    def __init__(self) -> None:
        self._beat = anyio.Event()

    def changed(self, _key: str, _before: object, _after: object) -> None:
        """Take in a change; a table calls it."""
        self._beat.set()

    async def wait(self) -> None:
        """Wait for a change since the last wait, and a moment for what comes with it."""
        await self._beat.wait()
        self._beat = anyio.Event()
        await anyio.sleep(SETTLE_S)


def table(session: Session, bucket: str, kind: type[T], pulse: Pulse, keys: str = ">") -> Table[T]:
    """Return a table of a bucket, by its plain name."""
    store = KeyValue(session.bus, session.subjects.bucket(bucket), watcher=session.reader or None)
    return Table(store, session.bus.link, kind, pulse.changed, keys=keys)


async def follow(tables: Iterable[Table[Any]], records: Callable[[], Mapping[str, T]], pulse: Pulse, display: Display[T]) -> None:
    """Show `records`, which `tables` feed, for ever. Raises `Denied` where one of them cannot be read."""
    async with background() as tasks:
        for each in tables:
            tasks.start_soon(each.run)
            await _filled(each)
        while True:
            display.update(records())
            await pulse.wait()


async def _filled(filled: Table[Any]) -> None:
    with anyio.move_on_after(FILL_S):
        await filled.filled()
        return
    raise Denied("the state may not be read by this user, or is not there; 'virtbus doctor' tells which")


async def domains(session: Session, display: Display[Observed], keys: str) -> None:
    """Show the domains under `keys` of their bucket, for ever."""
    pulse = Pulse()
    seen = table(session, "domains", Observed, pulse, keys)
    await follow([seen], lambda: by_name({key: row.value for key, row in seen.rows.items()}), pulse, display)


async def nodes(session: Session, display: Display[render.Listed]) -> None:
    """Show all nodes, for ever."""
    pulse = Pulse()
    records, leases = table(session, "nodes", Node, pulse), table(session, "leases", Lease, pulse)

    def listed() -> dict[str, render.Listed]:
        return {key: render.Listed(node=row.value, online=key in leases.rows) for key, row in sorted(records.rows.items())}

    await follow([records, leases], listed, pulse, display)


async def online(session: Session) -> frozenset[str] | None:
    """Return the nodes whose lease lives; None where that cannot be learnt soon."""
    leases = table(session, "leases", Lease, Pulse())
    async with background() as tasks:
        tasks.start_soon(leases.run)
        with anyio.move_on_after(LEASES_S):
            await leases.filled()
            return frozenset(leases.rows)
    return None


def by_name(found: Mapping[str, Observed]) -> dict[str, Observed]:
    """Return domains in the order in which people look for them."""
    return dict(sorted(found.items(), key=lambda item: (item[1].project, item[1].name, item[0])))
