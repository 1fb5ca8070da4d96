"""What coordinators ask each other: to withdraw a command that one of them has and has not routed.

One that has it says so; the others are silent. So silence means that nobody has it, or that whoever has it cannot be
reached. Several may have a copy each: one of them is told to withdraw it, and the others hear of its end as of any other.
"""

from __future__ import annotations

import anyio
import msgspec
from anyio.abc import TaskStatus

from orchestrator.bus.crowd import Crowd
from orchestrator.bus.port import Bus, BusError, Message, NoResponder, Uncertain
from orchestrator.control.trace import may_mean
from orchestrator.engine.flight import Flights
from orchestrator.log import get_logger
from orchestrator.protocol import codec
from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import NONE, Subjects

_log = get_logger()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A command to be withdrawn, and by which other.

    uuid, name: of the domain that it is said to be for, as far as is said. at: the coordinator that shall do it; empty: who could?
    """

    project: str
    id: str
    by: str
    uuid: str = NONE
    name: str | None = None
    at: str = ""


class _Holder(msgspec.Struct, frozen=True):
    """An answer."""

    name: str


class Peers:
    """All coordinators of an installation, this one included. Run it."""

    def __init__(self, bus: Bus, subjects: Subjects, flights: Flights, *, name: str, silence_s: float) -> None:
        """Nobody having answered for `silence_s` seconds, nobody will. `name` is unique among coordinators, also of times before."""
        self._bus = bus
        self._subject = subjects.withdrawals
        self._flights = flights
        self._name = name
        self._silence_s = silence_s

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer for ever."""
        async with Crowd() as answers, self._bus.listen(self._subject, lambda message: answers.start(self._answer(message))):
            task_status.started()
            await anyio.sleep_forever()

    async def withdraw(self, wanted: Wanted, holder: str | None) -> str | None:
        """Have a command withdrawn by `holder`, or if that is None by one that has it; return who that is, None if nobody has it.

        Raises `Uncertain`, `Unavailable`.
        """
        holder = holder or await self._ask(wanted)
        return None if holder is None else await self._ask(msgspec.structs.replace(wanted, at=holder))

    async def _ask(self, wanted: Wanted) -> str | None:
        session = self._bus.link.session
        try:
            answer = await self._bus.request(self._subject, codec.encode(wanted), timeout_s=self._silence_s)
            return codec.decode(answer.body, _Holder).name
        except (NoResponder, Invalid):
            return None
        except Uncertain:
            if self._bus.link.session != session or not self._bus.link.connected:
                raise
            return None

    async def _answer(self, message: Message) -> None:
        try:
            wanted = codec.decode(message.body, Wanted)
        except Invalid as error:
            _log.warning("peers.unreadable", reason=error.message)
            return
        held = self._flights.find(wanted.project, wanted.id)
        if held is None or held.order.target is not None or not message.reply or wanted.at not in ("", self._name):
            return
        if not may_mean(wanted.uuid, wanted.name, held.order.uuid, held.order.name):
            return
        if wanted.at:
            held.withdraw(wanted.by)
        try:
            await self._bus.publish(message.reply, codec.encode(_Holder(self._name)))
        except BusError as error:
            _log.info("peers.not_answered", reason=str(error) or type(error).__name__)
