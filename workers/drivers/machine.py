"""The state machine of the hypervisor in memory: QEMU's states, refusals and order of events, and nothing of connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import msgspec

from orchestrator.protocol import domainxml
from orchestrator.protocol.domain import State
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.verb import Args, AutostartArgs, XmlArgs
from workers.drivers.port import Exists, Happening, Malformed, Missing, Rejected, Sighting, Tag

Emit = Callable[[Happening], None]


class Definition(msgspec.Struct, frozen=True):
    """A domain's XML and what it says."""

    identity: domainxml.Identity
    xml: str


class Domain(msgspec.Struct, kw_only=True):
    """What the hypervisor knows of one domain. `instance` is the definition it was started with, None while it is off."""

    definition: Definition
    tag: Tag
    instance: Definition | None = None
    state: State = "shutoff"
    reason: str = "unknown"
    persistent: bool = True
    autostart: bool = False
    incarnation: str | None = None
    readable: bool = True
    saved: Definition | None = None
    """What it goes on as when it is started next."""

    def sighting(self, uuid: str) -> Sighting:
        """Return what can be seen of it."""
        identity = (self.instance or self.definition).identity
        return Sighting(
            uuid=uuid,
            name=identity.name or "",
            type=identity.type,
            state=self.state if self.readable else "unknown",
            reason=self.reason if self.readable else "unknown",
            persistent=self.persistent,
            autostart=self.autostart,
            vcpus=identity.vcpus,
            memory_kib=identity.memory_kib,
            tag=self.tag if self.readable else None,
            incarnation=self.incarnation if self.readable else None,
            saved=self.saved is not None and self.readable,
        )


class Machine:
    """The state machine: domains by UUID, verbs that change them, guests that act by themselves. Tells each change at once."""

    def __init__(self, emit: Emit, types: Iterable[str]) -> None:
        self._emit = emit
        self._types = frozenset(types)
        self.domains: dict[str, Domain] = {}
        self.obeys = True

    def known(self, uuid: str) -> Domain:
        """Return a domain; raise `Missing`."""
        domain = self.domains.get(uuid)
        if domain is None:
            raise Missing(f"no domain with matching uuid {uuid!r}", code=42, domain=10)
        return domain

    def running(self, uuid: str) -> Domain:
        """Return a domain that runs; raise `Missing`, `Rejected`."""
        domain = self.known(uuid)
        if domain.instance is None:
            raise _invalid("domain is not running")
        return domain

    def define(self, uuid: str, args: Args, tag: Tag) -> None:
        """Define or redefine; labels and generation stay where `tag` gives none."""
        definition = self._checked(uuid, cast(XmlArgs, args).xml)
        before = self.domains.get(uuid)
        if before is None:
            self.domains[uuid] = Domain(definition=definition, tag=tag)
        else:
            kept = before.tag
            before.tag = Tag(project=tag.project, labels=tag.labels or kept.labels, generation=tag.generation or kept.generation)
            before.definition = definition
            before.persistent = True
        self._tell(uuid, "defined", "added" if before is None else "updated")

    def start(self, uuid: str, _args: Args, _tag: Tag) -> None:
        """Boot."""
        domain = self.known(uuid)
        if domain.instance is not None:
            raise _invalid("domain is already running")
        domain.instance, saved = domain.saved or domain.definition, domain.saved is not None
        domain.state, domain.reason, domain.saved = "running", "restored" if saved else "booted", None
        told = [("started", "restored"), ("resumed", "from-snapshot")] if saved else [("resumed", "unpaused"), ("started", "booted")]
        for event, detail in told:
            self._tell(uuid, event, detail)

    def shutdown(self, uuid: str, _args: Args, _tag: Tag) -> None:
        """Ask the guest, which may not listen."""
        self.running(uuid)
        if self.obeys:
            self.power_off(uuid)

    def destroy(self, uuid: str, _args: Args, _tag: Tag) -> None:
        """Cut the power."""
        self.running(uuid)
        self._tell(uuid, "shutdown", "host")
        self._stop(uuid, "destroyed", "destroyed")

    def restart(self, uuid: str, _args: Args, _tag: Tag) -> None:
        """Reboot or reset: QEMU tells nothing of it that is a lifecycle event."""
        self.running(uuid)

    def suspend(self, uuid: str, _args: Args, _tag: Tag) -> None:
        """Pause; a paused domain stays so."""
        domain = self.running(uuid)
        if domain.state != "paused":
            domain.state, domain.reason = "paused", "user"
            self._tell(uuid, "suspended", "paused")

    def resume(self, uuid: str, _args: Args, _tag: Tag) -> None:
        """Let a paused domain run on."""
        domain = self.running(uuid)
        if domain.state == "running":
            raise _invalid("domain is already running")
        domain.state, domain.reason = "running", "unpaused"
        self._tell(uuid, "resumed", "unpaused")

    def save_begins(self, uuid: str) -> str:
        """Pause it for as long as it is saved; return what it is before."""
        domain = self.running(uuid)
        if not domain.persistent:
            raise _invalid("cannot do managed save for transient domain")
        before = domain.state
        domain.state, domain.reason = "paused", "save"
        if before != "paused":
            self._tell(uuid, "suspended", "paused")
        return before

    def save_fails(self, uuid: str, before: str) -> None:
        """Let it run on if it did."""
        domain = self.domains.get(uuid)
        if domain is not None and (domain.state, domain.reason) == ("paused", "save"):
            domain.reason = "user"
            if before != "paused":
                domain.state, domain.reason = "running", "save-canceled"
                self._tell(uuid, "resumed", "unpaused")

    def save_ends(self, uuid: str) -> None:
        """Stop it, the image made."""
        domain = self.running(uuid)
        domain.saved = domain.instance
        self._stop(uuid, "saved", "saved")

    def remove_saved(self, uuid: str, _args: Args, _tag: Tag) -> None:
        """Remove the image."""
        domain = self.known(uuid)
        if domain.saved is None:
            raise Rejected("Failed to remove managed save file: No such file or directory", code=38, domain=10)
        domain.saved = None

    def undefine(self, uuid: str, _args: Args | None = None, _tag: Tag | None = None) -> None:
        """Remove the definition; a running domain becomes transient."""
        domain = self.known(uuid)
        if not domain.persistent:
            raise _invalid("cannot undefine transient domain")
        domain.persistent = False
        self._tell(uuid, "undefined", "removed")
        self._drop_if_gone(uuid)

    def set_autostart(self, uuid: str, args: Args, _tag: Tag) -> None:
        """Note whether the host starts it."""
        domain = self.known(uuid)
        if not domain.persistent:
            raise _invalid("cannot set autostart for transient domain")
        domain.autostart = cast(AutostartArgs, args).enabled

    def power_off(self, uuid: str) -> None:
        """Let the guest shut down by itself."""
        self.running(uuid)
        self._tell(uuid, "shutdown", "guest")
        self._stop(uuid, "shutdown", "shutdown")

    def crash(self, uuid: str) -> None:
        """Let the hypervisor's process of a running domain die."""
        self.running(uuid)
        self._stop(uuid, "crashed", "failed")

    def _checked(self, uuid: str, document: str) -> Definition:
        try:
            identity = domainxml.identify(document)
        except Invalid as error:
            raise Malformed(error.message, code=35, domain=20) from error
        if identity.name is None or identity.memory_kib == 0:
            raise Malformed("xml: <name> and <memory> must be given", code=27, domain=20)
        if identity.type not in self._types:
            raise Rejected(f"unsupported configuration: domain type {identity.type!r}", code=67, domain=10)
        for other, domain in self.domains.items():
            if (other == uuid) != (domain.definition.identity.name == identity.name):
                raise Exists(f"domain {domain.definition.identity.name!r} exists with uuid {other}", code=9, domain=20)
        return Definition(identity, document)

    def _stop(self, uuid: str, reason: str, detail: str) -> None:
        domain = self.domains[uuid]
        domain.instance, domain.incarnation = None, None
        domain.state, domain.reason = "shutoff", reason
        self._tell(uuid, "stopped", detail)
        self._drop_if_gone(uuid)

    def _drop_if_gone(self, uuid: str) -> None:
        domain = self.domains[uuid]
        if not domain.persistent and domain.instance is None:
            del self.domains[uuid]

    def _tell(self, uuid: str, event: str, detail: str) -> None:
        name = self.domains[uuid].definition.identity.name or ""
        self._emit(Happening(uuid=uuid, name=name, event="lifecycle", detail=event, data={"event": event, "detail": detail}))


def _invalid(message: str) -> Rejected:
    return Rejected(f"Requested operation is not valid: {message}", code=55, domain=10)
