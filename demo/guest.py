"""A tiny real guest from the distribution's own packages: its cloud kernel, and an initramfs of static busybox.

Nothing is installed: the packages are fetched by `apt-get download`, which checks their sums, and
unpacked. The guest prints `READY` on its serial console about three seconds after its start under
plain emulation, and obeys the ACPI power button.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import platform
import re
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from demo.cpio import Tree, archive

READY = "virtbus guest: ready"
"""What the guest prints once it is up."""

OBEYS = "virtbus guest: power button, going down"
"""What the guest prints when it is asked to shut down."""

MEMORY_MIB = 160
BUSYBOX = "busybox-static"
MODULES = ("button", "evdev", "gpio_keys", "virtio_pci", "virtio_balloon")
"""What the power button and libvirt's default devices need, where the kernel has it as modules."""

STEP_S = 180.0
"""Seconds that one call of apt or dpkg may take."""

_INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in $($b cat /lib/order); do $b insmod /lib/$module; done
$b acpid -f -l /dev/null &
until $b ls -l /proc/$!/fd | $b grep -q /dev/input; do $b usleep 10000; done
echo '{READY}'
wait
"""

_POWER_BUTTON = f"""#!/bin/busybox sh
echo '{OBEYS}' >/dev/console
exec /bin/busybox poweroff -f
"""


class GuestError(Exception):
    """The guest cannot be made here; the message says why, in one sentence."""


@dataclass(frozen=True)
class Machine:
    """What differs between processor architectures: packages that bring the kernel, libvirt's words, the serial console."""

    kernels: tuple[str, ...]
    arch: str
    type: str
    console: str
    cmdline: str


MACHINES = {
    "x86_64": Machine(
        kernels=("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64"),
        arch="x86_64",
        type="q35",
        console="ttyS0",
        # what a boot under emulation need not spend time on
        cmdline="nokaslr mitigations=off tsc=reliable no_timer_check cryptomgr.notests random.trust_cpu=on i8042.noaux",
    ),
    "aarch64": Machine(
        kernels=("linux-image-cloud-arm64", "linux-image-virtual", "linux-image-arm64"),
        arch="aarch64",
        type="virt",
        console="ttyAMA0",
        cmdline="nokaslr mitigations=off cryptomgr.notests",
    ),
}


@dataclass(frozen=True)
class Guest:
    """A kernel and an initramfs that boot to `READY`."""

    kernel: Path
    initrd: Path
    machine: Machine

    def copy_to(self, folder: Path) -> Guest:
        """Return the same guest in `folder`: libvirt changes the owner of what a domain uses, so each run has its own copy."""
        kernel, initrd = (Path(shutil.copy(path, folder)) for path in (self.kernel, self.initrd))
        return Guest(kernel, initrd, self.machine)

    def domain_xml(self, name: str, *, type: str, log: Path, uuid: uuid.UUID | None = None) -> str:
        """Return a domain that boots this guest; `type` is `kvm` or `qemu`, its serial console is appended to `log`."""
        identity = f"<uuid>{uuid}</uuid>" if uuid else ""
        acpi = "<acpi/>" if self.machine.arch == "x86_64" else ""  # elsewhere it needs firmware; the button is a GPIO there
        return f"""<domain type={quoteattr(type)}>
  <name>{escape(name)}</name>{identity}
  <memory unit='MiB'>{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='{self.machine.arch}' machine='{self.machine.type}'>hvm</type>
    <kernel>{escape(str(self.kernel))}</kernel>
    <initrd>{escape(str(self.initrd))}</initrd>
    <cmdline>console={self.machine.console} {self.machine.cmdline}</cmdline>
  </os>
  <features>{acpi}</features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path={quoteattr(str(log))} append='on'/>
    </serial>
  </devices>
</domain>
"""


def build(cache: Path, arch: str = platform.machine()) -> Guest:
    """Return the guest kept in `cache`, made first if it is not there yet (a download of about 30 MB, a few seconds).

    Raises `GuestError`. Needs no network once made.
    """
    machine = MACHINES.get({"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch))
    if machine is None:
        raise GuestError(f"no guest is known for the processor architecture {arch}")
    home = cache / f"guest-{machine.arch}-{_recipe()}"
    guest = Guest(home / "vmlinuz", home / "initrd", machine)
    if not home.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as folder:
            _make(Path(folder), home, machine)
    return guest


def _recipe() -> str:
    """Return what changes when this file would make another guest."""
    return hashlib.sha256("\0".join((_INIT, _POWER_BUTTON, *MODULES)).encode()).hexdigest()[:12]


def _make(folder: Path, home: Path, machine: Machine) -> None:
    tree = folder / "tree"
    for package in _download(folder, machine):
        _run("dpkg-deb", "-x", str(package), str(tree))
    made = folder / "made"
    made.mkdir()
    shutil.copyfile(_one(tree, "vmlinuz-*"), made / "vmlinuz")
    (made / "initrd").write_bytes(archive(_initramfs(tree)))
    made.chmod(0o755)
    try:
        made.rename(home)
    except OSError as error:
        if not home.is_dir():  # else another run was faster, and made the same
            raise GuestError(f"cannot keep the guest in {home}: {error}") from error


def _download(folder: Path, machine: Machine) -> list[Path]:
    if shutil.which("apt-get") is None:
        raise GuestError("the guest is made from Debian packages, and there is no apt-get here")
    try:
        _apt_download(folder, machine)
    except GuestError:
        if os.geteuid() != 0:
            raise
        _run("apt-get", "update", "-qq")  # the lists may be missing, or name versions that are no longer served
        _apt_download(folder, machine)
    return sorted(folder.glob("*.deb"))


def _apt_download(folder: Path, machine: Machine) -> None:
    user = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()  # else it warns that _apt cannot write here
    _run("apt-get", "-qq", *user, "-o", "Acquire::Retries=2", "download", _kernel_package(machine), BUSYBOX, cwd=folder)


def _kernel_package(machine: Machine) -> str:
    """Return the package that holds the kernel, which the distribution's ever-new name depends on."""
    for name in machine.kernels:
        said = _run("apt-cache", "depends", "--important", name, check=False)
        if found := re.search(r"^\s*Depends: (linux-image-\S+)", said, re.MULTILINE):
            return found[1]
    raise GuestError(f"apt knows none of the packages {', '.join(machine.kernels)}")


def _initramfs(tree: Path) -> Tree:
    modules = _modules(tree)
    return {
        **dict.fromkeys(("bin", "dev", "proc", "sys", "lib", "etc", "etc/acpi", "etc/acpi/PWRF")),
        "init": _INIT.encode(),
        "bin/busybox": _one(tree, "busybox", executable=True).read_bytes(),
        "etc/acpi/PWRF/00000080": _POWER_BUTTON.encode(),
        "lib/order": "\n".join(modules).encode(),
        **{f"lib/{name}": content for name, content in modules.items()},
    }


def _modules(tree: Path) -> dict[str, bytes]:
    """Return the modules wanted and what they depend on, in the order in which they load; what the kernel has built in is not there."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        if name not in files or name in loaded:
            return
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        if found := re.search(rb"\0depends=([^\0]+)\0", content):
            for needed in found[1].decode().split(","):
                load(needed.replace("-", "_"))
        loaded[name] = content

    for name in MODULES:
        load(name)
    return loaded


def _one(tree: Path, pattern: str, *, executable: bool = False) -> Path:
    for path in sorted(tree.rglob(pattern)):
        if path.is_file() and (not executable or os.access(path, os.X_OK)):
            return path
    raise GuestError(f"the packages hold no {pattern}")


def _run(*command: str, cwd: Path | None = None, check: bool = True) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=STEP_S, check=check)
    except subprocess.CalledProcessError as error:
        raise GuestError(f"{' '.join(command[:2])} failed: {error.stderr.strip() or error.stdout.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise GuestError(f"{' '.join(command[:2])} took more than {STEP_S:.0f} s") from error
    except OSError as error:
        raise GuestError(f"{command[0]} cannot be run: {error}") from error
    return done.stdout
