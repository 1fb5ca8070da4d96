"""The micro service `virt-api`: every request on `api`, each a task of its own (PROTOCOL §2, §8)."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.bus.port import Headers, Message
from orchestrator.control.intake import Malformed, read
from orchestrator.engine.questions import Questions
from orchestrator.engine.router import Router
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import Addressed, Subjects
from orchestrator.protocol.verb import VERBS, Verb


class Api:
    """Tells commands from questions. `now` gives broker time, `fresh_id` an id that nobody has."""

    def __init__(
        self, subjects: Subjects, router: Router, questions: Questions, *, now: Callable[[], float], fresh_id: Callable[[], str]
    ) -> None:
        self._subjects = subjects
        self._router = router
        self._questions = questions
        self._now = now
        self._fresh_id = fresh_id

    async def answer(self, message: Message) -> tuple[bytes, Headers]:
        """Answer one request."""
        question = self._question(message)
        if question is not None:
            return await self._questions.answer(*question, message)
        # No await from here to admission: turns are given in the order of arrival.
        order = read(
            self._subjects, message.subject, message.body, message.headers, own_id=self._fresh_id, received=self._now()
        )
        landed = await (self._router.refuse(order) if isinstance(order, Malformed) else self._router.fly(self._router.admit(order)))
        return landed.answer(order.id)

    def _question(self, message: Message) -> tuple[Addressed, Verb] | None:
        """Return what is asked, None if it is a command, well-formed or not."""
        try:
            addressed = self._subjects.parse_addressed(message.subject)
        except Invalid:
            return None
        verb = VERBS.get(addressed.verb)
        return None if verb is None or verb.kind in ("verb", "control") else (addressed, verb)
