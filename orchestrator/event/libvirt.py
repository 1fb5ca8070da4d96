"""What libvirt tells, under the names that `virsh event --list` uses."""

from __future__ import annotations

from orchestrator.event.base import Known, Said


class Lifecycle(Known, frozen=True, kw_only=True):
    """A domain's life as libvirt tells it: `defined undefined started suspended resumed stopped shutdown pmsuspended crashed`."""

    kind = "lifecycle"
    event = Said(str, "")
    """What happened: `started`, …"""
    detail = Said(str, "")
    """Why or how: `booted`, `migrated`, `destroyed`, …"""


class Reboot(Known, frozen=True, kw_only=True):
    """The guest rebooted."""

    kind = "reboot"


class RtcChange(Known, frozen=True, kw_only=True):
    """The guest set its clock."""

    kind = "rtc-change"


class Watchdog(Known, frozen=True, kw_only=True):
    """The guest's watchdog expired."""

    kind = "watchdog"


class IoError(Known, frozen=True, kw_only=True):
    """A disk failed a read or a write."""

    kind = "io-error"


class IoErrorReason(Known, frozen=True, kw_only=True):
    """A disk failed a read or a write; says why."""

    kind = "io-error-reason"


class Graphics(Known, frozen=True, kw_only=True):
    """A viewer connected to the domain's screen, or left it."""

    kind = "graphics"


class ControlError(Known, frozen=True, kw_only=True):
    """The hypervisor lost control of the domain's process."""

    kind = "control-error"


class BlockJob(Known, frozen=True, kw_only=True):
    """A job on a disk changed; names the disk by its file."""

    kind = "block-job"


class BlockJob2(Known, frozen=True, kw_only=True):
    """A job on a disk changed; names the disk by its target."""

    kind = "block-job-2"


class DiskChange(Known, frozen=True, kw_only=True):
    """A disk's source was changed."""

    kind = "disk-change"


class TrayChange(Known, frozen=True, kw_only=True):
    """The tray of a removable disk was opened or closed."""

    kind = "tray-change"


class PmWakeup(Known, frozen=True, kw_only=True):
    """The guest woke up."""

    kind = "pm-wakeup"


class PmSuspend(Known, frozen=True, kw_only=True):
    """The guest suspended itself to memory."""

    kind = "pm-suspend"


class PmSuspendDisk(Known, frozen=True, kw_only=True):
    """The guest suspended itself to disk."""

    kind = "pm-suspend-disk"


class BalloonChange(Known, frozen=True, kw_only=True):
    """The guest's memory balloon changed its size."""

    kind = "balloon-change"


class DeviceAdded(Known, frozen=True, kw_only=True):
    """A device was plugged in."""

    kind = "device-added"


class DeviceRemoved(Known, frozen=True, kw_only=True):
    """A device is gone from the guest."""

    kind = "device-removed"


class DeviceRemovalFailed(Known, frozen=True, kw_only=True):
    """The guest did not give a device up."""

    kind = "device-removal-failed"


class Tunable(Known, frozen=True, kw_only=True):
    """A tunable parameter of the domain changed."""

    kind = "tunable"


class AgentLifecycle(Known, frozen=True, kw_only=True):
    """The guest agent came or went."""

    kind = "agent-lifecycle"


class MigrationIteration(Known, frozen=True, kw_only=True):
    """A migration began another pass over the memory."""

    kind = "migration-iteration"


class JobCompleted(Known, frozen=True, kw_only=True):
    """A job on the domain was completed."""

    kind = "job-completed"


class MetadataChange(Known, frozen=True, kw_only=True):
    """The domain's metadata changed."""

    kind = "metadata-change"


class BlockThreshold(Known, frozen=True, kw_only=True):
    """A disk was written beyond the threshold set for it."""

    kind = "block-threshold"


class MemoryFailure(Known, frozen=True, kw_only=True):
    """Memory of the host that the domain uses failed."""

    kind = "memory-failure"


class MemoryDeviceSizeChange(Known, frozen=True, kw_only=True):
    """A memory device changed its size."""

    kind = "memory-device-size-change"


class NicMacChange(Known, frozen=True, kw_only=True):
    """The guest changed the address of a network interface."""

    kind = "nic-mac-change"


class Network(Known, frozen=True, kw_only=True):
    """A virtual network's life; `subject` is its UUID or name, and it belongs to no project."""

    kind = "network"
    event = Said(str, "")
    detail = Said(str, "")


class Pool(Known, frozen=True, kw_only=True):
    """A storage pool's life; `subject` is its UUID or name, and it belongs to no project."""

    kind = "pool"
    event = Said(str, "")
    detail = Said(str, "")


class Nodedev(Known, frozen=True, kw_only=True):
    """A host device's life; `subject` is its name, and it belongs to no project."""

    kind = "nodedev"
    event = Said(str, "")
    detail = Said(str, "")


class Secret(Known, frozen=True, kw_only=True):
    """A secret's life; `subject` is its UUID, and it belongs to no project."""

    kind = "secret"
    event = Said(str, "")
    detail = Said(str, "")
