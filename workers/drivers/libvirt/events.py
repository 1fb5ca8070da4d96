"""Libvirt's callbacks as happenings: one table entry an event id. Callbacks map and hand over, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt
import msgspec

from orchestrator.log import get_logger
from workers.drivers.libvirt import errors, names
from workers.drivers.port import Happening

Emit = Callable[[Happening], None]
_log = get_logger()


class Source(msgspec.Struct, frozen=True):
    """One event id: its name on the wire, libvirt's constant, and what a callback's arguments say (detail token, data)."""

    event: str
    constant: str
    read: Callable[..., tuple[str, dict[str, Any]]]


def _lifecycle(event: int, detail: int) -> tuple[str, dict[str, Any]]:
    name = names.nth(names.LIFECYCLE, event)
    return name, {"event": name, "detail": names.nth(names.DETAILS.get(name, ()), detail)}


SOURCES = (Source("lifecycle", "VIR_DOMAIN_EVENT_ID_LIFECYCLE", _lifecycle),)


def register(connection: Any, emit: Emit) -> dict[int, str]:
    """Register for every event that both this libvirt and this hypervisor know; return event names by callback id."""
    registered: dict[int, str] = {}
    for source in SOURCES:
        number = getattr(libvirt, source.constant, None)
        if number is None:
            continue
        try:
            registered[connection.domainEventRegisterAny(None, number, callback(source, emit), None)] = source.event
        except libvirt.libvirtError as error:
            if not errors.is_unsupported(error):
                raise
    return registered


def callback(source: Source, emit: Emit) -> Callable[..., None]:
    """Return what libvirt calls for `source`: `(connection, domain, *arguments, opaque)`."""

    def fired(_connection: Any, domain: Any, *arguments: Any) -> None:
        try:
            detail, data = source.read(*arguments[:-1])
            emit(Happening(uuid=domain.UUIDString(), name=domain.name(), event=source.event, detail=detail, data=data))
        except Exception:  # noqa: BLE001 - the root of libvirt's thread, which would print and forget it
            _log.exception("libvirt.event.lost", libvirt_event=source.event, arguments=arguments[:-1])

    return fired
