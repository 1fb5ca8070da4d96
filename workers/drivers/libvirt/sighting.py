"""Libvirt's domains as sightings."""

from __future__ import annotations

from typing import Any

import libvirt

from workers.drivers.libvirt import names, xml
from workers.drivers.port import Sighting


def find(connection: Any, uuid: str) -> Any | None:
    """Return libvirt's handle of a domain, None where libvirt says that there is none; raise `libvirtError` else."""
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def read(domain: Any) -> Sighting:
    """Look at a domain; raise `libvirtError`. A running one is described by its live XML, else by its definition."""
    state_number, reason_number = domain.state()
    state = names.state(state_number)
    described = xml.described(domain.XMLDesc(0))
    return Sighting(
        uuid=domain.UUIDString(),
        name=domain.name(),
        type=described.type,
        state=state,
        reason=names.reason(state, reason_number),
        persistent=bool(domain.isPersistent()),
        autostart=_autostart(domain),
        vcpus=described.vcpus,
        memory_kib=described.memory_kib,
        tag=described.tag,
        incarnation=None if state == "shutoff" else described.incarnation,
        saved=state == "shutoff" and _saved(domain),
    )


def unreadable(domain: Any) -> Sighting:
    """Return what is known of a domain that is listed and cannot be read."""
    return Sighting(
        uuid=domain.UUIDString(),
        name=domain.name(),
        type="",
        state="unknown",
        reason="unknown",
        persistent=False,
        autostart=False,
        vcpus=0,
        memory_kib=0,
    )


def _saved(domain: Any) -> bool:
    """Tell whether there is an image of a managed save; one that runs has none, for its start used it up."""
    try:
        return bool(domain.hasManagedSaveImage(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return False
        raise


def _autostart(domain: Any) -> bool:
    try:
        return bool(domain.autostart())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return False  # a hypervisor without autostart starts nothing by itself
        raise
