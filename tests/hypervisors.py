"""Real hypervisors for tests, apart from the machine's own: nothing of them outlives the test, whatever kills it.

`private_libvirtd` is one libvirtd, `embedded_qemu` one root for `qemu:///embed`; both live in a sandbox. One process can
open one embedded root only, so tests over it run in a child: `embedded.command("…")`.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt

from workers.drivers.libvirt.eventloop import loop

_START_S = 20.0
_PATHS = {"qemu": "/system", "lxc": "/", "test": "/default"}

_MODULES = ("lib*/libvirt/connection-driver/libvirt_driver_{}.so", "lib/*/libvirt/connection-driver/libvirt_driver_{}.so")
"""Where distributions keep libvirtd's drivers, beneath /usr."""

# A mount and PID namespace. What libvirt keeps on disk gets a file system of its own, and so does the user that
# Debian's libvirt insists on whatever qemu.conf says, where the machine lacks it. The first process reaps orphans at once
# (libvirt waits for their end: minutes of probing and seconds of destroying otherwise) and ends, with all others,
# when the test's end of the pipe closes.
_SANDBOX = """
set -e
for path in passwd group; do [ ! -e "$1/$path" ] || mount --bind "$1/$path" "/etc/$path"; done
for path in /run /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p "$path"
    mount -t tmpfs tmpfs "$path"
done
umount /sys/fs/cgroup/unified 2>/dev/null || true
cp "$1/qemu.conf" /etc/libvirt/qemu.conf
echo ready
exec env --ignore-signal=CHLD cat
"""

# A container's first process gets SIGTERM for a shutdown and SIGHUP for a reboot; it reboots as any system does.
_INIT = """#!/bin/busybox sh
trap 'exit 0' TERM
trap '/bin/busybox reboot -f' HUP
while :; do /bin/busybox sleep 1000 & wait; done
"""

_QEMU_CONF = """
user = "root"
group = "root"
stdio_handler = "file"
save_image_format = "xz"
"""


@functools.cache
def unavailable() -> str | None:
    """Return why no private hypervisor can run here, None if one can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("unshare", "nsenter", "libvirtd", "qemu-system-x86_64"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    if subprocess.run([_tool("unshare"), "-m", "-p", "--fork", "--mount-proc", "true"], check=False, capture_output=True).returncode:
        return "needs the right to make mount and PID namespaces"
    return None


@functools.cache
def no_containers() -> str | None:
    """Return why no container can run here, None if one just did: kernels and sandboxes differ in what they allow."""
    reason = unavailable()
    if reason is not None:
        return reason
    if shutil.which("busybox") is None or not _modules("lxc"):
        return "needs busybox and libvirt's LXC driver; tools/setup installs them"
    try:
        with private_libvirtd("lxc") as daemon, held(daemon.uri("lxc")) as connection:
            connection.createXML(lxc_xml("probe", str(uuid.uuid4()), root=daemon.root)).destroy()
    except (libvirt.libvirtError, RuntimeError) as error:
        return f"cannot start one: {error}"
    return None


def qemu_xml(name: str, uuid: str, type: str = "qemu") -> str:
    """Return the smallest machine that QEMU starts: no disk, no guest system, and it runs."""
    return (
        f"<domain type='{type}'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><os><type>hvm</type></os>"
        "<devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )


def lasting_xml(name: str, uuid: str, *, folder: Path, mib: int = 24) -> str:
    """Return a machine whose memory holds `mib` MiB (at most 40) that nothing packs, so that saving it takes as many seconds or more.

    They are saved packed, with the slowest of the programs that QEMU's driver knows: a limit on bandwidth does not apply to files.
    """
    filling = folder / "filling"
    filling.write_bytes(os.urandom(mib << 20))
    loaded = f"<q:commandline><q:arg value='-device'/><q:arg value='loader,file={filling},addr=0x1000000,force-raw=on'/></q:commandline>"
    spaced = qemu_xml(name, uuid).replace("<domain ", "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0' ")
    return spaced.replace("</domain>", f"{loaded}</domain>")


def lxc_xml(name: str, uuid: str, *, root: Path) -> str:
    """Return the smallest container: the file system at `root`, whose init ends when it is asked to."""
    return (
        f"<domain type='lxc'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><os><type>exe</type><init>/init</init></os>"
        f"<devices><filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem><console type='pty'/></devices></domain>"
    )


def make_root(place: Path) -> Path:
    """Make the file system of a container, of nothing but Busybox and an init that obeys shutdown and reboot; return where it is."""
    root = place / "root"
    for folder in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / folder).mkdir(parents=True)
    shutil.copy(_tool("busybox"), root / "bin" / "busybox")
    (root / "init").write_text(_INIT)
    (root / "init").chmod(0o755)
    return root


def test_xml(name: str, uuid: str) -> str:
    """Return the smallest domain of libvirt's test driver."""
    return f"<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"


class Sandbox:
    """Namespaces that hold a hypervisor and its guests; all of it ends with `leave` or with this process."""

    def __init__(self, place: Path) -> None:
        _write_users(place)
        (place / "qemu.conf").write_text(_QEMU_CONF)
        self._outer = subprocess.Popen(
            [_tool("unshare"), "-m", "-p", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
             "sh", "-c", _SANDBOX, "sh", str(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self._outer.stdout is None or self._outer.stdout.readline() != "ready\n":
            self.leave()
            raise RuntimeError("the sandbox could not be made; see its words above")
        self._first = _child(self._outer.pid)

    def command(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` in the sandbox."""
        return [_tool("nsenter"), "-t", str(self._first), "-m", "-p", *argv]

    def leave(self) -> None:
        """End everything in it."""
        for pipe in (self._outer.stdin, self._outer.stdout):
            if pipe is not None:
                pipe.close()
        self._outer.wait(_START_S)


class Libvirtd:
    """A libvirtd in a sandbox; it can be killed and started again while its guests run on."""

    def __init__(self, place: Path, sandbox: Sandbox, drivers: Sequence[str], port: int | None) -> None:
        self._sandbox = sandbox
        self._place = place
        self._socket = place / "libvirt-sock"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._drivers = drivers
        self._write_config(drivers)

    @functools.cached_property
    def root(self) -> Path:
        """The file system of containers, made when it is first asked for."""
        return make_root(self._place)

    @property
    def pid(self) -> int:
        """The daemon's process."""
        if self._process is None:
            raise RuntimeError("libvirtd does not run")
        return _child(self._process.pid)

    def uri(self, kind: str) -> str:
        """Return the URI of `qemu`, `lxc` or `test` there. What `test` holds dies with its last connection: see `held`."""
        return f"{kind}+unix://{_PATHS[kind]}?socket={self._socket}"

    def remote_uri(self, kind: str) -> str:
        """Return the URI by which a worker on another host would reach it; only of a daemon that listens."""
        if self._port is None:
            raise RuntimeError("this libvirtd does not listen; ask for one that does: private_libvirtd(…, listening=True)")
        return f"{kind}+tcp://127.0.0.1:{self._port}{_PATHS[kind]}"

    def start(self) -> None:
        """Start the daemon; return when it takes connections."""
        environment = {**os.environ, "LIBVIRT_DRIVER_DIR": str(self._place / "drivers")}
        with (self._place / "libvirtd.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._sandbox.command("libvirtd", *self._options()),
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        self._await_socket(self._process)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL, frozen or not; return when it is gone."""
        if self._process is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._signal_nsenter(signal.SIGCONT)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(_START_S)
            self._process = None

    def freeze(self) -> None:
        """Stop the daemon where it stands: connections stay, and nothing answers."""
        # nsenter first: it would stop itself when it sees its child stop, perhaps only after `thaw`, and then stop for ever.
        self._signal_nsenter(signal.SIGSTOP)
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen daemon go on."""
        os.kill(self.pid, signal.SIGCONT)
        self._signal_nsenter(signal.SIGCONT)

    def _signal_nsenter(self, what: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(what)

    def restart(self) -> None:
        """Kill the daemon and start it again; return when it has taken up its guests."""
        self.kill()
        self.start()
        if "qemu" in self._drivers:
            with held(self.uri("qemu")) as connection:
                for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                    # A question to the guest waits its turn behind that. A `destroy` would not, and libvirt 9.0 then loses the guest.
                    domain.memoryStats()

    def clear(self) -> None:
        """End all guests, so that their control groups go with them; those of a daemon that is dead stay behind, empty."""
        if self._process is None:
            return
        for kind in self._drivers:
            with held(self.uri(kind)) as connection:
                for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                    domain.destroy()

    @contextmanager
    def held(self, kind: str = "test") -> Iterator[Any]:
        """Hold a connection open, so that what lives as long as one does outlives the connection under test."""
        with held(self.uri(kind)) as connection:
            yield connection

    def _options(self) -> list[str]:
        options = ["-f", str(self._place / "libvirtd.conf"), "-p", "/run/libvirtd-private.pid"]
        return options if self._port is None else [*options, "--listen"]

    def _write_config(self, drivers: Sequence[str]) -> None:
        folder = self._place / "drivers"
        folder.mkdir()
        for driver in drivers:
            module = _modules(driver)[0]
            (folder / module.name).symlink_to(module)
        (self._place / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{self._place}"\nunix_sock_rw_perms = "0700"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            f'host_uuid = "{uuid.uuid4()}"\nlog_outputs = "3:stderr"\n'
            f'listen_tls = 0\nlisten_tcp = {int(self._port is not None)}\nlisten_addr = "127.0.0.1"\n'
            f'tcp_port = "{self._port or 0}"\nauth_tcp = "none"\n'
        )

    def _await_socket(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self._socket)) == 0:
                    return
            time.sleep(0.02)  # a daemon tells nobody that it listens
        raise RuntimeError(f"libvirtd did not start:\n{(self._place / 'libvirtd.log').read_text()}")


class Embedded:
    """A root for `qemu:///embed`, and the way to run a process that may open it."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.root = root
        self.uri = f"qemu:///embed?root={root}"

    def command(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` where the root can be opened; guests outlive it."""
        return self._sandbox.command(*argv)


@contextmanager
def private_libvirtd(*drivers: str, listening: bool = False) -> Iterator[Libvirtd]:
    """Run one libvirtd with `drivers` (`qemu`, `lxc`; `test` is always there), its guests and its files, apart from the machine's.

    listening: also on a TCP port of the loopback interface, as if it were on another host.
    """
    with _sandbox() as (place, sandbox):
        daemon = Libvirtd(place, sandbox, drivers, _free_port() if listening else None)
        daemon.start()
        try:
            yield daemon
            daemon.clear()
        finally:
            daemon.kill()


@contextmanager
def embedded_qemu() -> Iterator[Embedded]:
    """Make a root for the QEMU driver inside a process. Guests live as long as the context."""
    with _sandbox() as (place, sandbox):
        root = place / "e"
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        yield Embedded(root, sandbox)


@contextmanager
def held(uri: str) -> Iterator[Any]:
    """Hold a connection to `uri` open."""
    loop.ensure()
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _sandbox() -> Iterator[tuple[Path, Sandbox]]:
    with tempfile.TemporaryDirectory(prefix="vb") as name:  # short: sockets lie beneath it
        sandbox = Sandbox(Path(name))
        try:
            yield Path(name), sandbox
        finally:
            sandbox.leave()


def _modules(driver: str) -> list[Path]:
    return [path for pattern in _MODULES for path in Path("/usr").glob(pattern.format(driver))]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed")
    return path


def _write_users(place: Path) -> None:
    try:
        pwd.getpwnam("libvirt-qemu")
    except KeyError:
        (place / "passwd").write_text(Path("/etc/passwd").read_text() + "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n")
        (place / "group").write_text(Path("/etc/group").read_text() + "libvirt-qemu:x:64055:\n")


def _child(pid: int) -> int:
    """Return the one child of a process that forked once into a PID namespace."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)  # it is about to fork
    raise RuntimeError(f"process {pid} has no child")
