"""Settings of a domain that exists."""

from __future__ import annotations

from typing import Any, cast

from orchestrator.protocol.verb import Args, AutostartArgs
from workers.drivers.libvirt.verbs.signature import Run
from workers.drivers.port import Tag


def _set_autostart(connection: Any, uuid: str, args: Args, _tag: Tag) -> None:
    connection.lookupByUUIDString(uuid).setAutostart(int(cast(AutostartArgs, args).enabled))


SETTINGS: dict[str, Run] = {"set-autostart": _set_autostart}
