"""Sends the show's commands through the client that other services import, and keeps their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demo.score import Score
from demo.screen import Screen
from orchestrator.client import Client
from orchestrator.protocol.command import Result
from orchestrator.protocol.domain import Observed


class Failed(Exception):
    """The show cannot go on; the message says why."""


class Sender:
    """Speaks of domains by name, in the default project. ids: of all that was sent, in order."""

    def __init__(self, client: Client, screen: Screen, score: Score) -> None:
        self.ids: list[str] = []
        self._client = client
        self._screen = screen
        self._score = score

    async def do(self, verb: str, name: str, args: Mapping[str, Any] | None = None, *, step: str = "") -> Result:
        """Send a command, await its end, and keep its time as `step`. Raises `Failed` if it did not succeed."""
        self._screen.act(f"virtbus {verb} {name}")
        began = self._screen.elapsed
        result = await self.attempt(verb, name, args)
        if not result.ok:
            raise Failed(f"{verb} {name} failed: {result.error}")
        self._score.took(step or verb, self._screen.elapsed - began, result.duration_ms)
        return result

    async def attempt(self, verb: str, name: str, args: Mapping[str, Any] | None = None) -> Result:
        """Send a command and return how it ended, well or not."""
        return await self._client.attempt(name, verb, args, id=self._fresh(verb))

    async def post(self, verb: str, name: str) -> str:
        """Leave a command in the log and return its id."""
        return await self._client.post(name, verb, id=self._fresh(verb))

    async def seen(self, name: str) -> Observed:
        """Return what the bus tells of a domain."""
        return await self._client.get(name)

    async def expect(self, name: str, state: str, *, after: str) -> Observed:
        """Judge the state that the bus tells; who has an answer can read it. Return the whole record."""
        seen = await self.seen(name)
        self._score.judge(f"after {after}, {name} is {state}", [] if seen.state == state else [f"it is {seen.state}"])
        return seen

    async def names(self) -> list[str]:
        """Return the names of all domains there are."""
        return [domain.name for domain in await self._client.domains()]

    def _fresh(self, verb: str) -> str:
        self.ids.append(f"demo-{len(self.ids) + 1}-{verb}")
        return self.ids[-1]
