"""One command's time with the broker: connect, do, leave."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cli.settings import Settings
from orchestrator.protocol.error import Denied

if TYPE_CHECKING:
    from orchestrator.bus.port import Bus
    from orchestrator.client import Client
    from orchestrator.protocol.subject import Subjects

T = TypeVar("T")


class Session:
    """A connection, and the client on it.

    reader: the name under which logs are read, empty: one made up for each.
    denied: waits until the broker says that this user may not do something, and returns what; None: it never says so.
    """

    def __init__(
        self, bus: Bus, subjects: Subjects, client: Client, reader: str = "", denied: Callable[[], Awaitable[str]] | None = None
    ) -> None:
        self.bus = bus
        self.subjects = subjects
        self.client = client
        self.reader = reader
        self.denied = denied


Body = Callable[[Session], Awaitable[T]]


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Session]:
    """Connect for as long as the context lasts. Raises `BusError` if the broker cannot be reached in time."""
    from orchestrator.bus.reach import arrive, bus_at  # noqa: PLC0415  not on the way of --help
    from orchestrator.client import Client  # noqa: PLC0415  as above
    from orchestrator.protocol.subject import Subjects  # noqa: PLC0415  as above

    subjects, creds, reader = Subjects(settings.prefix), settings.creds, settings.reader
    async with bus_at(settings.server, name="virtbus-cli", creds=Path(creds) if creds else None) as bus:
        await arrive(bus, wait=settings.wait)
        client = Client(bus, subjects, project=settings.owner, reader=reader)
        yield Session(bus, subjects, client, reader, bus.examiner.denied)


def with_session(settings: Settings, body: Body[T]) -> T:
    """Connect, await `body`, and return what it returned or raise what it raised."""
    import anyio  # noqa: PLC0415  not on the way of --help

    quiet(settings)
    return anyio.run(_within, settings, body)


def with_client(settings: Settings, body: Callable[[Client], Awaitable[T]]) -> T:
    """Connect, await `body` with the client, and return what it returned or raise what it raised; `Denied` as soon as it is refused."""
    return with_session(settings, lambda session: unless_denied(session, lambda: body(session.client)))


async def unless_denied(session: Session, body: Callable[[], Awaitable[T]]) -> T:
    """Await `body`, but no longer than until the broker refuses something: it never answers what it refuses. Raises `Denied` then."""
    import anyio  # noqa: PLC0415  not on the way of --help

    from orchestrator.bus.serving import background  # noqa: PLC0415  as above

    said: list[str] = []

    async def listen(scope: anyio.CancelScope) -> None:
        if session.denied is not None:
            said.append(await session.denied())
            scope.cancel()

    with anyio.CancelScope() as scope:
        async with background() as tasks:
            tasks.start_soon(listen, scope)
            return await body()
    raise Denied(f"the broker does not allow it to this user ({said[0]}); 'virtbus doctor' shows what it does")


async def _within(settings: Settings, body: Body[T]) -> T:
    async with connected(settings) as session:
        return await body(session)


def quiet(settings: Settings) -> None:
    """Keep the bus's log lines off the screen, where one sentence shall stand; `--verbose` shows them on stderr."""
    import structlog  # noqa: PLC0415  not on the way of --help

    level = logging.DEBUG if settings.verbose else logging.CRITICAL
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
