"""A hypervisor's domains as JSON, asked of libvirt directly: `python -m tests.e2e.listing URI list|show|destroy`.

By name: the state, or with `show` also whether it is persistent and whether it starts with its host.
"""

from __future__ import annotations

import json
import sys

import libvirt

from workers.drivers.libvirt.eventloop import loop

ATTEMPTS = 5
STATES = {1: "running", 2: "blocked", 3: "paused", 4: "shutdown", 5: "shutoff", 6: "crashed", 7: "pmsuspended"}


def main() -> None:
    """Open the URI given, print what is there, and destroy it if asked to."""
    loop.ensure()
    connection = libvirt.open(sys.argv[1])
    domains = connection.listAllDomains()
    describe = _shown if sys.argv[2] == "show" else _state
    print(json.dumps({domain.name(): describe(domain) for domain in domains}))
    if sys.argv[2] == "destroy":
        for domain in domains:
            _destroy(domain)
    connection.close()


def _state(domain: libvirt.virDomain) -> str:
    return STATES[domain.state()[0]]


def _shown(domain: libvirt.virDomain) -> list[str | bool]:
    try:
        autostart = bool(domain.autostart())
    except libvirt.libvirtError:
        autostart = False  # a transient domain has none
    return [_state(domain), bool(domain.isPersistent()), autostart]


def _destroy(domain: libvirt.virDomain) -> None:
    """Stop a domain; libvirt gives up on a process that is dead but not yet reaped, so ask until it is."""
    for attempt in range(ATTEMPTS):
        if not domain.isActive():
            return
        try:
            domain.destroy()
        except libvirt.libvirtError:
            if attempt == ATTEMPTS - 1:
                raise


if __name__ == "__main__":
    main()
