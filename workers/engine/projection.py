"""After the log: the state key of each domain that an event touched, then the result that was waited for.

The order of effects is events, state, result (PROTOCOL §5), so who has the answer can read the state. Each domain goes its
own way: one write of its key at a time, states that came meanwhile coalesced, then the results that came with what was
written. Results are never coalesced. After a reconnect everything is said again: the broker may have lost it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import anyio

from orchestrator.bus.crowd import Crowd
from orchestrator.bus.port import Bus, BusError
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.domain import Observed
from orchestrator.protocol.subject import domain_key, split_domain_key
from orchestrator.store.port import Store
from workers.engine.outbox import Waiting

MARKER_S = 60
"""Seconds that the marker of a removed state key stands."""

AT_ONCE = 256
"""State keys that are written at a time."""

REMEMBERED = 10_000
RETRY_S = 0.2

log = get_logger()

Answer = tuple[str, str, bytes, float]
"""The domain's key, subject, body, deadline in broker time."""

Due = tuple[bool, Observed | None, list[Answer]]
"""Whether the key is to be written, with what (None: removed), and the results that may be sent then."""


class Projection:
    """Writes the state keys and sends the results of one worker."""

    def __init__(
        self, bus: Bus, domains: Store, node: str, known: Mapping[str, Observed], answers: Sequence[Answer], *, clock: Callable[[], float]
    ) -> None:
        """`known` is the live map of observed domains by UUID; `answers` are results of before this start, to be sent again."""
        self._bus = bus
        self._domains = domains
        self._node = node
        self._known = known
        self._clock = clock
        self._states: dict[str, Observed | None] = {}
        self._answers: dict[str, list[Answer]] = {}
        self._recent: deque[Answer] = deque(answers, maxlen=REMEMBERED)
        self._under_way: set[str] = set()
        self._later: dict[str, None] = {}
        self._crowd: Crowd | None = None
        self._told = 0

    def stored(self, events: Sequence[Waiting]) -> None:
        """Take events that are in the log now."""
        for waiting in events:
            effect = waiting.effect
            # The tokens of the subject that say which domain are the key (PROTOCOL §2).
            key = ".".join(waiting.event.subject.split(".", 6)[3:6])
            if effect.state is not None:
                self._states[key] = effect.state[2]
            if effect.result is not None:
                self._answers.setdefault(key, []).append((key, *effect.result))
            if effect.state is not None or effect.result is not None:
                self._see_to(key)

    def answer(self, project: str, uuid: str, subject: str, body: bytes, deadline: float) -> None:
        """Send a result whose event is stored already: a repeat asked for it."""
        key = domain_key(self._node, project, uuid)
        self._answers.setdefault(key, []).append((key, subject, body, deadline))
        self._see_to(key)

    def sweep(self, keys: Iterable[str]) -> None:
        """Remove those of `keys` whose domains are not known: who was to do so was killed between the event and the key."""
        for key in keys:
            _, project, uuid = split_domain_key(key)
            known = self._known.get(uuid)
            if known is None or known.project != project:
                self._states.setdefault(key, None)
                self._see_to(key)

    async def run(self) -> None:
        """Write and send for ever."""
        async with Crowd() as self._crowd:
            session = 0
            while True:
                session = await self._bus.link.up(after=session)
                self._say_all()

    def _say_all(self) -> None:
        for observed in self._known.values():
            self._states.setdefault(domain_key(self._node, observed.project, observed.uuid), observed)
        now = self._clock()
        for answer in self._recent:
            if answer[3] > now:
                self._answers.setdefault(answer[0], []).append(answer)
        for key in dict.fromkeys([*self._states, *self._answers]):
            self._see_to(key)

    def _see_to(self, key: str) -> None:
        """Have what is due for a key done: by who is at it already, now, or once there is room."""
        if key in self._under_way or self._crowd is None:
            return
        if len(self._under_way) < AT_ONCE:
            self._under_way.add(key)
            self._crowd.start(self._bring(key))
        else:
            self._later[key] = None

    async def _bring(self, key: str) -> None:
        """Do all that is due for a key, then for those that had to wait."""
        try:
            while key in self._states or key in self._answers:
                due = key in self._states, self._states.pop(key, None), self._answers.pop(key, [])
                try:
                    await self._say(key, due)
                except BusError as error:
                    self._keep(key, due)
                    await self._interrupted(error)
        finally:
            self._under_way.discard(key)
        if self._later:
            waiting = next(iter(self._later))
            del self._later[waiting]
            self._see_to(waiting)

    async def _say(self, key: str, due: Due) -> None:
        changed, observed, answers = due
        if changed and observed is None:
            await self._domains.remove(key, marker_s=MARKER_S)
        elif changed:
            await self._domains.put(key, codec.encode(observed))
        while answers:
            _, subject, body, _ = answers[0]
            await self._bus.publish(subject, body)
            self._recent.append(answers.pop(0))

    def _keep(self, key: str, due: Due) -> None:
        """Put back what could not be said, behind a newer state and before newer results."""
        changed, observed, answers = due
        if changed:
            self._states.setdefault(key, observed)
        if answers:
            self._answers[key] = answers + self._answers.get(key, [])

    async def _interrupted(self, error: BusError) -> None:
        if self._told != self._bus.link.session:  # once a session, not once a key
            self._told = self._bus.link.session
            log.info("state keys interrupted", reason=str(error) or type(error).__name__)
        await anyio.sleep(RETRY_S)
        await self._bus.link.up()
