"""Commands for health checks: is this coordinator, this worker, well? Asked with its own credentials, so it needs no others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import render
from orchestrator.cli.settings import Command, Settings
from orchestrator.protocol.error import NodeUnavailable

if TYPE_CHECKING:
    from orchestrator.bus.port import Bus
    from orchestrator.protocol.subject import Subjects

_ASKS = 20


@click.group(short_help="tell whether a coordinator or a worker is well")
def health() -> None:
    """Tell whether one process is well, and exit 0 if so: for health checks of containers and services."""


def _timeout(command: Callable[..., Any]) -> Callable[..., Any]:
    option = click.option(
        "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds that all of it may take."
    )
    return option(command)


@health.command(cls=Command, short_help="does it answer requests?")
@click.option("--name", metavar="NAME", help="What it is called among coordinators (default: this host's name).")
@_timeout
@click.pass_obj
def coordinator(settings: Settings, name: str | None, timeout_s: float) -> None:
    """Ask the coordinator itself, through the broker."""
    from orchestrator.service import host  # noqa: PLC0415  not on the way of --help

    wanted = name or host()

    async def answers(bus: Bus, subjects: Subjects) -> None:
        for _ in range(_ASKS):  # where there are several, all answer, and only the fastest is heard
            if wanted == await _answering(bus, f"$SRV.PING.{subjects.service('api')}", timeout_s):
                return
        raise NodeUnavailable(f"coordinator {wanted} does not answer, though another one does")

    _probe(settings, answers, timeout_s)
    render.say(f"coordinator {wanted} answers")


@health.command(cls=Command, short_help="is it ready, and does it hold its lease?")
@click.option("--node", metavar="NODE", help="Its name (default: this host's name).")
@_timeout
@click.pass_obj
def worker(settings: Settings, node: str | None, timeout_s: float) -> None:
    """Look for the worker's lease, which it renews only while both its way to the broker and its hypervisors work."""
    from orchestrator.service import host  # noqa: PLC0415  not on the way of --help

    wanted = node or host()

    async def leased(bus: Bus, subjects: Subjects) -> None:
        lease = await _epoch(bus, subjects.bucket("leases"), wanted)
        if lease is None:
            why = "it has not started, has lost the broker, or a hypervisor does not answer"
            raise NodeUnavailable(f"worker {wanted} holds no lease: {why}; see its log")
        if lease != await _epoch(bus, subjects.bucket("nodes"), wanted):
            raise NodeUnavailable(f"worker {wanted} holds its lease and is not ready yet")

    _probe(settings, leased, timeout_s)
    render.say(f"worker {wanted} is ready and holds its lease")


async def _epoch(bus: Bus, bucket: str, node: str) -> str | None:
    """Return the epoch of the worker that wrote a node's key, None if there is no key."""
    import msgspec  # noqa: PLC0415  not on the way of --help

    from orchestrator.store.kv import KeyValue  # noqa: PLC0415  as above

    entry = await KeyValue(bus, bucket).get(node)
    return None if entry is None or entry.value is None else str(msgspec.json.decode(entry.value).get("epoch"))


async def _answering(bus: Bus, subject: str, timeout_s: float) -> str:
    """Return the name of the coordinator that answers first; raise `NodeUnavailable` if none does."""
    import msgspec  # noqa: PLC0415  not on the way of --help

    from orchestrator.bus.port import NoResponder  # noqa: PLC0415  as above

    try:
        answer = await bus.request(subject, b"", timeout_s=timeout_s)
    except NoResponder as error:
        raise NodeUnavailable("no coordinator answers") from error
    return str(msgspec.json.decode(answer.body).get("metadata", {}).get("coordinator"))


def _probe(settings: Settings, question: Callable[[Bus, Subjects], Awaitable[None]], timeout_s: float) -> None:
    """Connect and await `question`. Raises what it raises, and `NodeUnavailable` when the time is up."""
    import anyio  # noqa: PLC0415  not on the way of --help

    from orchestrator.cli.session import quiet  # noqa: PLC0415  as above

    quiet(settings)
    anyio.run(_connected, settings, question, timeout_s)


async def _connected(settings: Settings, question: Callable[[Bus, Subjects], Awaitable[None]], timeout_s: float) -> None:
    import anyio  # noqa: PLC0415  not on the way of --help

    from orchestrator.bus.reach import arrive, bus_at  # noqa: PLC0415  as above
    from orchestrator.protocol.subject import Subjects  # noqa: PLC0415  as above

    creds = Path(settings.creds) if settings.creds else None
    try:
        with anyio.fail_after(timeout_s):
            async with bus_at(settings.server, name="virtbus-health", creds=creds) as bus:
                await arrive(bus, wait=False)
                await question(bus, Subjects(settings.prefix))
    except TimeoutError as error:
        raise NodeUnavailable(f"no answer within {timeout_s:g} s") from error


COMMANDS = (health,)
