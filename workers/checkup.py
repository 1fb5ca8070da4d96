"""`python -m workers.checkup`: looks this host's hypervisors over, for `virtbus doctor`; prints a JSON object for each finding.

It needs no broker. What hangs is the caller's to end: libvirt may block for ever.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from orchestrator.protocol import codec
from orchestrator.protocol.error import WireError
from orchestrator.protocol.verb import VERBS
from workers.drivers.port import DriverError, Happening
from workers.drivers.registry import driver_for
from workers.kvm import Machine, boots, machine

DEVICE = Path("/dev/kvm")
BOOT = Path("/boot")

_EMULATION = "domains of type 'qemu' run by emulation meanwhile, many times slower"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found. subject: of what; said: what is so; remedy: what to do about it."""

    subject: str
    verdict: Literal["ok", "warn", "fail"]
    said: str
    remedy: str = ""


class _Deaf:
    """A listener that nothing is told to."""

    def happened(self, happening: Happening) -> None:
        """Let it pass."""

    def lost(self, reason: str) -> None:
        """Let it pass; the call under way fails by itself."""


def hypervisor(uri: str) -> Finding:
    """Connect to a hypervisor, list its domains, and leave."""
    subject = f"hypervisor {uri}"
    try:
        driver = driver_for(uri)
        ability = driver.open(_Deaf())
        try:
            found = len(driver.scan())
        finally:
            driver.close()
    except (DriverError, WireError) as error:
        remedy = f"'virsh -c {uri} list' tries the same"
        return Finding(subject=subject, verdict="fail", said=" ".join(str(error).split()), remedy=remedy)
    lacks = [verb.name for verb in VERBS.values() if verb.kind == "verb" and verb.name not in ability.verbs]
    can = f"all verbs but {', '.join(lacks)}" if lacks else "all verbs"
    said = f"version {ability.version}, types {' '.join(ability.types)}, {found} domains, {can}, {len(ability.events)} kinds of events"
    if not ability.types:
        remedy = "is an emulator for this processor installed, say qemu-system-x86?"
        return Finding(subject=subject, verdict="warn", said=f"{said}; it runs no type of domain", remedy=remedy)
    return Finding(subject=subject, verdict="ok", said=said)


def kvm(kernel: Path | None, within_s: float) -> Finding:
    """Boot a kernel under KVM: that `/dev/kvm` is there does not say that guests come up."""
    lack = _lack(kernel)
    if isinstance(lack, Finding):
        return lack
    here, tried = lack
    after_s, said = boots(here, tried, within_s)
    if after_s is not None:
        return Finding(subject="KVM", verdict="ok", said=f"a guest kernel ({tried.name}) boots under it in {after_s:.1f} s")
    remedy = f"nested virtualisation may be incomplete: use another host for type 'kvm'; {_EMULATION}"
    return Finding(subject="KVM", verdict="fail", said=f"{DEVICE} is there, but no guest kernel comes up under it: {said}", remedy=remedy)


def _lack(kernel: Path | None) -> Finding | tuple[Machine, Path]:
    """Return what it takes to boot, or the finding that says what is missing."""
    here = machine(platform.machine())
    if not DEVICE.exists():
        remedy = f"turn on virtualisation in the firmware (or nesting in the host of this host), modprobe kvm; {_EMULATION}"
        return Finding(subject="KVM", verdict="fail", said=f"there is no {DEVICE}", remedy=remedy)
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        remedy = "add the user to the group kvm, and log in anew"
        return Finding(subject="KVM", verdict="fail", said=f"this user may not use {DEVICE}", remedy=remedy)
    if here is None or shutil.which(here.emulator) is None:
        name = "an emulator for it" if here is None else here.emulator
        return Finding(subject="KVM", verdict="warn", said=f"not tried: {name} is not installed", remedy="install QEMU's system emulator")
    tried = kernel or _own_kernel()
    if tried is None:
        remedy = "give --kernel FILE, a Linux kernel for this processor (as root, /boot/vmlinuz-* does)"
        return Finding(subject="KVM", verdict="warn", said="not tried: there is no kernel here to boot", remedy=remedy)
    return here, tried


def _own_kernel() -> Path | None:
    """Return this host's own kernel, or else the newest that may be read."""
    found = sorted(BOOT.glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    found.append(BOOT / f"vmlinuz-{platform.release()}")
    return next((path for path in reversed(found) if os.access(path, os.R_OK)), None)


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    for uri in options.hypervisor:
        yield hypervisor(uri)
    if options.kvm:
        yield kvm(options.kernel, options.within)


def main(arguments: Sequence[str] | None = None) -> None:
    """Look at what the command line names; never raises for what it finds."""
    parser = argparse.ArgumentParser(prog="python -m workers.checkup", description="Look this host's hypervisors over.")
    parser.add_argument("--hypervisor", metavar="URI", action="append", default=[])
    parser.add_argument("--kvm", action="store_true", help="boot a kernel under KVM")
    parser.add_argument("--kernel", metavar="FILE", type=Path, help="the kernel to boot (default: one of this host's)")
    parser.add_argument("--within", metavar="SECONDS", type=float, default=20.0, help="time that it has (default: %(default)s)")
    for finding in _findings(parser.parse_args(arguments)):
        sys.stdout.buffer.write(codec.encode(finding) + b"\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # a libvirt thread that hangs would keep the interpreter from ending
