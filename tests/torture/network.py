"""A network namespace for one process of the system, on a wire of its own that can be cut: then TCP hangs, as on a dead switch."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

_START_S = 10.0


class Wire:
    """A namespace and the wire to it; both go when `close` is called or the process that holds them ends.

    here: our address on it, under which whoever is inside finds us.
    """

    def __init__(self, number: int) -> None:
        """Lay the wire; `number`, from 1 to 250, is given but once."""
        self.here = f"10.77.{number}.1"
        self._name = f"vb{number}"
        self._holder = subprocess.Popen([_tool("unshare"), "-n", _tool("sleep"), "infinity"])
        try:
            self._await_namespace()
            self._lay(f"10.77.{number}.2/30")
        except BaseException:
            self.close()
            raise

    @property
    def namespace(self) -> str:
        """The file by which a process enters it."""
        return f"/proc/{self._holder.pid}/ns/net"

    def cut(self) -> None:
        """Let nothing through, in both directions; nobody is told."""
        _ip("link", "set", self._name, "down")

    def mend(self) -> None:
        """Let everything through again."""
        _ip("link", "set", self._name, "up")

    def close(self) -> None:
        """Give the namespace back once nobody is inside."""
        self._holder.kill()
        self._holder.wait()

    def _await_namespace(self) -> None:
        deadline = time.monotonic() + _START_S
        while Path(self.namespace).readlink() == Path("/proc/self/ns/net").readlink():
            if time.monotonic() > deadline:
                raise RuntimeError("no network namespace was made")
            time.sleep(0.005)  # `unshare` tells nobody that it has

    def _lay(self, there: str) -> None:
        pid = str(self._holder.pid)
        inside = (_tool("nsenter"), "-t", pid, "-n", _tool("ip"))
        _ip("link", "add", self._name, "type", "veth", "peer", "name", "uplink", "netns", pid)
        _ip("addr", "add", f"{self.here}/30", "dev", self._name)
        self.mend()
        for words in ("link set lo up", f"addr add {there} dev uplink", "link set uplink up"):
            subprocess.run([*inside, *words.split()], check=True)


def missing() -> str | None:
    """Return what is missing to make wires, None if nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    return next((f"needs {tool}" for tool in ("ip", "unshare", "nsenter") if shutil.which(tool, path=_PATH) is None), None)


_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _tool(name: str) -> str:
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise RuntimeError(f"{name} is not installed")
    return path


def _ip(*words: str) -> None:
    subprocess.run([_tool("ip"), *words], check=True)
