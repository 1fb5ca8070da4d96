"""Chooses on what the show runs, from what this machine really has."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from demo import trial
from demo.guest import Guest, GuestError, build

CACHE = Path(__file__).parent.parent / ".demo"
_DRIVERS = ("/usr/lib*/libvirt/connection-driver", "/usr/lib/*/libvirt/connection-driver")


class StageError(Exception):
    """Nothing can be shown here; the message says why, in one sentence."""


@dataclass(frozen=True)
class Stage:
    """The hypervisor of each node, the guest that boots on it (None: the test driver's domains are only pretended), and why."""

    hypervisor: str
    guest: Guest | None
    reason: str


def choose(*, pretended: bool = False, cache: Path = CACHE) -> Stage:
    """Return real QEMU inside each worker where that can be and not `pretended` is wanted, else libvirt's test driver.

    Raises `StageError`.
    """
    if importlib.util.find_spec("libvirt") is None:
        raise StageError("no worker can run here: libvirt-python is not installed, which needs libvirt-dev and a compiler")
    if pretended:
        return _pretended("as asked for")
    if (lack := _lack()) is not None:
        return _pretended(lack)
    try:
        guest = build(cache)
    except GuestError as error:
        return _pretended(str(error))
    return Stage("qemu:///embed", guest, "real QEMU, a driver inside each worker, no daemon")


def _pretended(lack: str) -> Stage:
    return Stage("test:///default", None, f"libvirt's test driver, whose domains are only pretended: {lack}")


def _lack() -> str | None:
    """Return what real QEMU would need and is not here."""
    if os.geteuid() != 0:
        return "QEMU inside a worker needs root"
    if shutil.which(f"qemu-system-{os.uname().machine}") is None:
        return "QEMU is not installed"
    root = Path("/")
    if not any(list(root.glob(f"{folder[1:]}/libvirt_driver_qemu.so")) for folder in _DRIVERS):
        return "libvirt's QEMU driver is not installed"
    return trial.refusal() if trial.needed() else None


class Acceleration:
    """Whether a guest boots under KVM here; `/dev/kvm` alone does not tell, so it is tried once after each boot of the host."""

    def __init__(self, cache: Path = CACHE) -> None:
        self._file = cache / "kvm"
        self._host = _host()

    @property
    def known(self) -> bool | None:
        """What was found out since the host booted, None if nothing."""
        if not Path("/dev/kvm").exists():
            return False
        try:
            host, verdict = self._file.read_text().splitlines()
        except (OSError, ValueError):
            return None
        return verdict == "boots" if host == self._host else None

    @property
    def sentence(self) -> str:
        """Say what is used, and why."""
        if self.known:
            return "KVM: a guest really boots under it here"
        there = Path("/dev/kvm").exists()
        return f"TCG, QEMU's emulation: {'/dev/kvm is there, but no guest came up under it' if there else 'there is no /dev/kvm'}"

    def learn(self, boots: bool) -> None:
        """Remember the outcome of a trial."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(f"{self._host}\n{'boots' if boots else 'hangs'}\n")


def _host() -> str:
    """Return what a new boot of the host changes, and new rights on `/dev/kvm`."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    device = Path("/dev/kvm")
    return f"{boot} {device.stat().st_mode:o}" if device.exists() else boot
