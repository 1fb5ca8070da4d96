"""From a URL to a bus: who we are stands in the URL or in a credentials file, and with it where answers may come to."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.bus.nats import NatsBus, connect_or_explain
from orchestrator.bus.port import Unavailable
from orchestrator.protocol import permission, token

CONNECT_S = 2.0
"""Seconds that the first connection may take where nobody wants to wait."""


def bus_at(server: str, *, name: str, creds: Path | None = None) -> NatsBus:
    """Return a bus to the broker at the URL `server`, not yet entered. creds: a NATS credentials file.

    A user named in the URL gets the inbox that its permissions allow. Raises `Unavailable` if the URL is malformed.
    """
    try:
        user = urlsplit(server).username or ""
        inbox = permission.inbox(user) if token.is_word(user) else "_INBOX"
        return NatsBus(server, name=name, credentials=creds, inbox_prefix=inbox)
    except ValueError as error:
        raise Unavailable(f"the broker's URL cannot be used: {error}") from error


async def arrive(bus: NatsBus, *, wait: bool) -> None:
    """Wait until connected; unless `wait`, raise `Unavailable` with the reason in one sentence if that takes long."""
    if wait:
        await bus.link.up()
    else:
        await connect_or_explain(bus, CONNECT_S)
