"""The show itself: one domain's life through the bus, and a worker killed in the middle of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from uuid import uuid4

import anyio
from anyio.abc import TaskGroup

from demo import guest, serial, witness
from demo.fleet import NODES, Fleet
from demo.record import Record
from demo.score import Score
from demo.screen import Screen
from demo.sender import Failed, Sender
from demo.stage import Acceleration, Stage
from orchestrator.client import Client
from orchestrator.protocol.error import DeadlineExceeded, NodeUnavailable
from orchestrator.protocol.event import TERMINAL, Event
from orchestrator.protocol.node import Node

NAME = "web1"
TRIAL = "kvm-trial"
LIFE = ("defined", "started", "suspended", "resumed", "stopped", "started", "stopped", "undefined")

UP_S = 60.0
"""Seconds until both workers serve: each asks its QEMU first what it can do."""
BOOT_S = 60.0
TRIAL_S = 8.0
BACK_S = 30.0
BURST = 20
KILLED_AFTER = 3

_PRETENDED = f"""<domain type='test'>
  <name>{NAME}</name><uuid>{{uuid}}</uuid><memory unit='MiB'>64</memory><os><type>hvm</type></os>
</domain>"""


class Play:
    """One performance, on one fleet."""

    def __init__(self, client: Client, fleet: Fleet, stage: Stage, screen: Screen, score: Score) -> None:
        self._client = client
        self._fleet = fleet
        self._hypervisor = stage.hypervisor
        self._guest = stage.guest.copy_to(fleet.folder) if stage.guest is not None else None
        self._screen = screen
        self._score = score
        self._sender = Sender(client, screen, score)
        self._events: Record[Event] = Record()
        self._console: Record[str] = Record()
        self._uuid = uuid4()
        self._boots = 0

    async def perform(self) -> None:
        """Play all acts. Raises `Failed`, or what the client raises."""
        async with anyio.create_task_group() as group:
            await self._curtain(group)
            xml = await self._written(group)
            await self._sender.do("create-xml", NAME, {"xml": xml, "node": NODES[0]}, step="create")
            await self._boot()
            await self._pause()
            await self._kill(xml)
            await self._stop_and_start()
            await self._remove()
            await self._examine()
            group.cancel_scope.cancel()

    async def _curtain(self, group: TaskGroup) -> None:
        """Wait until both nodes have announced themselves, and follow the events from the first one on."""
        began = self._screen.elapsed
        while len(await self._nodes()) < len(NODES):
            if self._screen.elapsed - began > UP_S:
                raise Failed(f"the workers did not come up within {UP_S:g} s:\n{self._fleet.last_words()}")
            await anyio.sleep(0.1)
        group.start_soon(self._listen)
        self._score.took("broker, coordinator and two workers up", self._screen.elapsed - began)

    async def _nodes(self) -> list[Node]:
        try:
            return await self._client.nodes()
        except (NodeUnavailable, DeadlineExceeded):  # the coordinator does not serve yet
            return []

    async def _listen(self) -> None:
        async for event in self._client.events(every=True, after=0):
            self._events.add(event)
            self._screen.event(event)

    async def _written(self, group: TaskGroup) -> str:
        """Return the domain's XML, and follow its console, if it has one."""
        if self._guest is None:
            return _PRETENDED.format(uuid=self._uuid)
        acceleration = Acceleration()
        if acceleration.known is None:
            await self._try_kvm(self._guest, acceleration)
        self._screen.note(acceleration.sentence)
        log = self._fleet.folder / f"{NAME}.log"
        group.start_soon(serial.follow, log, self._hear)
        return self._guest.domain_xml(NAME, type="kvm" if acceleration.known else "qemu", log=log, uuid=self._uuid)

    async def _try_kvm(self, tried: guest.Guest, acceleration: Acceleration) -> None:
        """Boot a guest under KVM, on the second node, and remember whether it came up."""
        if not any("kvm" in one.types for node in await self._nodes() for one in node.hypervisors):
            return
        self._screen.act(f"a trial: does a guest boot under KVM here, within {TRIAL_S:g} s?")
        log, lines = self._fleet.folder / f"{TRIAL}.log", Record[str]()
        xml = tried.domain_xml(TRIAL, type="kvm", log=log)
        async with anyio.create_task_group() as group:
            group.start_soon(serial.follow, log, lines.add)
            if (await self._sender.attempt("create-xml", TRIAL, {"xml": xml, "node": NODES[1]})).ok:
                acceleration.learn(await lines.holds(_says(guest.READY), limit_s=TRIAL_S))
                for verb in ("destroy", "undefine"):
                    await self._sender.do(verb, TRIAL, step=f"{verb} the trial")
            group.cancel_scope.cancel()

    async def _boot(self) -> None:
        """Wait until the guest says that it is up."""
        if self._guest is None:
            return
        self._boots += 1
        began = self._screen.elapsed
        if not await self._console.holds(_says(guest.READY), times=self._boots, limit_s=BOOT_S):
            raise Failed(f"the guest did not boot within {BOOT_S:g} s")
        self._score.took(f"kernel booted to its first program ({self._boots})", self._screen.elapsed - began)

    async def _pause(self) -> None:
        await self._sender.do("suspend", NAME)
        await self._sender.expect(NAME, "paused", after="suspend")
        await self._sender.do("resume", NAME)
        await self._sender.expect(NAME, "running", after="resume")

    async def _kill(self, xml: str) -> None:
        """Kill the worker in the middle of a burst of commands, and see each of them end."""
        before, qemu = await self._sender.seen(NAME), self._fleet.qemu_pids()
        await self._burst()
        if self._guest is None:
            self._screen.note("the test driver's domains end with their process; the domain is made again")
            await self._sender.do("create-xml", NAME, {"xml": xml, "node": NODES[0]}, step="create, again")
            return
        after = await self._sender.expect(NAME, "running", after="the kill and the commands")
        faults = [f"QEMU was process {qemu}, and is {self._fleet.qemu_pids()}"] if qemu != self._fleet.qemu_pids() else []
        faults += [f"it was {before.incarnation}, and is {after.incarnation}"] if after.incarnation != before.incarnation else []
        faults += ["it booted anew"] if self._console.count(_says(guest.READY)) != self._boots else []
        self._score.judge("the guest did not notice that its worker was killed", faults)

    async def _burst(self) -> None:
        """Post the commands, kill the worker when the first have ended, and wait until all have."""
        self._screen.act(f"{BURST} commands, and kill -9 for the worker of {NODES[0]} in the middle")
        first = len(self._sender.ids)
        began = self._screen.elapsed
        async with anyio.create_task_group() as group:
            group.start_soon(self._strike)
            for number in range(BURST):
                await self._sender.post("resume" if number % 2 else "suspend", NAME)
        ended = _ends(self._sender.ids[first:])
        if not await self._events.holds(ended, times=BURST, limit_s=BACK_S):
            raise Failed(f"of {BURST} commands only {self._events.count(ended)} ended within {BACK_S:g} s after the kill")
        self._score.took("worker killed and back, all commands ended", self._screen.elapsed - began)
        well = self._events.count(lambda event: ended(event) and event.name == "command.succeeded")
        self._screen.done(f"{BURST} commands ended, {well} of them with success")

    async def _strike(self) -> None:
        """Kill the worker as soon as some more commands have ended, and wait for the next one."""
        old = await self._fleet.worker_pid(NODES[0], BACK_S)
        if not await self._events.holds(_is_end, times=self._events.count(_is_end) + KILLED_AFTER, limit_s=BACK_S):
            raise Failed(f"not even {KILLED_AFTER} of the commands ended within {BACK_S:g} s")
        os.kill(old, signal.SIGKILL)
        self._screen.done(f"kill -9 {old}")
        await self._fleet.worker_pid(NODES[0], BACK_S, other_than=old)

    async def _stop_and_start(self) -> None:
        await self._sender.do("shutdown", NAME)
        await self._sender.expect(NAME, "shutoff", after="shutdown")
        if self._guest is not None:
            heard = await self._console.holds(_says(guest.OBEYS), limit_s=1.0)
            self._score.judge("the guest obeyed the power button", [] if heard else ["its console does not say so"])
        await self._sender.do("start", NAME, step="start, again")
        await self._boot()
        await self._sender.do("destroy", NAME)
        await self._sender.expect(NAME, "shutoff", after="destroy")

    async def _remove(self) -> None:
        await self._sender.do("undefine", NAME)
        qemus = [f"QEMU process {pid}" for pid in self._fleet.qemu_pids()]
        self._score.judge("no domain and no QEMU is left", [*await self._sender.names(), *qemus])

    async def _examine(self) -> None:
        """Read the log of events as a stranger would, and judge it."""
        ids = self._sender.ids
        await self._events.holds(_ends(ids), times=len(ids), limit_s=BACK_S)
        seen = self._events.items
        self._score.judge(f"each of {len(ids)} commands has one terminal event", witness.wrong_ends(seen, ids))
        self._score.judge(f"{len(seen)} events: sequences from 1, without holes, in each worker's epoch", witness.holes(seen))
        self._score.judge("each epoch of a worker goes on where the one before ended", witness.torn_epochs(seen))
        self._score.judge("the events of each domain form one chain", witness.broken_chains(seen))
        self._score.judge("the domain's life is told in order", witness.missing_steps(seen, str(self._uuid), LIFE))

    def _hear(self, line: str) -> None:
        self._console.add(line)
        self._screen.serial(line, always=line in (guest.READY, guest.OBEYS))


def _says(text: str) -> Callable[[str], bool]:
    return lambda line: text in line


def _is_end(event: Event) -> bool:
    return event.name in TERMINAL


def _ends(ids: Collection[str]) -> Callable[[Event], bool]:
    wanted = frozenset(ids)
    return lambda event: _is_end(event) and event.commandid in wanted
