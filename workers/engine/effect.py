"""Waiting for what a call that returned has caused: its event, which must come, or a guest that may obey."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from orchestrator.protocol.verb import Verb
from workers.engine.hypervisor import POLL_S, Hypervisor
from workers.engine.queue import DomainQueue
from workers.journal.port import Entry

PATIENCE_S = 1.0
"""Seconds for which a call that returned waits for its event."""


async def caused(queue: DomainQueue, hypervisor: Hypervisor, entry: Entry, verb: Verb, left: Callable[[], float]) -> None:
    """Wait for the event that `verb` causes: briefly for one that must come, for `left` seconds for a guest that may obey.

    A hypervisor that tells none is looked at instead, again and again where the guest must obey.
    """
    if queue.has(verb.event) or not (hypervisor.tells or verb.asks_guest):
        return
    with anyio.move_on_after(max(0.0, left()) if verb.asks_guest else PATIENCE_S):
        if not hypervisor.tells:
            await _stopped(queue, hypervisor)
            return
        while not queue.has(verb.event):
            if verb.asks_guest and queue.restless:
                await queue.tell(entry)
            else:
                await queue.arrival()


async def _stopped(queue: DomainQueue, hypervisor: Hypervisor) -> None:
    """Look until the guest has obeyed."""
    while True:
        now = await queue.look(hypervisor, [])
        if now is None or not now.active:
            return
        await anyio.sleep(POLL_S)
