"""One opened connection, from `open` to its end. Nothing of it is used again after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import libvirt

from workers.drivers.libvirt import errors, events
from workers.drivers.libvirt.eventloop import loop
from workers.drivers.libvirt.remote import opened_as
from workers.drivers.port import Happening, Listener, Lost

_KEEPALIVE_S = 5
_KEEPALIVE_COUNT = 3
_KEEPALIVE_SINCE = 10_004_000
"""Older libvirt crashes the process when a keepalive runs out while several calls wait (CVE-2024-4418): there it is left off.

Without it a hypervisor that hangs is found out by whoever waits for a call, and by the proof of health that each renewal of the lease
asks for; a daemon that dies is told by the kernel, a host that is cut off only once TCP gives up on a call (about a quarter of an hour).
"""

_CLOSE_REASONS = ("an error on the connection", "the hypervisor closed it", "no answer to keepalives", "this side closed it")
"""virConnectCloseReason."""


_embedded: dict[str, Any] = {}
_embedded_lock = threading.Lock()


def is_embedded(uri: str) -> bool:
    """Tell whether `uri` runs the hypervisor driver inside this process."""
    return urlsplit(uri).path == "/embed"


class Session:
    """A connection with its registrations; tells its listener until it ends, and once that it is lost.

    `_over`: no call may begin. `_silent`: nothing more is told; later than `_over` by the events that still wait.
    """

    def __init__(self, uri: str, listener: Listener) -> None:
        """Connect; raise `libvirtError` if that fails."""
        self._listener = listener
        self._lock = threading.Lock()
        self._over = False
        self._silent = False
        self._callbacks: dict[int, str] = {}
        self._connection = _connect(uri)

    @property
    def connection(self) -> Any:
        """Libvirt's connection; raises `Lost` once the session has ended."""
        if self._over:
            raise Lost("the connection to the hypervisor is gone; open it again")
        return self._connection

    @property
    def events(self) -> list[str]:
        """Names of the events that are registered for."""
        return list(self._callbacks.values())

    def register(self) -> None:
        """Watch over the connection and register for events; raise `libvirtError`."""
        _where_supported(self._connection.registerCloseCallback, self._closed, None)
        if libvirt.getVersion() >= _KEEPALIVE_SINCE:
            _where_supported(self._connection.setKeepAlive, _KEEPALIVE_S, _KEEPALIVE_COUNT)
        self._callbacks = events.register(self._connection, self._emit)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise libvirt's errors as the port's. A call that finds the connection gone ends the session."""
        try:
            yield
        except libvirt.libvirtError as error:
            translated = errors.translate(error, alive=self._alive())
            if isinstance(translated, Lost):
                self._lose(str(translated))
            raise translated from error

    def end(self) -> None:
        """Fall silent and let the connection go; never raises. May block as any call where the other side hangs.

        Libvirt frees the connection with its last reference, so threads that are still inside a call stay safe.
        """
        self._silent = self._over = True
        for number in self._callbacks:
            _forget(self._connection.domainEventDeregisterAny, number)
        _forget(self._connection.unregisterCloseCallback)

    def _emit(self, happening: Happening) -> None:
        if not self._silent:
            self._listener.happened(happening)

    def _closed(self, _connection: Any, reason: int, _opaque: Any) -> None:
        self._lose(_CLOSE_REASONS[reason] if 0 <= reason < len(_CLOSE_REASONS) else f"close reason {reason}")

    def _lose(self, reason: str) -> None:
        """Tell that the connection is lost, once, and after the events that came before it.

        Libvirt calls back in whichever thread it was that found out; the listener is told in the event loop's.
        """
        with self._lock:
            first, self._over = not self._over, True
        if first:
            loop.soon(lambda: self._tell_lost(reason))

    def _tell_lost(self, reason: str) -> None:
        if not self._silent:
            self._silent = True
            self._listener.lost(reason)

    def _alive(self) -> bool:
        try:
            return bool(self._connection.isAlive())
        except libvirt.libvirtError:
            return False


def _connect(uri: str) -> Any:
    """Open a connection. An embedded driver gets one for the life of the process.

    Libvirt registers that driver anew with each open and has room for about a dozen ("Too many drivers").
    """
    if not is_embedded(uri):
        return libvirt.open(opened_as(uri))
    with _embedded_lock:
        if uri not in _embedded:
            _embedded[uri] = libvirt.open(uri)
        return _embedded[uri]


def _where_supported(watch: Any, *arguments: Any) -> None:
    """Set up a watch over the connection; one inside this process has nothing to watch and says so."""
    try:
        watch(*arguments)
    except libvirt.libvirtError as error:
        if not errors.is_unsupported(error):
            raise


def _forget(deregister: Any, *arguments: Any) -> None:
    """Take a registration back; on a dead connection, or where none was made, libvirt refuses and nothing is left to do."""
    try:
        deregister(*arguments)
    except libvirt.libvirtError:
        return
