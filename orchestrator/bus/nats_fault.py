"""Why there is no connection, in one plain sentence each."""

from __future__ import annotations

import re
import ssl
from urllib.parse import urlsplit

from nats.errors import ConnectionClosedError, NoServersError, StaleConnectionError

from orchestrator.bus.port import Unavailable

OLDEST = (2, 12)
"""The oldest nats-server that will do: atomic batches."""

_AWAY = (OSError, NoServersError, StaleConnectionError, ConnectionClosedError)


class TurnedAway(Unavailable):
    """The broker is there and does not want us, so that asking again soon makes no sense."""


def parse_servers(urls: str) -> list[str]:
    """Return the URLs of a list separated by commas; raise `ValueError` where one cannot be meant."""
    servers = [url if "://" in url else f"nats://{url}" for url in (part.strip() for part in urls.split(","))]
    for url in servers:
        parts = urlsplit(url)
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise ValueError(f"broker URL {url!r}: the form is nats://HOST:PORT or tls://HOST:PORT")
    return servers


def shown(servers: list[str]) -> str:
    """Return the URLs for people, without passwords."""
    return ", ".join(f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}" for parts in map(urlsplit, servers))


def check_version(version: str, where: str) -> None:
    """Raise `TurnedAway` if the broker is too old."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise TurnedAway(f"the broker at {where} has version {version or 'unknown'}, needed is {oldest} or newer: upgrade nats-server")


def reason(error: Exception | None, where: str) -> Unavailable:
    """Return what nats-py, the system or the TLS library reported, as an error for people."""
    if isinstance(error, Unavailable):
        return error
    if isinstance(error, ssl.SSLError):
        return TurnedAway(f"no TLS comes about with the broker at {where}: {error}")
    if isinstance(error, FileNotFoundError | PermissionError | ValueError):
        return TurnedAway(f"the credentials for the broker at {where} cannot be read: {error}")
    said = str(error).removeprefix("nats: ").strip("' \r\n")
    if error is None or isinstance(error, _AWAY) or "empty response" in said:  # the last: closed before a word was said
        return Unavailable(f"no broker answers at {where}: is nats-server running there?")
    if re.search("authori|authenti|expired", said.lower()):
        return TurnedAway(f"the broker at {where} refuses these credentials: check user, password, token or credentials file")
    return TurnedAway(f"no connection to the broker at {where}: {said or type(error).__name__}")
