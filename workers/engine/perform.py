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
from workers.domain.admission import admit, holds
from workers.domain.settle import settle
from workers.drivers.port import DriverError, Exists, Impossible, Lost, Malformed, Missing, Rejected, Sighting, Tag
from workers.engine.hypervisor import Hypervisor

_TRANSLATED: dict[type[DriverError], type[WireError]] = {
    Missing: NotFound,
    Exists: AlreadyExists,
    Malformed: Invalid,
    Impossible: Unsupported,
    Rejected: HypervisorRefused,
    Lost: NodeUnavailable,
}


class Performed(msgspec.Struct, frozen=True):
    """How a call went: whether it had an effect, the domain after it (None: there is none), and what failed."""

    changed: bool
    after: Sighting | None
    error: WireError | None = None


def perform(
    hypervisor: Hypervisor, command: Command, project: str, uuid: str, project_of: Callable[[Sighting], str], *, undefined_here: bool
) -> Performed:
    """Run `command` and return how it went. Blocks, perhaps for ever; raises nothing but what a fault in the driver raises."""
    try:
        before = hypervisor.sight(uuid)
        if before is not None and project_of(before) != project:
            raise _foreign(command, uuid)
        if admit(command.verb, command.args, command.condition, uuid, before, undefined_here=undefined_here) == "ignore":
            return Performed(False, before)
    except WireError as error:
        return Performed(False, None, error)
    except DriverError as error:
        return Performed(False, None, translated(error, outcome="none"))
    return _call(hypervisor, command, project, uuid, before)


def _call(hypervisor: Hypervisor, command: Command, project: str, uuid: str, before: Sighting | None) -> Performed:
    tag = before.tag if before is not None and before.tag is not None else Tag(project=project)
    failure: DriverError | None = None
    try:
        hypervisor.driver.run(command.verb.name, uuid, command.args, tag)
    except DriverError as error:
        failure = error
    try:
        after = hypervisor.sight(uuid)
    except DriverError as error:
        return Performed(True, None, translated(failure or error, outcome="unknown"))
    if failure is None:
        return Performed(True, after)
    if isinstance(failure, Rejected) and after is not None and not command.verb.creates and holds(command.verb, command.args, after):
        # Somebody else was faster: what was asked for holds.
        return Performed(False, after)
    outcome = _outcome(command, failure, before, after)
    return Performed(outcome != "none", after, translated(failure, outcome=outcome))


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
