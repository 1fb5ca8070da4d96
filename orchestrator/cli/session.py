"""One command's time with the broker: connect, do, leave."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cli.settings import Settings

if TYPE_CHECKING:
    from orchestrator.client import Client

T = TypeVar("T")


def with_client(settings: Settings, body: Callable[[Client], Awaitable[T]], *, reader: str = "") -> T:
    """Connect, await `body`, and return what it returned or raise what it raised. reader: as for the client."""
    import anyio  # noqa: PLC0415  not on the way of --help

    quiet(settings)
    return anyio.run(_connected, settings, body, reader)


async def _connected(settings: Settings, body: Callable[[Client], Awaitable[T]], reader: str) -> T:
    from orchestrator.client import Client  # noqa: PLC0415  not on the way of --help

    connected = Client.connect(settings.server, prefix=settings.prefix, creds=settings.creds, wait=settings.wait, reader=reader)
    async with connected as client:
        return await body(client)


def quiet(settings: Settings) -> None:
    """Keep the bus's log lines off the screen, where one sentence shall stand; `--verbose` shows them on stderr."""
    import structlog  # noqa: PLC0415  not on the way of --help

    level = logging.DEBUG if settings.verbose else logging.CRITICAL
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
