"""The libvirt driver: the port's calls on one connection."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from orchestrator.protocol.verb import Args
from workers.drivers.libvirt import ability, errors, jobs, remote, sighting, xml
from workers.drivers.libvirt.eventloop import loop
from workers.drivers.libvirt.queries import QUERIES
from workers.drivers.libvirt.session import Session, is_embedded
from workers.drivers.libvirt.verbs import VERBS
from workers.drivers.port import Ability, DriverError, Impossible, JobProgress, Listener, Lost, Missing, Sighting, Tag


class LibvirtDriver:
    """A hypervisor behind a libvirt URI: `test:///default`, `qemu:///system`, `qemu:///embed?root=DIR`, `lxc:///` and so on.

    Also on another host: `qemu+tls://host/system`, `qemu+ssh://…`, `qemu+tcp://…`.

    Thread-safe. Libvirt's handles are looked up for each call and never kept, since they die with their connection.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._session: Session | None = None

    @property
    def uri(self) -> str:
        """The connection URI, as given."""
        return self._uri

    def open(self, listener: Listener) -> Ability:
        """Connect and register; return what the hypervisor can do. Raises `Lost`, with the remedy where one is known."""
        former = self._swap(None)
        if former is not None:
            # Letting go of a hung connection may block for ever; the new one must not wait for that.
            threading.Thread(target=former.end, name="libvirt-end", daemon=True).start()
        self._check()
        loop.ensure()
        try:
            session = Session(self._uri, listener)
        except libvirt.libvirtError as error:
            raise self._unreachable(error) from error
        try:
            session.register()
            found = ability.read(session.connection, self._uri, session.events)
        except (libvirt.libvirtError, DriverError) as error:
            session.end()
            raise self._unreachable(error) from error
        self._swap(session)
        return found

    def close(self) -> None:
        """Disconnect; domains stay as they are. Never raises; idempotent."""
        former = self._swap(None)
        if former is not None:
            former.end()

    def free_memory_kib(self) -> int:
        """Return the host's free memory. Raises `Lost`, `Rejected`."""
        session = self._current()
        with session.translated():
            return ability.free_memory_kib(session.connection)

    def scan(self) -> list[Sighting]:
        """Return all domains. Raises `Lost`, `Rejected`."""
        session = self._current()
        with session.translated():
            domains = session.connection.listAllDomains()
        seen = (self._sight(session, domain) for domain in domains)
        return [one for one in seen if one is not None]

    def look(self, uuid: str) -> Sighting | None:
        """Return one domain, None only where libvirt says "no domain". Raises `Lost`, `Rejected`."""
        session = self._current()
        try:
            with session.translated():
                return sighting.read(session.connection.lookupByUUIDString(uuid))
        except Missing:
            return None

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Carry out a verb. Raises `Missing`, `Exists`, `Malformed`, `Impossible`, `Rejected`, `Aborted`, `Lost`."""
        run = VERBS.get(verb)
        if run is None:
            raise Impossible(f"verb {verb!r} is not one of this driver's")
        session = self._current()
        with session.translated():
            run(session.connection, uuid, args, tag)

    def progress(self, uuid: str) -> JobProgress | None:
        """Return how far the domain's job has come, None where none runs or nothing can be told. Raises `Missing`, `Rejected`, `Lost`."""
        session = self._current()
        with session.translated():
            return jobs.progress(session.connection, uuid)

    def abort(self, uuid: str) -> None:
        """Ask that the domain's job be given up. Raises `Missing`, `Rejected` where none runs, `Impossible`, `Lost`."""
        session = self._current()
        with session.translated():
            jobs.abort(session.connection, uuid)

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Give libvirt's connection to a verb of somebody's own, for one call; its errors come out as the port's. Raises `Lost`."""
        session = self._current()
        with session.translated():
            yield session.connection

    def mark(self, uuid: str, incarnation: str) -> None:
        """Write `incarnation` into the running domain's live-only metadata. Raises `Missing`, `Impossible`, `Rejected`, `Lost`."""
        session = self._current()
        with session.translated():
            session.connection.lookupByUUIDString(uuid).setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                xml.live_metadata(incarnation),
                "virtbuslive",
                xml.LIVE,
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )

    def ask(self, query: str, uuid: str) -> Any:
        """Answer `xml` or `stats`. Raises `Missing`, `Impossible`, `Rejected`, `Lost`."""
        answer = QUERIES.get(query)
        if answer is None:
            raise Impossible(f"query {query!r} is not one of this driver's")
        session = self._current()
        with session.translated():
            return answer(session.connection, uuid)

    def _sight(self, session: Session, domain: Any) -> Sighting | None:
        try:
            with session.translated():
                return sighting.read(domain)
        except Missing:
            return None
        except Lost:
            raise
        except DriverError:
            return sighting.unreadable(domain)

    def _check(self) -> None:
        if is_embedded(self._uri) and os.geteuid() != 0:
            raise Lost(f"{self._uri} runs the hypervisor inside this process and needs root; run as root, or use qemu:///system")

    def _unreachable(self, error: Exception) -> Lost:
        code, domain = (error.code, error.domain) if isinstance(error, DriverError) else errors.numbers(error)
        advice = remote.remedy(self._uri, code)
        return Lost(f"cannot connect to {self._uri}: {error}{f' - {advice}' if advice else ''}", code=code, domain=domain)

    def _current(self) -> Session:
        session = self._session
        if session is None:
            raise Lost(f"{self._uri} is not open")
        return session

    def _swap(self, session: Session | None) -> Session | None:
        with self._lock:
            former, self._session = self._session, session
        return former
