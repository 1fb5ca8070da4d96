"""What workers and coordinators tell of themselves: commands, nodes, the stream of events, faults."""

from __future__ import annotations

from typing import Any

from orchestrator.event.base import Known, Said
from orchestrator.protocol.command import DomainRef
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Failure, Outcome


class StateChanged(Known, frozen=True, kw_only=True):
    """A domain is in another state than was known, and no event of libvirt told it."""

    kind = "state.changed"
    observed = Said[Observed | None](Observed, None, ".")
    """The domain as it is now."""


class CommandEvent(Known, frozen=True, kw_only=True):
    """Something about the command `commandid`."""

    kind = "command"
    verb = Said(str, "")


class CommandAccepted(CommandEvent, frozen=True, kw_only=True):
    """The command waits for its turn."""

    kind = "command.accepted"


class CommandStarted(CommandEvent, frozen=True, kw_only=True):
    """The command was begun."""

    kind = "command.started"


class CommandProgress(CommandEvent, frozen=True, kw_only=True):
    """The job has come so far: `percent` of `total` bytes; `processed` were written, `remaining` are left. It may fall back."""

    kind = "command.progress"
    percent = Said(float, 0.0)
    processed = Said(int, 0)
    total = Said(int, 0)
    remaining = Said(int, 0)
    elapsed_ms = Said(int, 0)


class CommandSettled(CommandEvent, frozen=True, kw_only=True):
    """What became of a command whose outcome was unknown when it ended."""

    kind = "command.settled"
    outcome = Said[Outcome](Outcome, "unknown")


class CommandEnded(CommandEvent, frozen=True, kw_only=True):
    """Base of the events that end a command: exactly one for each. `data` is its `Result`, and so are the attributes."""

    domain = Said[DomainRef | None](DomainRef, None)
    changed = Said(bool, False)
    result = Said[dict[str, Any] | None](dict[str, Any], None)
    error = Said[Failure | None](Failure, None)
    duration_ms = Said(float, 0.0)


class CommandSucceeded(CommandEnded, frozen=True, kw_only=True):
    """The command had its effect; `changed` is false where its goal held already."""

    kind = "command.succeeded"


class CommandFailed(CommandEnded, frozen=True, kw_only=True):
    """The command failed; `error` says why, and what is known of its effect."""

    kind = "command.failed"


class CommandCancelled(CommandEnded, frozen=True, kw_only=True):
    """The command was cancelled."""

    kind = "command.cancelled"


class CommandExpired(CommandEnded, frozen=True, kw_only=True):
    """The command was not begun within its time; nothing was done."""

    kind = "command.expired"


class NodeEvent(Known, frozen=True, kw_only=True):
    """Something about the node `subject`; it belongs to no project."""

    kind = "node"


class NodeOnline(NodeEvent, frozen=True, kw_only=True):
    """A worker started; `previous_end` is where the log of the one before it ended."""

    kind = "node.online"
    previous_end = Said[dict[str, str] | None](dict[str, str], None, "previous")


class NodeOffline(NodeEvent, frozen=True, kw_only=True):
    """A node's lease ran out; its domains may well be running."""

    kind = "node.offline"


class NodeDegraded(NodeEvent, frozen=True, kw_only=True):
    """A hypervisor of a node fails, and `reason` says why, or is `connected` again; `lost` are the URIs of all that fail now."""

    kind = "node.degraded"
    hypervisor = Said(str, "")
    connected = Said(bool, False)
    reason = Said(str, "")
    lost = Said[list[str]](list[str], [])


class NodeCordoned(NodeEvent, frozen=True, kw_only=True):
    """A node takes no new domains."""

    kind = "node.cordoned"


class NodeDrained(NodeEvent, frozen=True, kw_only=True):
    """A node has no domains any more."""

    kind = "node.drained"


class NodeFenced(NodeEvent, frozen=True, kw_only=True):
    """A node was proved dead; it may not act again in that epoch."""

    kind = "node.fenced"


class NodeRemoved(NodeEvent, frozen=True, kw_only=True):
    """A node left the fleet for good."""

    kind = "node.removed"


class StreamEvent(Known, frozen=True, kw_only=True):
    """Something about the events of a node themselves, and then it belongs to no project; or about those of one domain alone."""

    kind = "stream"


class StreamGap(StreamEvent, frozen=True, kw_only=True):
    """Events may be missing from here; a scan tells the differences, until `StreamResync`."""

    kind = "stream.gap"


class StreamResync(StreamEvent, frozen=True, kw_only=True):
    """From here the events are whole again."""

    kind = "stream.resync"


class HealthEvent(Known, frozen=True, kw_only=True):
    """Something is not as it should be."""

    kind = "health"


class SlowCall(HealthEvent, frozen=True, kw_only=True):
    """A call about a domain takes long: it has run for `seconds`, and has not returned. Told once; `commandid` says whose it is.

    call: `run`; verb: the command's. hypervisor: its URI. since: when the call was made.
    """

    kind = "health.slow-call"
    call = Said(str, "")
    verb = Said(str, "")
    hypervisor = Said(str, "")
    since = Said(str, "")
    seconds = Said(float, 0.0)


class StuckDomain(HealthEvent, frozen=True, kw_only=True):
    """A domain does not answer: a call about it has not returned in its time. Told once, and once more when it is well again.

    stuck: false when it is well again; `seconds` is then for how long it was not. call: `run` (of the command `commandid`), `look`,
    `mark` or `ask`; verb: the command's or query's. hypervisor: its URI. since: when the call was made.
    """

    kind = "health.stuck-domain"
    stuck = Said(bool, True)
    call = Said(str, "")
    verb = Said(str, "")
    hypervisor = Said(str, "")
    since = Said(str, "")
    seconds = Said(float, 0.0)


class DuplicateDomain(HealthEvent, frozen=True, kw_only=True):
    """Several nodes, or several `hypervisors` of one, have a domain of the same UUID; commands to it end with `conflict`.

    One node and one hypervisor: it is on that alone again.
    """

    kind = "health.duplicate-domain"
    nodes = Said[list[str]](list[str], [])
    hypervisors = Said[list[str]](list[str], [])
