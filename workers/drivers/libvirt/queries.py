"""What can be asked of a domain without changing it: name to function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from workers.drivers.libvirt import errors
from workers.drivers.port import Missing

Query = Callable[[Any, str], Any]

_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
"""All groups together are slower than these few, and the rest is rarely wanted."""


def _xml(connection: Any, uuid: str) -> str:
    return str(connection.lookupByUUIDString(uuid).XMLDesc(0))


def _stats(connection: Any, uuid: str) -> dict[str, Any]:
    """Ask without waiting: one frozen guest would else block the call. A driver without bulk stats has `info`."""
    domain = connection.lookupByUUIDString(uuid)
    try:
        rows = connection.domainListGetStats([domain], _GROUPS, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    except libvirt.libvirtError as error:
        if not errors.is_unsupported(error):
            raise
        return _from_info(domain)
    for _domain, figures in rows:
        return dict(figures)
    raise Missing(f"domain {uuid} is gone", code=libvirt.VIR_ERR_NO_DOMAIN, domain=libvirt.VIR_FROM_DOMAIN)


def _from_info(domain: Any) -> dict[str, Any]:
    """Return the little that every driver knows, under the names that bulk stats would use."""
    state, maximum_kib, current_kib, vcpus, cpu_time_ns = domain.info()
    return {
        "state.state": state,
        "cpu.time": cpu_time_ns,
        "balloon.current": current_kib,
        "balloon.maximum": maximum_kib,
        "vcpu.current": vcpus,
    }


QUERIES: dict[str, Query] = {"xml": _xml, "stats": _stats}
