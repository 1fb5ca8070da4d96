"""A hypervisor in memory, for tests: QEMU's order of events, an honest state machine, faults on request.

It needs no thread and no clock: what a call causes has happened, and was told, when the call returns. Domains outlive
`close`, as they do with a real hypervisor. It has no XML schema: elements that libvirt does not know pass.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from orchestrator.protocol.verb import VERBS, Args
from workers.drivers.jobs import Job, Jobs
from workers.drivers.machine import Domain, Machine
from workers.drivers.port import Ability, DriverError, Exists, Happening, Impossible, JobProgress, Listener, Lost, Rejected, Sighting, Tag


class Fault:
    """Something that goes wrong with one call. `entered` is set once the call has come to it."""

    def __init__(self, step: str | None, error: DriverError | None, *, after: bool) -> None:
        self.step = step
        self.after = after
        self.entered = threading.Event()
        self._error = error
        self._released = threading.Event()

    @property
    def released(self) -> bool:
        """Whether a hanging call may go on."""
        return self._released.is_set()

    def release(self) -> None:
        """Let the hanging call go on."""
        self._released.set()

    def strike(self) -> None:
        """Raise, or hang until released."""
        self.entered.set()
        if self._error is not None:
            raise self._error
        self._released.wait()


class Faults:
    """The faults that wait for their call, first come first served.

    A step is a verb, or `open`, `free_memory_kib`, `scan`, `look`, `mark`, `ask`, `progress`, `abort`; `create-xml` passes `start` too.
    """

    def __init__(self) -> None:
        self._waiting: deque[Fault] = deque()
        self._lock = threading.Lock()

    def fail(self, error: DriverError, step: str | None = None, *, after: bool = False) -> Fault:
        """Make the next call of `step` (None: the next call at all) raise `error`, before or after its effect."""
        return self.add(Fault(step, error, after=after))

    def hang(self, step: str | None = None, *, after: bool = False) -> Fault:
        """Make the next call of `step` (None: the next call at all) block until released, before or after its effect."""
        return self.add(Fault(step, None, after=after))

    def take(self, step: str) -> Fault | None:
        """Return the fault that this call meets, if any; it is used up."""
        with self._lock:
            for fault in self._waiting:
                if fault.step in (None, step):
                    self._waiting.remove(fault)
                    return fault
        return None

    def add(self, fault: Fault) -> Fault:
        """Let `fault` wait for its call."""
        with self._lock:
            self._waiting.append(fault)
        return fault


class MemoryDriver:
    """The fake. `calls` records what was asked, (verb, uuid) in order; `faults` makes calls fail or hang; `machine` is the hypervisor.

    A `managed-save` that hangs is a job under way: `jobs.tell` says how far it has come, and it can be aborted.
    """

    def __init__(
        self,
        uri: str = "memory:///default",
        *,
        types: Iterable[str] = ("test",),
        lacks: Iterable[str] = (),
        tells: bool = True,
        keeps: bool = True,
        cpus: int = 8,
        memory_kib: int = 16 * 1024 * 1024,
    ) -> None:
        """types: of the domains that it runs. lacks: verbs that it has not. tells: whether it sends events at all.

        keeps: whether domains bear metadata.
        """
        kinds, lacking = list(types), frozenset(lacks)
        self._uri = uri
        self._lock = threading.RLock()
        self._listener: Listener | None = None
        self.machine = Machine(self._emit, kinds)
        self.calls: list[tuple[str, str]] = []
        self.faults = Faults()
        self.jobs = Jobs()
        self.ability = Ability(
            types=kinds,
            version="1.0.0",
            verbs=[name for name in VERBS if name in _VERBS and name not in lacking],
            events=["lifecycle"] if tells else [],
            arch="x86_64",
            cpus=cpus,
            memory_kib=memory_kib,
            metadata=keeps,
            lacks=dict.fromkeys(sorted(lacking), "the memory driver was told to lack it"),
        )

    @property
    def uri(self) -> str:
        """The connection URI, as given."""
        return self._uri

    def open(self, listener: Listener) -> Ability:
        """Connect. Raises what a fault says."""
        fault = self.faults.take("open")
        if fault is not None:
            fault.strike()
        with self._lock:
            self._listener = listener
        return self.ability

    def close(self) -> None:
        """Disconnect; domains stay."""
        with self._lock:
            self._listener = None

    def sever(self, reason: str) -> None:
        """Cut the connection, as a daemon that dies; domains run on."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.lost(reason)

    def free_memory_kib(self) -> int:
        """Return what the running domains leave. Raises `Lost`."""
        with self._call("free_memory_kib"):
            instances = [domain.instance for domain in self.machine.domains.values() if domain.instance]
            return self.ability.memory_kib - sum(instance.identity.memory_kib for instance in instances)

    def scan(self) -> list[Sighting]:
        """Return all domains; one that is not readable has state `unknown`. Raises `Lost`."""
        with self._call("scan"):
            return [self._seen(uuid, domain) for uuid, domain in self.machine.domains.items()]

    def look(self, uuid: str) -> Sighting | None:
        """Return one domain. Raises `Lost`, `Rejected` if it is not readable."""
        with self._call("look"):
            domain = self.machine.domains.get(uuid)
            if domain is not None and not domain.readable:
                raise Rejected(f"domain {uuid} cannot be read", code=1, domain=10)
            return None if domain is None else self._seen(uuid, domain)

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Carry out a verb, its events told before it returns. Raises as the port says."""
        self.calls.append((verb, uuid))
        if verb not in self.ability.verbs:
            raise Impossible(f"this hypervisor has no {verb!r}", code=3, domain=20)
        if verb == "create-xml":
            self._create(uuid, args, tag)
            return
        if verb == "managed-save":
            self._save(uuid)
            return
        with self._call(verb):
            _STEPS[verb](self.machine, uuid, args, tag)

    def progress(self, uuid: str) -> JobProgress | None:
        """Return how far the domain's job has come, as `jobs.tell` said. Raises `Missing`, `Lost`."""
        with self._call("progress"):
            self.machine.known(uuid)
            return self.jobs.progress(uuid)

    def abort(self, uuid: str) -> None:
        """Have the domain's job given up. Raises `Missing`, `Rejected` where none runs, `Lost`."""
        with self._call("abort"):
            self.machine.known(uuid)
        self.jobs.abort(uuid)

    def mark(self, uuid: str, incarnation: str) -> None:
        """Write the incarnation. Raises `Missing`, `Rejected` if the domain does not run, `Lost`."""
        if not self.ability.metadata:
            raise Impossible("this hypervisor keeps no metadata", code=3, domain=20)
        with self._call("mark"):
            self.machine.running(uuid).incarnation = incarnation

    def ask(self, query: str, uuid: str) -> Any:
        """Answer `xml` (as it was given) or `stats`. Raises `Missing`, `Impossible`, `Lost`."""
        with self._call("ask"):
            domain = self.machine.known(uuid)
            definition = domain.instance or domain.definition
            if query == "xml":
                return definition.xml
            if query == "stats":
                return {"state.state": 1 if domain.instance else 5, "balloon.maximum": definition.identity.memory_kib}
            raise Impossible(f"query {query!r} is not one of this driver's")

    def _create(self, uuid: str, args: Args, tag: Tag) -> None:
        with self._call("create-xml"):
            if uuid in self.machine.domains:
                raise Exists(f"domain {uuid} exists already; use define-xml to change it")
            self.machine.define(uuid, args, tag)
        try:
            with self._call("start"):
                self.machine.start(uuid, args, tag)
        except Lost:
            raise
        except DriverError:
            with self._lock:
                self.machine.undefine(uuid)
            raise

    def _save(self, uuid: str) -> None:
        """Pause, write, stop, as QEMU does; what fails or is given up runs on."""
        with self._locked():
            before = self.machine.save_begins(uuid)
        try:
            with self.jobs.under_way(uuid) as job, self._call("managed-save", job):
                job.go_on()
                self.machine.save_ends(uuid)
        except DriverError:
            with self._lock:
                self.machine.save_fails(uuid, before)
            raise

    @contextmanager
    def _call(self, step: str, job: Job | None = None) -> Iterator[None]:
        """Hold the lock for a call's effect, and meet its fault before or after, without the lock. One that hangs holds up its job."""
        fault = self.faults.take(step)
        if fault is not None and job is not None:
            job.hold(fault)
        if fault is not None and not fault.after:
            fault.strike()
        with self._locked():
            yield
        if fault is not None and fault.after:
            fault.strike()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            if self._listener is None:
                raise Lost(f"{self._uri} is not connected")
            yield

    def _seen(self, uuid: str, domain: Domain) -> Sighting:
        seen = domain.sighting(uuid)
        return seen if self.ability.metadata else msgspec.structs.replace(seen, tag=None)

    def _emit(self, happening: Happening) -> None:
        if self._listener is not None and self.ability.events:
            self._listener.happened(happening)


_STEPS: dict[str, Callable[[Machine, str, Args, Tag], None]] = {
    "define-xml": Machine.define,
    "start": Machine.start,
    "shutdown": Machine.shutdown,
    "destroy": Machine.destroy,
    "reboot": Machine.restart,
    "reset": Machine.restart,
    "suspend": Machine.suspend,
    "resume": Machine.resume,
    "managed-save-remove": Machine.remove_saved,
    "undefine": Machine.undefine,
    "set-autostart": Machine.set_autostart,
}
_VERBS = frozenset({"create-xml", "managed-save", *_STEPS})
