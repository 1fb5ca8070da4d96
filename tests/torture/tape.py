"""What the broker and the answers said during a run, written down by an outsider as it happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskStatus

from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import BusError, Message, Start
from tests.e2e.fleet import SUBJECTS

Told = dict[str, Any]


class Tape:
    """Follows the three logs, which are trimmed meanwhile, and hears all results. Its lists are in the order of the logs."""

    def __init__(self) -> None:
        self.cmd: list[Message] = []
        self.run: list[Message] = []
        self.evt: list[Message] = []
        self.results: list[Told] = []
        self._changed = anyio.Event()

    async def record(self, bus: NatsBus, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Write down for ever; started once results are heard."""
        async with bus.listen(SUBJECTS.results, self._heard), anyio.create_task_group() as tasks:
            for log, subjects, sink in (
                (SUBJECTS.log_cmd, SUBJECTS.cmds, self.cmd),
                (SUBJECTS.log_run, SUBJECTS.runs(), self.run),
                (SUBJECTS.log_evt, SUBJECTS.events, self.evt),
            ):
                tasks.start_soon(self._follow, bus, log, subjects, sink)
            task_status.started()

    async def news(self, within_s: float) -> bool:
        """Wait until something more is written down; False if nothing was for `within_s` seconds."""
        self._changed = anyio.Event()
        with anyio.move_on_after(within_s):
            await self._changed.wait()
        return self._changed.is_set()

    def save(self, folder: Path) -> None:
        """Write everything to files, one line a message."""
        for name, messages in (("cmd", self.cmd), ("run", self.run), ("evt", self.evt)):
            lines = [
                json.dumps([message.sequence, message.time, message.subject, dict(message.headers), message.body.decode(errors="replace")])
                for message in messages
            ]
            (folder / f"{name}.jsonl").write_text("\n".join(lines))
        (folder / "results.jsonl").write_text("\n".join(json.dumps(told) for told in self.results))

    async def _follow(self, bus: NatsBus, log: str, subjects: str, sink: list[Message]) -> None:
        while True:
            await bus.link.up()
            after = Start(sequence=sink[-1].sequence + 1) if sink else Start()
            try:
                reader = await bus.reader(log, f"tape-{log}", subjects, after)
                while True:
                    found = await reader.take(500, wait_s=5.0)
                    sink += found
                    if found:
                        self._changed.set()
            except BusError:
                await anyio.sleep(0.1)  # the broker is away: that is the point

    def _heard(self, message: Message) -> None:
        self.results.append(json.loads(message.body))
