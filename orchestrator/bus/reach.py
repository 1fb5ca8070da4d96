"""From a URL to a bus: who we are stands in the URL or in a credentials file, and with it where answers may come to."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from nats.aio.client import Client as NatsConnection

from orchestrator.bus.nats import ChannelBus, NatsBus, connect_or_explain
from orchestrator.bus.nats_borrowed import BorrowedBus
from orchestrator.bus.port import Unavailable
from orchestrator.protocol import permission, token

Server = str | NatsConnection
"""How to reach the broker: its URL, or a connection that the program has made."""

CONNECT_S = 2.0
"""Seconds that the first connection may take where nobody wants to wait."""


def bus_at(server: Server, *, name: str, creds: Path | None = None) -> ChannelBus:
    """Return a bus to the broker, not yet entered. creds: a NATS credentials file, for a connection of one's own.

    `file:PATH` names a file that holds the URL, so that no password stands in a command line or an environment.
    A user named in the URL gets the inbox that its permissions allow. A connection is borrowed: its owner closes it.
    Raises `Unavailable` if the URL is malformed, or the connection closed already.
    """
    if isinstance(server, NatsConnection):
        if server.is_closed:
            raise Unavailable("the program has closed its connection to the broker")
        return BorrowedBus(server)
    try:
        server = _written(server)
        user = urlsplit(server).username or ""
        inbox = permission.inbox(user) if token.is_word(user) else "_INBOX"
        return NatsBus(server, name=name, credentials=creds, inbox_prefix=inbox)
    except ValueError as error:
        raise Unavailable(f"the broker's URL cannot be used: {error}") from error


def _written(server: str) -> str:
    """Return the URL that is meant. Raises `Unavailable` if its file cannot be read."""
    if not server.startswith("file:"):
        return server
    try:
        return Path(server.removeprefix("file:")).read_text().strip()
    except OSError as error:
        raise Unavailable(f"the file with the broker's URL cannot be read: {error}") from error


async def arrive(bus: ChannelBus, *, wait: bool) -> None:
    """Wait until connected; unless `wait`, raise `Unavailable` with the reason in one sentence if that takes long."""
    if wait:
        await bus.link.up()
    else:
        await connect_or_explain(bus, CONNECT_S)
