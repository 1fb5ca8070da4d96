"""Podman for tests, apart from the machine's own: its images, containers and volumes lie in one directory, and end with the test.

Nothing is fetched from a registry of images: the base image is a Debian made by debootstrap, kept as an archive for the next time.
The machine may itself be a container with less than podman expects: no systemd, lower limits than podman's defaults, a mixed
hierarchy of control groups. Each of these is met where it is said below.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.hypervisors import Sandbox

ROOT = Path(__file__).resolve().parents[1]
BASE = "localhost/base"
SUITE = "bookworm"

_KEPT = ROOT / ".containers"
_INCLUDED = "python3,python3-venv,ca-certificates"
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 65_536), "nproc": (resource.RLIMIT_NPROC, 32_768)}
_PARENT = "libpod_parent"
_STATE = Path("/var/lib/containers")
_PATIENCE_S = 900.0


@functools.cache
def unavailable() -> str | None:
    """Return why no container can run here, None if one can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("podman", "crun", "debootstrap", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"needs {tool}; tools/setup node installs it"
    if subprocess.run([shutil.which("unshare") or "", "-m", "-p", "true"], check=False, capture_output=True).returncode:
        return "needs the right to make mount and PID namespaces"
    return None


class Engine:
    """Podman with a storage of its own, in a sandbox: what it starts ends with the sandbox, whatever happens."""

    def __init__(self, place: Path, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._place = place
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self._write("containers.conf", _settings(place))),
            "CONTAINERS_STORAGE_CONF": str(self._write("storage.conf", _storage(place))),
        }

        self.run("mkdir", "-p", str(_STATE))
        self.run("mount", "-t", "tmpfs", "tmpfs", str(_STATE))  # whatever the settings say, it keeps a cache there

    def run(self, *argv: str, input: str = "", environment: Mapping[str, str] | None = None) -> str:
        """Run a command in the sandbox; return what it wrote to stdout. Raises `RuntimeError` with its last words if it failed."""
        process = subprocess.run(
            self._sandbox.command(*argv), input=input, capture_output=True, text=True, timeout=_PATIENCE_S,
            env={**self._environment, **(environment or {})}, check=False,
        )  # fmt: skip
        if process.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}:\n{process.stdout[-3000:]}\n{process.stderr[-3000:]}")
        return process.stdout

    def podman(self, *argv: str) -> str:
        """Run podman; as `run`."""
        return self.run("podman", *argv)

    def load(self) -> None:
        """Make the image `BASE`, which trusts whom this machine trusts, so that pip gets through the same proxies."""
        self.podman("import", "--change", f"ENV PIP_CERT={_AUTHORITIES}", str(_base()), BASE)

    def left(self) -> dict[str, list[str]]:
        """Return what podman has beside images, and the processes in the sandbox."""
        listings = {
            "containers": ["ps", "--all", "--format", "{{.Names}}"],
            "pods": ["pod", "ls", "--format", "{{.Name}}"],
            "volumes": ["volume", "ls", "--format", "{{.Name}}"],
            "networks": ["network", "ls", "--format", "{{.Name}}"],
        }
        processes = self.run("sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null").split()
        return {**{kind: self.podman(*listing).split() for kind, listing in listings.items()}, "processes": processes}

    def _write(self, name: str, text: str) -> Path:
        path = self._place / name
        path.write_text(text)
        return path


@contextmanager
def private_podman() -> Iterator[Engine]:
    """Run podman with everything of its own, in a directory that is removed at the end."""
    parents, new = _parents(), not _STATE.exists()
    with tempfile.TemporaryDirectory(prefix="vb") as name:
        sandbox = Sandbox(Path(name))
        try:
            yield Engine(Path(name), sandbox)
        finally:
            sandbox.leave()
            for parent in _parents() - parents:
                _remove(parent)
            if new:
                with suppress(OSError):  # somebody else's podman keeps something there by now
                    _STATE.rmdir()


def _settings(place: Path) -> str:
    """Return podman's settings. Its own defaults would raise limits, which a process in a container may not."""
    limits = ", ".join(f'"{name}={_limit(*limit)}"' for name, limit in _LIMITS.items())
    return (
        f'[containers]\ndefault_ulimits = [{limits}]\n'
        # health checks would be systemd's timers: where there is no systemd, no container with one could start
        '[engine]\nenv = ["DISABLE_HC_SYSTEMD=true"]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'[network]\nnetwork_config_dir = "{place}/networks"\n'
    )


def _limit(kind: int, enough: int) -> str:
    allowed = resource.getrlimit(kind)[1]
    limit = enough if allowed == resource.RLIM_INFINITY else min(enough, allowed)
    return f"{limit}:{limit}"


def _storage(place: Path) -> str:
    return f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/storage"\nrunroot = "{place}/run"\n'


def _base() -> Path:
    """Return the archive of the base system; made at the first time, which takes a minute."""
    archive = _KEPT / f"{SUITE}.tar"
    if not archive.exists():
        _KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="vb") as name:
            root, draft = Path(name) / "root", archive.with_suffix(".new")
            _do("debootstrap", "--variant=minbase", f"--include={_INCLUDED}", SUITE, str(root))
            shutil.rmtree(root / "var" / "cache" / "apt" / "archives")
            authorities = ssl.get_default_verify_paths().cafile or _AUTHORITIES
            shutil.copyfile(authorities, root / _AUTHORITIES.lstrip("/"))
            _do("tar", "--numeric-owner", "-C", str(root), "-cf", str(draft), ".")
            draft.replace(archive)
    return archive


def _do(tool: str, *argv: str) -> None:
    subprocess.run([shutil.which(tool) or tool, *argv], check=True, stdout=subprocess.DEVNULL)


def _parents() -> set[Path]:
    """Return the control groups that podman makes for all its containers."""
    return {*Path("/sys/fs/cgroup").glob(_PARENT), *Path("/sys/fs/cgroup").glob(f"*/{_PARENT}")}


def _remove(group: Path) -> None:
    """Remove a control group with those in it; one that somebody else uses meanwhile stays."""
    for child in sorted(group.rglob("*/"), reverse=True):
        with suppress(OSError):
            child.rmdir()
    with suppress(OSError):
        group.rmdir()
