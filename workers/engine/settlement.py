"""What a look tells of a command in doubt: one that had begun when its worker died, or whose time was over while it ran."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.log import get_logger
from orchestrator.protocol.command import Command
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.error import Outcome
from workers.domain.admission import holds
from workers.domain.observe import remembered
from workers.domain.settle import settle
from workers.drivers.port import Sighting

log = get_logger()


class Settlement:
    """One command's. before: domains as they were known before this start."""

    def __init__(self, command: Command, uuid: str, before: Mapping[str, Observed]) -> None:
        self._command = command
        self._before = before.get(uuid)

    def outcome(self, now: Sighting | None) -> Outcome:
        """Return what became of the command, by the domain as it is now (None: there is none)."""
        if now is not None and now.state == "unknown":
            return "unknown"
        try:
            return settle(self._command.verb, self._command.args, now, existed=self._before is not None)
        except Exception:
            # The root of a settle rule that is not ours.
            log.exception("verb.settles_failed", verb=self._command.verb.name)
            return "unknown"

    @property
    def held_before(self) -> bool:
        """Whether what the verb is for held already when the command began: then it has changed nothing."""
        known = remembered(self._before)
        return known is not None and not self._command.verb.creates and holds(self._command.verb, self._command.args, known)
