"""Tries whether a worker can start a domain on real QEMU here, in a process of its own: a container may lack the rights.

`python -m demo.trial ROOT` starts the smallest domain there is, paused, ends it, and says nothing; else it says why not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.cli.layout import EMBED, Layout

PATIENCE_S = 60.0
_ALL_RIGHTS = 0x3FFFFFFFFF
"""The capabilities that Linux had when containers learnt to withhold them."""

_DOMAIN = """
<domain type='qemu'><name>trial</name><memory unit='MiB'>16</memory><os><type>hvm</type></os><features><acpi/></features></domain>
"""


def needed() -> bool:
    """Tell whether this process has fewer rights than root on a machine of its own."""
    status = Path("/proc/self/status").read_text()
    held = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return int(held, 16) & _ALL_RIGHTS != _ALL_RIGHTS


def refusal() -> str | None:
    """Return why no domain can be started, in one sentence; None if one was."""
    with tempfile.TemporaryDirectory(prefix="vb-") as home:
        Path(home).chmod(0o755)
        uri = Layout(Path(home)).hypervisor(EMBED, "n")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "demo.trial", uri], capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"QEMU does not start a domain here within {PATIENCE_S:g} s"
        return done.stdout.strip() or None if done.returncode else None


def _start(uri: str) -> int:
    import libvirt  # noqa: PLC0415  only the process of its own loads the driver

    from workers.drivers.libvirt.eventloop import loop  # noqa: PLC0415  the same

    loop.ensure()
    try:
        libvirt.open(uri).createXML(_DOMAIN, libvirt.VIR_DOMAIN_START_PAUSED).destroy()
    except libvirt.libvirtError:
        print("QEMU starts no domain here; in a container it may need more rights (--privileged)")  # noqa: T201  to who started us
        return 1
    return 0


if __name__ == "__main__":
    code = _start(sys.argv[1])
    sys.stdout.flush()
    os._exit(code)  # the driver's threads would be waited for
