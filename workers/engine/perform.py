"""One command against one hypervisor, start to end in one thread: look, admit, call, look again."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from orchestrator.protocol.command import Command
from orchestrator.protocol.error import (
    AlreadyExists,
    HypervisorRefused,
    Internal,
    Invalid,
    LibvirtCode,
    NodeUnavailable,
    NotFound,
    Outcome,
    Unsupported,
    WireError,
)
from workers.domain.admission import Admission, admit
from workers.domain.scope import EVERYTHING, Scope
from workers.domain.settle import settle
from workers.drivers.port import Aborted, DriverError, Exists, Impossible, Lost, Malformed, Missing, Rejected, Sighting
from workers.engine.hypervisor import Hypervisor

_TRANSLATED: dict[type[DriverError], type[WireError]] = {
    Aborted: HypervisorRefused,
    Missing: NotFound,
    Exists: AlreadyExists,
    Malformed: Invalid,
    Impossible: Unsupported,
    Rejected: HypervisorRefused,
    Lost: NodeUnavailable,
}


class Performed(msgspec.Struct, frozen=True):
    """How a call went: whether it had an effect, the domain after it (None: there is none), and what failed.

    aborted: it was a job, and was given up.
    """

    changed: bool
    after: Sighting | None
    error: WireError | None = None
    aborted: bool = False


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """A command to be carried out. undefined_here: this worker itself removed the domain. known: as last observed, if it was.

    scope: of the worker; what it does not serve is not found here.
    """

    command: Command
    project: str
    uuid: str
    project_of: Callable[[Sighting], str]
    scope: Scope = EVERYTHING
    undefined_here: bool
    known: Sighting | None

    def admitted(self, sighting: Sighting | None) -> Admission:
        """Judge the command by what the domain is; raises as `admit`."""
        if not self.scope.takes(self.project):
            raise NotFound(f"project {self.project} is not served by this worker")
        if sighting is not None and (self.project_of(sighting) != self.project or not self.scope.serves(sighting)):
            raise _foreign(self.command, self.uuid)
        command = self.command
        return admit(command.verb, command.args, command.condition, self.uuid, sighting, undefined_here=self.undefined_here)


def perform(hypervisor: Hypervisor, errand: Errand) -> Performed:
    """Carry out a command and return how it went. Blocks, perhaps for ever; raises nothing but what a fault in the driver raises.

    What was observed last decides only that the call is worth making, since libvirt judges it anyway; that there is
    nothing to do, or that it cannot be done, is never said without a look.
    """
    try:
        before = errand.known
        if before is None or not _worth_calling(errand, before):
            before = hypervisor.sight(errand.uuid)
            if errand.admitted(before) == "ignore":
                return Performed(False, before)
    except WireError as error:
        return Performed(False, None, error)
    except DriverError as error:
        return Performed(False, None, translated(error, outcome="none"))
    return _call(hypervisor, errand, before)


def _worth_calling(errand: Errand, known: Sighting) -> bool:
    try:
        return errand.admitted(known) == "run"
    except WireError:
        return False


def _call(hypervisor: Hypervisor, errand: Errand, before: Sighting | None) -> Performed:
    command = errand.command
    tag = before.tag if before is not None and before.tag is not None else errand.scope.tag(errand.project)
    failure: DriverError | None = None
    try:
        hypervisor.driver.run(command.verb.name, errand.uuid, command.args, tag)
    except DriverError as error:
        failure = error
    try:
        after = hypervisor.sight(errand.uuid)
    except DriverError as error:
        return Performed(True, None, translated(failure or error, outcome="unknown"))
    if failure is None:
        return Performed(True, after)
    if isinstance(failure, Aborted):
        return _aborted(command, failure, before, after)
    if isinstance(failure, (Missing, Rejected)) and not command.verb.creates:
        return _refused(errand, failure, after)
    outcome = _outcome(command, failure, before, after)
    return Performed(outcome != "none", after, translated(failure, outcome=outcome))


def _aborted(command: Command, failure: Aborted, before: Sighting | None, after: Sighting | None) -> Performed:
    """Tell by looking what an aborted job left: libvirt may have been done with it already."""
    outcome = settle(command.verb, command.args, after, existed=before is not None)
    if outcome == "applied":
        return Performed(True, after)
    return Performed(outcome != "none", after, translated(failure, outcome=outcome), aborted=True)


def _refused(errand: Errand, failure: DriverError, after: Sighting | None) -> Performed:
    """Tell why libvirt said no: the domain had changed since it was observed, or somebody else was faster, or just so."""
    try:
        if errand.admitted(after) == "ignore":
            return Performed(False, after)
    except WireError as error:
        return Performed(False, after, error)
    return Performed(False, after, translated(failure, outcome="none"))


def _outcome(command: Command, failure: DriverError, before: Sighting | None, after: Sighting | None) -> Outcome:
    if isinstance(failure, Lost):
        return "unknown"
    if isinstance(failure, Rejected) and command.verb.creates and command.verb.goal is not None:
        return settle(command.verb, command.args, after, existed=before is not None)
    return "none"


def _foreign(command: Command, uuid: str) -> WireError:
    # A domain of another project does not exist for this one; but its UUID is taken.
    if command.verb.creates:
        return AlreadyExists(f"domain {uuid} cannot be made: its UUID is taken")
    return NotFound(f"domain {uuid} is not in this project")


def translated(error: DriverError, *, outcome: Outcome) -> WireError:
    """Return a driver's error as it stands on the wire."""
    libvirt = LibvirtCode(code=error.code, domain=error.domain) if error.code else None
    return _TRANSLATED.get(type(error), Internal)(str(error), outcome=outcome, libvirt=libvirt)
