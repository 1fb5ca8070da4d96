"""Hypervisors through libvirt. The only room that imports `libvirt`.

`LibvirtDriver(uri)` is all that the engine needs. A program that runs libvirt's event loop itself says so
once, before the first `open`: `events_run_elsewhere()`.
"""

from workers.drivers.libvirt.connection import LibvirtDriver
from workers.drivers.libvirt.eventloop import events_run_elsewhere

__all__ = ["LibvirtDriver", "events_run_elsewhere"]
