"""`virtbus up`: the whole system from one command, as a tree of processes under this one."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
from anyio.abc import TaskGroup

from orchestrator.bus.embedded import Embedded, User
from orchestrator.bus.port import Unavailable
from orchestrator.cli.children import Broker, Child, Part
from orchestrator.cli.layout import EMBED, Layout
from orchestrator.cli.orphans import adopt
from orchestrator.cli.settings import SERVER
from orchestrator.protocol import permission
from orchestrator.protocol.subject import Subjects

BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a part that died is started again: after its first death, its second …"""

STEADY_S = 10.0
"""Seconds after which a part that lived so long begins again at the first of them."""

STAGES_S = (0.3, 0.3, 1.2)
"""Seconds that broker, coordinator and workers get to end in order: together under two, so that Ctrl-C is done by then."""

COORDINATOR = "coordinator"
_LOCAL = "local"

Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What shall run. hypervisors: URIs of every node; port 0: a free one; durable: survive a power loss too."""

    data_dir: Path
    nodes: int
    hypervisors: tuple[str, ...]
    port: int
    prefix: str
    durable: bool


class System:
    """Broker, coordinator and workers of one plan; `say` tells people what happens, a line each."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._layout = Layout(plan.data_dir)
        self._subjects = Subjects(plan.prefix)
        self._nodes = [f"n{number}" for number in range(1, plan.nodes + 1)]
        self._passwords = {user: secrets.token_hex(24) for user in (_LOCAL, COORDINATOR, *self._nodes)}
        self._embedded = Embedded(
            self._layout.broker, port=plan.port, users=self._users(), no_auth_user=_LOCAL, sync_always=plan.durable
        )
        self._parts: list[tuple[int, Part, Path]] = []

    async def run(self) -> None:
        """Run until a signal comes, then end everything.

        Raises `Conflict` if the directory is in use, `Unavailable` if a part does not start.
        """
        if any(uri.startswith(EMBED) for uri in self._plan.hypervisors):
            adopt()
        failure: BaseException | None = None
        with self._layout.held():
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_until_told, tasks.cancel_scope)
                    await self._start(tasks)
                    await anyio.sleep_forever()
            except* Unavailable as failures:
                failure = _first(failures)
            finally:
                await self._end()
        if failure is not None:
            raise failure  # not above: early Python 3.11 puts what is raised there into a group of its own

    async def _start(self, tasks: TaskGroup) -> None:
        """Start all parts: the broker, then the coordinator, which makes the logs, then the workers at the same time."""
        await self._start_broker(tasks)
        await self._bring_up(self._coordinator(), self._layout.root / "coordinator.pid", tasks, 1)
        async with anyio.create_task_group() as starting:
            for node in self._nodes:
                starting.start_soon(self._bring_up, self._worker(node), self._layout.node(node) / "worker.pid", tasks, 2)
        server = "" if self._embedded.url == SERVER else f"export VIRTBUS_SERVER={self._embedded.url}; "
        self._say(f"ready; in another terminal try: {server}virtbus nodes; virtbus events; virtbus --help")

    async def _start_broker(self, tasks: TaskGroup) -> None:
        try:
            await self._bring_up(Broker(self._embedded), self._layout.root / "broker.pid", tasks, 0)
        except Unavailable as failure:
            if _in_use(self._plan.port):
                sentence = f"port {self._plan.port} of this machine is in use; choose another --port, or 0 for a free one"
                raise Unavailable(sentence) from failure
            raise

    async def _bring_up(self, part: Part, pid_file: Path, tasks: TaskGroup, stage: int) -> None:
        self._parts.append((stage, part, pid_file))
        await self._started(part, pid_file)
        tasks.start_soon(self._keep, part, pid_file)

    async def _started(self, part: Part, pid_file: Path) -> None:
        said = await part.start()
        _record(part.pid, pid_file)
        self._say(f"{part.name} ready (pid {part.pid}): {said}")

    async def _keep(self, part: Part, pid_file: Path) -> None:
        """Start a part again whenever it has ended, later each time unless it lived for a while."""
        deaths = 0
        while True:
            began = anyio.current_time()
            await part.ended()
            deaths = 0 if anyio.current_time() - began > STEADY_S else deaths
            self._say(f"{part.name} ended; starting it again")
            while True:
                await anyio.sleep(BACKOFF_S[min(deaths, len(BACKOFF_S) - 1)])
                deaths += 1
                try:
                    await self._started(part, pid_file)
                    break
                except Unavailable as failure:
                    self._say(f"{failure}; trying again")

    async def _end(self) -> None:
        """End all parts in the opposite order, each within its time."""
        with anyio.CancelScope(shield=True):
            for stage in (2, 1, 0):
                async with anyio.create_task_group() as ending:
                    for _, part, pid_file in [each for each in self._parts if each[0] == stage]:
                        ending.start_soon(part.stop, STAGES_S[stage])
                        pid_file.unlink(missing_ok=True)

    def _users(self) -> list[User]:
        """Return who may come in: people on this machine for everything, each process of ours for what it needs."""
        allowed = {
            _LOCAL: None,
            COORDINATOR: permission.coordinator(self._subjects, COORDINATOR),
            **{node: permission.worker(self._subjects, node) for node in self._nodes},
        }
        return [User(name=user, password=self._passwords[user], permissions=permissions) for user, permissions in allowed.items()]

    def _environment(self, user: str) -> dict[str, str]:
        """Return what a child is told beside its command line, which everybody on this machine can read."""
        server = self._embedded.url.replace("://", f"://{user}:{self._passwords[user]}@")
        return {"VIRTBUS_SERVER": server, "VIRTBUS_PREFIX": self._plan.prefix}

    def _coordinator(self) -> Child:
        arguments = ["-m", "orchestrator.cli", "--wait", "coordinator", "--name", COORDINATOR]
        return Child("coordinator", arguments, self._environment(COORDINATOR), fresh(self._layout.root / "coordinator.log"))

    def _worker(self, node: str) -> Child:
        home = self._layout.node(node)
        hypervisors = [self._layout.hypervisor(uri, node) for uri in self._plan.hypervisors]
        arguments = ["-m", "workers", "--wait", "--node", node, "--data-dir", str(home)]
        for uri in hypervisors:
            arguments += ["--hypervisor", uri]
        if self._plan.durable:
            arguments.append("--durable")
        return Child(f"worker {node}", arguments, self._environment(node), fresh(home / "worker.log"))


async def _until_told(scope: anyio.CancelScope) -> None:
    """Cancel `scope` at the first signal; a second one ends this process at once, and the kernel ends its children."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        await anext(aiter(signals))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    scope.cancel()


def _in_use(port: int) -> bool:
    """Tell whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return port > 0 and probe.connect_ex(("127.0.0.1", port)) == 0


def _record(pid: int, pid_file: Path) -> None:
    """Write a process id for others to find."""
    pid_file.write_text(f"{pid}\n")


def fresh(log: Path) -> Path:
    """Return `log` for writing from its beginning; what it held is kept once more beside it."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    return log


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
