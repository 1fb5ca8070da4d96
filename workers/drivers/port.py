"""What the engine needs of a hypervisor.

All methods but the listener's block and are called from threads, several at once; an adapter is thread-safe.
A call may block for ever: the engine bounds the waiting, never the call. Nothing here retries, and
nothing here knows of NATS, of time limits or of what was asked before.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from orchestrator.protocol.domain import State
from orchestrator.protocol.verb import Args


class DriverError(Exception):
    """Base of what a driver raises; `code` and `domain` are libvirt's numbers, 0 where there are none."""

    def __init__(self, message: str, *, code: int = 0, domain: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.domain = domain


class Missing(DriverError):
    """The hypervisor says there is no such domain. Never raised for a look-up that failed for another reason."""


class Exists(DriverError):
    """A domain with this UUID or name is there already."""


class Malformed(DriverError):
    """The hypervisor's parser or schema refuses the XML."""


class Impossible(DriverError):
    """This hypervisor has no such operation; nothing was done."""


class Rejected(DriverError):
    """The hypervisor said no, or failed at it."""


class Aborted(Rejected):
    """The call was a job, and was aborted: by `abort`, or by somebody else."""


class Lost(DriverError):
    """The connection to the hypervisor is gone; what was asked may have happened."""


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """What virtbus keeps in a domain's metadata, so that it survives virtbus."""

    project: str
    labels: dict[str, str] = {}
    generation: int = 0


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """A domain as the hypervisor describes it at one moment. `tag` is None where it bears none of ours; `incarnation` likewise."""

    uuid: str
    name: str
    type: str
    state: State
    reason: str
    persistent: bool
    autostart: bool
    vcpus: int
    memory_kib: int
    tag: Tag | None = None
    incarnation: str | None = None
    saved: bool = False
    """Whether there is an image of a managed save, from which `start` goes on."""

    @property
    def active(self) -> bool:
        """Whether the domain has a running instance (also paused, crashed but kept, …)."""
        return self.state not in ("shutoff", "nostate", "unknown")


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the hypervisor. `event` and `detail` are the tokens of its subject; `data` uses libvirt's names (PROTOCOL §5)."""

    uuid: str
    name: str
    event: str
    detail: str
    data: dict[str, Any]


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a domain's job has come, in bytes; 0 where the hypervisor does not tell.

    processed: sent so far, without what needs not be sent. remaining: of `total`; it rises where a guest writes meanwhile.
    elapsed_ms: since the job began.
    """

    total: int = 0
    processed: int = 0
    remaining: int = 0
    elapsed_ms: int = 0


class Ability(msgspec.Struct, frozen=True, kw_only=True):
    """What a hypervisor is and can really do. events: those that it tells; without `lifecycle` it is polled.

    lacks: by verb that is not among `verbs`, what is missing for it, in words, where that is known.
    metadata: whether domains can bear what `Tag` and `mark` say; where not, the worker's journal keeps the tags.
    """

    types: list[str]
    version: str
    verbs: list[str]
    events: list[str]
    arch: str
    cpus: int
    memory_kib: int
    lacks: dict[str, str] = {}
    metadata: bool = True


class Listener(Protocol):
    """Takes what a driver has to tell. Called from the driver's own thread; returns at once, never raises."""

    def happened(self, happening: Happening) -> None:
        """Take one event; events arrive in the order in which the hypervisor gave them."""

    def lost(self, reason: str) -> None:
        """Take that the connection is gone: registrations are void, `open` it again and scan."""


class Driver(Protocol):
    """One hypervisor connection."""

    @property
    def uri(self) -> str:
        """The connection URI, as given."""

    def open(self, listener: Listener) -> Ability:
        """Connect, register for events (before returning, so that a following scan overlaps them), return the ability.

        Also after `lost` or `close`, with everything anew. Raises `Lost` if it cannot connect.
        """

    def close(self) -> None:
        """Disconnect; domains stay as they are. Never raises; idempotent."""

    def free_memory_kib(self) -> int:
        """Return the host's free memory; doubles as proof that the hypervisor answers. Raises `Lost`, `Rejected`."""

    def scan(self) -> list[Sighting]:
        """Return all domains, running or not. Raises `Lost`, `Rejected`: a failed scan is no empty scan.

        A domain that vanishes between listing and reading is left out; one that cannot be read has state `unknown`.
        """

    def look(self, uuid: str) -> Sighting | None:
        """Return one domain, None only where the hypervisor positively says that there is none. Raises `Lost`, `Rejected`."""

    def run(self, verb: str, uuid: str, args: Args, tag: Tag) -> None:
        """Carry out a verb of the registry; return when the hypervisor's call returned.

        `define-xml`, `create-xml`: the XML's name and UUID are complete; our metadata in it is replaced by `tag`.
        `create-xml` defines and starts; if the start fails, a definition that it made is removed again.
        Raises `Missing`, `Exists`, `Malformed`, `Impossible`, `Rejected`, `Aborted`, `Lost`.
        """

    def progress(self, uuid: str) -> JobProgress | None:
        """Return how far the domain's job has come, None where none runs or nothing can be told. Raises `Missing`, `Rejected`, `Lost`.

        Answers while the job's own call is under way, whoever made it.
        """

    def abort(self, uuid: str) -> None:
        """Ask that the domain's job be given up; its call then raises `Aborted`, or returns if it was faster.

        Raises `Missing`, `Rejected` where no job runs (yet), `Impossible`, `Lost`.
        """

    def mark(self, uuid: str, incarnation: str) -> None:
        """Write `incarnation` into the running domain's live-only metadata. Raises `Missing`, `Impossible`, `Rejected`, `Lost`."""

    def ask(self, query: str, uuid: str) -> Any:
        """Answer `xml` (str) or `stats` (dict of libvirt's bulk-stats names to values).

        Raises `Missing`, `Impossible`, `Rejected`, `Lost`.
        """
