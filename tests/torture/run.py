"""One run: everything up, the plan and its faults, everything healed, silence awaited, and all evidence gathered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread

from orchestrator.bus.nats import NatsBus
from tests.e2e import audit
from tests.e2e.fleet import PROJECT_ROOT, everything
from tests.torture.plan import Deed, Plan
from tests.torture.senders import Senders
from tests.torture.site import Site
from tests.torture.tape import Tape
from tests.torture.verdict import Evidence, Shown

HEAL_S = 180.0
"""Seconds after the last fault within which every command has its end."""

AGREE_S = 60.0
"""Seconds after that within which the state keys say what libvirt says."""

QUIET_S = 2.0

Log = Callable[[str], None]


async def torture(plan: Plan, site: Site, say: Log) -> Evidence:
    """Do what the plan says and return what was seen; bounded in time, whatever the installation does."""
    tape = Tape()
    async with site.running(), site.client() as bus, anyio.create_task_group() as tasks:
        await tasks.start(tape.record, bus)
        senders = Senders(bus, plan)
        began = anyio.current_time()
        async with anyio.create_task_group() as deeds:
            sending = anyio.CancelScope()
            deeds.start_soon(_send, senders, sending)
            for deed in plan.faults:
                deeds.start_soon(_fault, site, deed, began, say)
            for deed in plan.meddling:
                deeds.start_soon(_meddle, site, deed, began)
            sending.deadline = began + plan.seconds + HEAL_S
        say(f"{anyio.current_time() - began:7.2f} healed")
        await _all_ended(tape, {send.id for send in plan.sends}, HEAL_S)
        say(f"{anyio.current_time() - began:7.2f} silent")
        keys, listed = await _states(site, bus, tape)
        say(f"{anyio.current_time() - began:7.2f} seen")
        tasks.cancel_scope.cancel()
    tape.save(site.home)
    return Evidence(
        plan=plan,
        cmd=tape.cmd,
        run=tape.run,
        evt=tape.evt,
        results=tape.results,
        answers=senders.answers,
        calls=site.calls(),
        keys=keys,
        listed=listed,
        unhelped=frozenset(deed.target for deed in plan.faults if deed.kind == "libvirtd-kill"),
        logs=site.logs(),
    )


async def _send(senders: Senders, scope: anyio.CancelScope) -> None:
    with scope:
        await senders.run()


async def _fault(site: Site, deed: Deed, began: float, say: Log) -> None:
    await anyio.sleep_until(began + deed.at)
    say(f"{anyio.current_time() - began:7.2f} {deed.kind} {deed.target} {deed.for_s:g} {time.time():.3f}")
    await site.fault(deed.kind, deed.target, deed.for_s)


async def _meddle(site: Site, deed: Deed, began: float) -> None:
    await anyio.sleep_until(began + deed.at)
    if deed.kind.endswith("-guest"):
        await site.guest(deed.kind, deed.domain, deed.for_s)
    else:
        await site.meddle(deed.target, deed.kind, deed.domain)


async def _all_ended(tape: Tape, ids: set[str], within_s: float) -> None:
    """Wait until each command has an end and nothing more is told, but not for ever: what is missing then is for the judge."""
    with anyio.move_on_after(within_s):
        while not ids <= audit.ends(audit.parsed(tape.evt)).keys():
            await tape.news(QUIET_S)
        while await tape.news(QUIET_S):
            pass


async def _states(site: Site, bus: NatsBus, tape: Tape) -> tuple[dict[str, Shown], dict[str, Shown]]:
    """Return the state keys and what libvirt says, once they agree or have had their time to; of an embedded driver after its worker."""
    outside = [node for node, kind in site.nodes.items() if kind == "test"]
    with anyio.move_on_after(AGREE_S):
        while True:
            keys = await _keys(site, bus)
            listed = {node: await _listed(site.uris[node]) for node in outside}
            if all(keys[node] == listed[node] for node in outside):
                break
            await tape.news(1.0)
    for node in site.nodes.keys() - set(outside):
        await site.stop_worker(node)
        listed[node] = await _listed(site.uris[node])
    return await _keys(site, bus), listed


async def _keys(site: Site, bus: NatsBus) -> dict[str, Shown]:
    kept = {message.subject: message.body for message in await everything(bus, "KV_virt_domains", "$KV.virt_domains.>")}
    found: dict[str, Shown] = {node: {} for node in site.nodes}
    for state in (json.loads(body) for body in kept.values() if body):
        found[state["node"]][state["name"]] = [state["state"], state["persistent"], state["autostart"]]
    return found


async def _listed(uri: str) -> Shown:
    command = [sys.executable, "-m", "tests.e2e.listing", uri, "show"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    listed = await anyio.run_process(command, stderr=subprocess.PIPE, env=environment)
    shown: Shown = json.loads(listed.stdout)
    return shown


def dump(folder: Path, plan: Plan) -> None:
    """Write a plan down beside the evidence."""
    lines = [f"{deed.at:8.3f} {deed.kind} {deed.target} {deed.domain} {deed.for_s:g}" for deed in [*plan.faults, *plan.meddling]]
    lines += [f"{send.at:8.3f} {send.way} {send.id} {send.verb} {send.subject} {send.body.decode()}" for send in plan.sends]
    (folder / "plan.txt").write_text("\n".join(sorted(lines)))
