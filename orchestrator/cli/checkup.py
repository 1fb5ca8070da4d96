"""What `virtbus doctor` looks at through the broker: each check yields findings, and none changes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec

from orchestrator.bus.logs import buckets, logs
from orchestrator.bus.nats import ChannelBus
from orchestrator.bus.nats_examiner import Denied, Examiner
from orchestrator.bus.port import LogConfig, NoResponder
from orchestrator.client import Client
from orchestrator.protocol import codec
from orchestrator.protocol.error import WireError
from orchestrator.protocol.node import Lease, Node
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.verb import VERBS

CLOCK_S = 2.0
"""Seconds by which clocks may differ before it is worth a word."""

SLOW_S = 0.25
FULL = 0.8

_PROVISION = "'virtbus provision' makes it; a coordinator does so at its start"
_DENIED = "this user may not look"

Verdict = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found. subject: of what; said: what is so; remedy: what to do about it."""

    subject: str
    verdict: Verdict
    said: str
    remedy: str = ""


def ok(subject: str, said: str) -> Finding:
    """Return that all is well."""
    return Finding(subject=subject, verdict="ok", said=said)


def warn(subject: str, said: str, remedy: str) -> Finding:
    """Return what should be looked at."""
    return Finding(subject=subject, verdict="warn", said=said, remedy=remedy)


def fail(subject: str, said: str, remedy: str) -> Finding:
    """Return what does not work."""
    return Finding(subject=subject, verdict="fail", said=said, remedy=remedy)


class Checkup:
    """All checks of one installation, over a connected bus, for one project. reader: name of the user's reader, if it is held to one."""

    def __init__(self, bus: ChannelBus, subjects: Subjects, project: str, reader: str) -> None:
        self._bus = bus
        self._examiner: Examiner = bus.examiner
        self._subjects = subjects
        self._project = project
        self._reader = reader
        self._client = Client(bus, subjects, project=project, reader=reader, patience_s=0.0)

    async def findings(self, server: str) -> AsyncIterator[Finding]:
        """Yield what is found, check after check. Raises `BusError` where the broker goes away meanwhile."""
        yield await self._broker(server)
        for check in (self._logs, self._clock, self._rights, self._coordinators, self._workers):
            async for finding in check():
                yield finding

    async def _broker(self, server: str) -> Finding:
        took = await self._examiner.round_trip_s()
        said = f"nats-server {self._examiner.version} at {server} answers in {took * 1000:.1f} ms"
        if took > SLOW_S:
            return warn("broker", said, "each command takes several such round trips: move closer to it, or look at its load")
        return ok("broker", said)

    async def _logs(self) -> AsyncIterator[Finding]:
        """Look whether each log and bucket is there, as this version provisions it, and has room."""
        well, hidden = 0, 0
        for log in (*logs(self._subjects, created=0.0), *buckets(self._subjects)):
            try:
                found = await self._log(log)
            except Denied:
                hidden += 1
            except NoResponder:
                yield fail("JetStream", "the broker has none", "start nats-server with -js, or enable it for this account")
                return
            else:
                well += not found
                for finding in found:
                    yield finding
        if well:
            yield ok("logs", f"{well} logs and buckets are there, as provisioned")
        if hidden:
            yield ok("logs", f"{hidden} logs and buckets not looked at: {_DENIED}")

    async def _log(self, log: LogConfig) -> list[Finding]:
        found, subject = await self._examiner.stream(log), f"log {log.name}"
        if found is None:
            return [fail(subject, "is missing", _PROVISION)]
        findings = []
        if found.differs:
            differs = ", ".join(f"{name} is {_plain(there)}, not {_plain(here)}" for name, (there, here) in found.differs.items())
            findings.append(warn(subject, differs, "'virtbus provision' puts it right, in place"))
        if found.full > FULL:
            remedy = "a coordinator trims it: does one run, and do all nodes live? 'virtbus provision --trim' does it without"
            findings.append(warn(subject, f"is {found.full:.0%} full", remedy))
        return findings

    async def _clock(self) -> AsyncIterator[Finding]:
        offset = self._examiner.offset_s
        if offset is None:
            return
        yield _clock("clock", "this machine's clock", -offset)

    async def _rights(self) -> AsyncIterator[Finding]:
        """Try what this user may publish and subscribe to, in a way that nothing comes of it."""
        project, subjects = self._project, self._subjects
        names = [verb.name for verb in VERBS.values() if verb.kind == "verb"]
        waited = [name for name in names if await self._examiner.may_publish(subjects.api(project, "_", name))]
        posted = [name for name in names if await self._examiner.may_publish(subjects.cmd(project, "_", name))]
        yield ok("rights", f"project {project}: commands {_listed(waited, names)}; left in the log {_listed(posted, names)}")
        told = subjects.evt("*", project, "*", ">")
        live = await self._examiner.may_subscribe(told)
        log = subjects.log_evt
        replayed = await self._examiner.may_publish(f"$JS.API.CONSUMER.CREATE.{log}.{self._reader or 'doctor'}.{told}")
        if live and replayed:
            yield ok("rights", f"project {project}: its events, live and replayed")
        else:
            may = "live only" if live else "replayed only" if replayed else "none"
            remedy = "ask for the permissions of a client of this project; where its reader has a name, give it with --reader"
            yield warn("rights", f"project {project}: its events: {may}", remedy)

    async def _coordinators(self) -> AsyncIterator[Finding]:
        try:
            answers = await self._examiner.everybody(f"$SRV.PING.{self._subjects.service('api')}", expected=1)
            names = sorted(str(_metadata(answer.body).get("coordinator", "?")) for answer in answers)
        except Denied:
            names = None
        try:
            await self._client.domains()
        except WireError as error:
            yield fail("coordinator", error.message, "start one with 'virtbus coordinator', or look at its log")
            return
        yield ok("coordinator", f"{', '.join(names)} answers" if names else "answers")

    async def _workers(self) -> AsyncIterator[Finding]:
        """Look whether each node lives and answers, its hypervisors are connected, and its clock is right."""
        if not await self._examiner.may_publish(self._subjects.api("_", "_", "nodes")):
            yield ok("workers", f"not looked at: {_DENIED}")
            return
        try:
            nodes = await self._client.nodes()
            answers = await self._examiner.everybody(f"$SRV.PING.{self._subjects.service('worker')}", expected=len(nodes))
        except Denied:
            yield ok("workers", f"not pinged: {_DENIED}")
            return
        except WireError as error:
            yield fail("workers", error.message, "see above")
            return
        answering = {str(_metadata(answer.body).get("node")) for answer in answers}
        if not nodes:
            yield warn("workers", "no node has ever come", "start one with 'virtbus worker --hypervisor URI' on each host")
        for node in nodes:
            for finding in await self._worker(node, answers=node.node in answering):
                yield finding

    async def _worker(self, node: Node, *, answers: bool) -> list[Finding]:
        subject, lease = f"worker {node.node}", await self._lease(node.node)
        if lease is None:
            remedy = "start it on its host ('virtbus worker'), or see its log: a worker whose hypervisor hangs loses its lease too"
            return [fail(subject, f"is offline; it was last heard of at {node.updated}", remedy)]
        if not answers:
            return [fail(subject, "holds its lease, but does not answer", "see its log; its permissions may lack '$SRV.>'")]
        findings = [ok(subject, f"version {node.version} is online, {node.domain_count} domains")]
        findings += _hypervisors(node)
        if abs(lease[1]) > CLOCK_S:
            findings.append(_clock(subject, "its clock", lease[1]))
        return findings

    async def _lease(self, node: str) -> tuple[Lease, float] | None:
        """Return a node's lease, and the seconds that its clock was ahead of the broker's when it was written; None if there is none."""
        bucket = self._subjects.bucket("leases")
        message = await self._bus.last(f"KV_{bucket}", f"$KV.{bucket}.{node}")
        if message is None or not message.body:
            return None
        lease = codec.decode(message.body, Lease)
        return lease, datetime.fromisoformat(lease.updated).timestamp() - message.time


def _hypervisors(node: Node) -> Iterable[Finding]:
    wanted = {verb.name for verb in VERBS.values() if verb.kind == "verb"}
    for one in node.hypervisors:
        subject = f"hypervisor {one.uri} of {node.node}"
        if not one.connected:
            remedy = "is its libvirtd running there? the worker connects again by itself"
            yield fail(subject, "is not connected", remedy)
            continue
        lacks = ", ".join(sorted(wanted - set(one.verbs)))
        yield ok(subject, f"version {one.version}, types {' '.join(one.types)}, all verbs{f' but {lacks}' if lacks else ''}")


def _clock(subject: str, whose: str, ahead_s: float) -> Finding:
    said = f"{whose} is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the broker's"
    if abs(ahead_s) <= CLOCK_S:
        return ok(subject, f"{whose} agrees with the broker's, {abs(ahead_s) * 1000:.0f} ms apart")
    return warn(subject, said, "have both keep time by NTP (chrony, systemd-timesyncd)")


def _listed(allowed: list[str], names: list[str]) -> str:
    return "all" if allowed == names else ", ".join(allowed) or "none"


def _metadata(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(body).get("metadata", {})
    return found


def _plain(value: Any) -> str:
    return codec.encode(value).decode()


