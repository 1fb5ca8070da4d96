"""A broker's configuration and the keys of its users, as files: for brokers that are set up once and then run by something else."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orchestrator.protocol.permission import Permissions


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker listens and keeps its store. monitor: port on 127.0.0.1 that answers `/healthz`; durable: sync every message."""

    host: str
    port: int
    monitor: int | None
    store: Path
    durable: bool

    def configuration(self, users: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the server's configuration; its parser takes JSON."""
        jetstream = {"store_dir": str(self.store), **({"sync_interval": "always"} if self.durable else {})}
        monitor = {} if self.monitor is None else {"http": f"127.0.0.1:{self.monitor}"}
        return {
            "server_name": "virtbus", "host": self.host, "port": self.port, **monitor,
            "jetstream": jetstream, "authorization": {"users": users},
        }  # fmt: skip


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """Who may come in. kind: `coordinator`, `node`, `client` or `admin`."""

    kind: str
    name: str
    permissions: Permissions


def write(directory: Path, broker: Broker, guests: Sequence[Guest]) -> None:
    """Write `broker/nats.conf` and each guest's `KIND/NAME/server` below `directory`, for owner and group.

    Who has a key already keeps it, so this may be repeated, with more guests. Raises `OSError`.
    """
    users = []
    for guest in guests:
        file = directory / guest.kind / guest.name / "server"
        password = _kept(file) or secrets.token_hex(24)
        _replace(file, f"nats://{guest.name}:{password}@{broker.host}:{broker.port}\n")
        users.append({"user": guest.name, "password": password, "permissions": guest.permissions.entry()})
    _replace(directory / "broker" / "nats.conf", json.dumps(broker.configuration(users), indent=2))


def _kept(file: Path) -> str | None:
    """Return the password in the URL that was written before, None if there is none."""
    return urlsplit(file.read_text().strip()).password if file.exists() else None


def _replace(file: Path, text: str) -> None:
    """Write a file that others cannot read, all or nothing."""
    file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as opened:
        opened.write(text)
    draft.replace(file)
