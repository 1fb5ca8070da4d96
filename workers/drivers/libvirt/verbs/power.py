"""Starting, stopping and pausing: one libvirt call each, but for containers that are asked to stop or to start anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from orchestrator.protocol.verb import Args
from workers.drivers.libvirt import errors
from workers.drivers.libvirt.verbs.signature import Run, on_domain
from workers.drivers.port import Tag

_SHUTDOWN = (libvirt.VIR_DOMAIN_SHUTDOWN_INITCTL, libvirt.VIR_DOMAIN_SHUTDOWN_SIGNAL)
_REBOOT = (libvirt.VIR_DOMAIN_REBOOT_INITCTL, libvirt.VIR_DOMAIN_REBOOT_SIGNAL)


def _asking(ask: Callable[[Any, int], object], ways: tuple[int, int]) -> Run:
    """Return the verb that asks the guest. A container is asked in both ways: libvirt 9.0 says yes where it could ask in none.

    Who hears both is not harmed: an init that reads its control pipe takes the signal for a wish to read its settings anew.
    """

    def run(connection: Any, uuid: str, _args: Args, _tag: Tag) -> None:
        domain = connection.lookupByUUIDString(uuid)
        if connection.getType() != "LXC":
            ask(domain, 0)
            return
        control_pipe, signal = ways
        try:
            ask(domain, control_pipe)
        except libvirt.libvirtError as error:
            if not errors.is_unsupported(error):
                raise
        try:
            ask(domain, signal)
        except libvirt.libvirtError:
            if domain.isActive():
                raise

    return run


def _shutdown(domain: Any, flags: int) -> None:
    """Only ask: the guest stops when it likes. Drivers without flags have the plain call."""
    if flags:
        domain.shutdownFlags(flags)
    else:
        domain.shutdown()


POWER: dict[str, Run] = {
    "start": on_domain(lambda domain: domain.create()),
    "shutdown": _asking(_shutdown, _SHUTDOWN),
    "destroy": on_domain(lambda domain: domain.destroy()),
    "reboot": _asking(lambda domain, flags: domain.reboot(flags), _REBOOT),
    "reset": on_domain(lambda domain: domain.reset()),
    "suspend": on_domain(lambda domain: domain.suspend()),
    "resume": on_domain(lambda domain: domain.resume()),
}
