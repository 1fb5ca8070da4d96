"""A hypervisor's domains and their states as JSON, asked of libvirt directly: `python -m tests.e2e.listing URI list|destroy`."""

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
    print(json.dumps({domain.name(): STATES[domain.state()[0]] for domain in domains}))
    if sys.argv[2] == "destroy":
        for domain in domains:
            _destroy(domain)
    connection.close()


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
