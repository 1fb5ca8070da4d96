"""A libvirtd whose test driver is held open, through kills of the daemon too, and what strangers do to its domains."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Self

import anyio
import anyio.to_thread
import libvirt

from tests.hypervisors import Libvirtd
from workers.drivers.libvirt.eventloop import loop

_MEDDLING = {
    "suspend": lambda domain: domain.suspend(),
    "resume": lambda domain: domain.resume(),
    "start": lambda domain: domain.create(),
    "destroy": lambda domain: domain.destroy(),
    "undefine": lambda domain: domain.undefine(),
}


class Holding:
    """Enter it with the daemon running. One thing at a time is done to the daemon, so that no fault undoes another."""

    def __init__(self, daemon: Libvirtd) -> None:
        self._daemon = daemon
        self._lock = anyio.Lock()
        self._connection: Any = None

    def __enter__(self) -> Self:
        """Open the connection that keeps the domains."""
        loop.ensure()
        self._hold()
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        with suppress(libvirt.libvirtError):
            self._connection.close()

    async def kill(self) -> None:
        """Kill the daemon, and with it all domains; return when it runs again."""
        async with self._lock:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._restart)

    async def freeze(self, for_s: float) -> None:
        """Stop the daemon for a while."""
        async with self._lock:
            try:
                self._daemon.freeze()
                await anyio.sleep(for_s)
            finally:
                self._daemon.thaw()

    async def meddle(self, verb: str, name: str) -> None:
        """Do something to a domain, if libvirt lets it be done."""
        async with self._lock:
            await anyio.to_thread.run_sync(self._meddle, verb, name)

    def _meddle(self, verb: str, name: str) -> None:
        with suppress(libvirt.libvirtError):
            _MEDDLING[verb](self._connection.lookupByName(name))

    def _restart(self) -> None:
        self._daemon.restart()
        with suppress(libvirt.libvirtError):
            self._connection.close()
        self._hold()

    def _hold(self) -> None:
        self._connection = libvirt.open(self._daemon.uri("test"))
