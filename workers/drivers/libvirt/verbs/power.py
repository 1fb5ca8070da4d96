"""Starting, stopping and pausing: one libvirt call each."""

from __future__ import annotations

from workers.drivers.libvirt.verbs.signature import Run, on_domain

POWER: dict[str, Run] = {
    "start": on_domain(lambda domain: domain.create()),
    "shutdown": on_domain(lambda domain: domain.shutdown()),  # only asks; the guest stops when it likes
    "destroy": on_domain(lambda domain: domain.destroy()),
    "reboot": on_domain(lambda domain: domain.reboot()),
    "reset": on_domain(lambda domain: domain.reset()),
    "suspend": on_domain(lambda domain: domain.suspend()),
    "resume": on_domain(lambda domain: domain.resume()),
}
