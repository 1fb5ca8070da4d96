"""Boots a kernel under KVM, without libvirt and without a disk, as far as it comes: to its panic for want of a root file system."""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

_UP = re.compile(rb"Kernel panic|Unable to mount root|Run /init|No working init")
_HALF = 512
"""Bytes of the console that are kept to look for a word in, and to tell people about."""


class Machine(msgspec.Struct, frozen=True):
    """What differs between processors: QEMU's program, its options, and the serial console's name."""

    emulator: str
    options: tuple[str, ...]
    console: str


_MACHINES = {
    "x86_64": Machine("qemu-system-x86_64", ("-machine", "q35"), "ttyS0"),
    "aarch64": Machine("qemu-system-aarch64", ("-machine", "virt", "-cpu", "host"), "ttyAMA0"),
}


def machine(processor: str) -> Machine | None:
    """Return how to boot on a processor, by the name that the system gives it; None where that is not known."""
    return _MACHINES.get(processor)


def boots(here: Machine, kernel: Path, within_s: float) -> tuple[float | None, str]:
    """Return after how many seconds the kernel was up, None if it was not in time; and the last that was heard of it."""
    command = [
        here.emulator, *here.options, "-accel", "kvm", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", str(kernel), "-append", f"console={here.console} panic=-1",
    ]
    began = time.monotonic()
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints) as qemu,
    ):
        try:
            up, heard = _heard(qemu, began + within_s)
            took = time.monotonic() - began
            if not up and took < within_s:  # it closed its console before the time was over, so it has ended
                complaints.seek(0)
                heard = complaints.read()
        finally:
            qemu.kill()
    return (took if up else None), _last_words(heard) or f"it said nothing within {within_s:g} s"


def _heard(qemu: subprocess.Popen[bytes], until: float) -> tuple[bool, bytes]:
    """Listen until the kernel is up, QEMU ends, or the time is over."""
    assert qemu.stdout is not None  # noqa: S101  asked for by the caller
    heard = b""
    while select.select([qemu.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        chunk = os.read(qemu.stdout.fileno(), 65_536)
        if not chunk:
            break
        heard = heard[-_HALF:] + chunk
        if _UP.search(heard):
            return True, heard
    return False, heard[-_HALF:]


def _last_words(heard: bytes) -> str:
    lines = [line.strip() for line in heard.decode(errors="replace").splitlines() if line.strip()]
    return "".join(letter for letter in lines[-1] if letter.isprintable())[:200] if lines else ""
