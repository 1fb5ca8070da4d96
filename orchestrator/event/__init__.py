"""Events as values for `match`: one class a kind, made from what stands in the log (PROTOCOL §5).

    async for event in vm.events(domain="web1"):
        match event:
            case Lifecycle(event="stopped", detail="crashed"):
                await vm.start(event.subject)
            case CommandFailed(verb="start", error=error):
                print(event.commandid, error)

Each is an `Event`, with all attributes of CloudEvents: `subject` is the domain's UUID (of `node.*` the node), `domainname` its name,
`commandid` the command that caused it, `synthetic` is true where a scan and not the hypervisor told it. `data` is the whole of
what it says; attributes beside it name the parts that matter, and hold their default where the event does not say.
What a newer fleet tells and this library does not know is its family's class, or `Other`: a `match` needs a last `case _`.
"""

from __future__ import annotations

import msgspec

from orchestrator.event.base import Known, Other, Said
from orchestrator.event.libvirt import (
    AgentLifecycle,
    BalloonChange,
    BlockJob,
    BlockJob2,
    BlockThreshold,
    ControlError,
    DeviceAdded,
    DeviceRemovalFailed,
    DeviceRemoved,
    DiskChange,
    Graphics,
    IoError,
    IoErrorReason,
    JobCompleted,
    Lifecycle,
    MemoryDeviceSizeChange,
    MemoryFailure,
    MetadataChange,
    MigrationIteration,
    Network,
    NicMacChange,
    Nodedev,
    PmSuspend,
    PmSuspendDisk,
    PmWakeup,
    Pool,
    Reboot,
    RtcChange,
    Secret,
    TrayChange,
    Tunable,
    Watchdog,
)
from orchestrator.event.ours import (
    CommandAccepted,
    CommandCancelled,
    CommandEnded,
    CommandEvent,
    CommandExpired,
    CommandFailed,
    CommandProgress,
    CommandSettled,
    CommandStarted,
    CommandSucceeded,
    DuplicateDomain,
    HealthEvent,
    NodeCordoned,
    NodeDegraded,
    NodeDrained,
    NodeEvent,
    NodeFenced,
    NodeOffline,
    NodeOnline,
    NodeRemoved,
    SlowCall,
    StateChanged,
    StreamEvent,
    StreamGap,
    StreamResync,
    StuckDomain,
)
from orchestrator.protocol.event import Event


def _kinds(base: type[Known]) -> dict[str, type[Known]]:
    """Return the classes under `base` by their kind; one without a kind of its own is only a base."""
    own = {base.kind: base} if "kind" in base.__dict__ else {}
    return {**own, **{kind: made for each in base.__subclasses__() for kind, made in _kinds(each).items()}}


KINDS: dict[str, type[Known]] = _kinds(Known)
"""The class of each kind: an event's full name, or its first token."""


UNOWNED = frozenset({"network", "node", "nodedev", "pool", "secret"})
"""The first tokens of kinds that belong to no project: only who follows every project is told."""


def typed(event: Event) -> Event:
    """Return an event as a value of its kind's class, with its data decoded; `Other` where the kind is not known or has no such data."""
    name = event.name
    kind = KINDS.get(name) or KINDS.get(name.partition(".")[0])
    data = event.data
    if isinstance(data, msgspec.Raw):
        try:
            data = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            kind = None
    parts = {field: getattr(event, field) for field in event.__struct_fields__}
    if kind is None or not isinstance(data, dict):
        return Other(**parts | {"data": data if isinstance(data, dict) else event.data})
    return kind(**parts | {"data": data})


__all__ = [
    "KINDS",
    "UNOWNED",
    "AgentLifecycle",
    "BalloonChange",
    "BlockJob",
    "BlockJob2",
    "BlockThreshold",
    "CommandAccepted",
    "CommandCancelled",
    "CommandEnded",
    "CommandEvent",
    "CommandExpired",
    "CommandFailed",
    "CommandProgress",
    "CommandSettled",
    "CommandStarted",
    "CommandSucceeded",
    "ControlError",
    "DeviceAdded",
    "DeviceRemovalFailed",
    "DeviceRemoved",
    "DiskChange",
    "DuplicateDomain",
    "Event",
    "Graphics",
    "HealthEvent",
    "IoError",
    "IoErrorReason",
    "JobCompleted",
    "Known",
    "Lifecycle",
    "MemoryDeviceSizeChange",
    "MemoryFailure",
    "MetadataChange",
    "MigrationIteration",
    "Network",
    "NicMacChange",
    "NodeCordoned",
    "NodeDegraded",
    "NodeDrained",
    "NodeEvent",
    "NodeFenced",
    "NodeOffline",
    "NodeOnline",
    "NodeRemoved",
    "Nodedev",
    "Other",
    "PmSuspend",
    "PmSuspendDisk",
    "PmWakeup",
    "Pool",
    "Reboot",
    "RtcChange",
    "Said",
    "Secret",
    "SlowCall",
    "StateChanged",
    "StreamEvent",
    "StreamGap",
    "StreamResync",
    "StuckDomain",
    "TrayChange",
    "Tunable",
    "Watchdog",
    "typed",
]
