"""The lasting channel over connections that come and go: subscriptions, requests, and where the link stands."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import anyio
import anyio.abc
import anyio.lowlevel
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, StaleConnectionError

from orchestrator.bus.nats_client import STATUS
from orchestrator.bus.nats_fault import TurnedAway, check_version, reason
from orchestrator.bus.nats_session import Dial, Session
from orchestrator.bus.port import NO_HEADERS, Deliver, Headers, Message, NoResponder, Refused, Unavailable, Uncertain
from orchestrator.log import get_logger

_ATTEMPT_S = 10.0
_PAUSE_S = (0.1, 2.0)
_LEAVE_S = 1.0
_SAY_AGAIN_S = 10.0
_MAX_SAID = 100

_SUBJECT = re.compile(r"(\*|[^\s.*>]+)(\.(\*|[^\s.*>]+))*(\.>)?\Z|>\Z")

_log = get_logger()


class Standing:
    """The bus's `Link`."""

    def __init__(self) -> None:
        self._session = 0
        self._connected = False
        self._since = 0.0
        self._changed = anyio.Event()

    @property
    def session(self) -> int:
        """Number of connections made so far."""
        return self._session

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        return self._connected

    @property
    def since(self) -> float:
        """Monotonic second at which the present session began."""
        return self._since

    async def up(self, after: int = 0) -> int:
        """Wait until connected in a session later than `after`; return its number."""
        # A session that has just ended is noted by a task of its own: who tries, fails and comes back here must let it run.
        await anyio.lowlevel.checkpoint()
        while not (self._connected and self._session > after):
            await self._changed.wait()
        return self._session

    async def down(self, session: int) -> None:
        """Wait until `session` has ended."""
        while self._connected and self._session <= session:
            await self._changed.wait()

    def begin(self) -> None:
        """Note that a session began."""
        self._session += 1
        self._since = time.monotonic()
        self._turn(connected=True)

    def end(self) -> None:
        """Note that the session ended, if there was one."""
        if self._connected:
            self._turn(connected=False)

    def _turn(self, *, connected: bool) -> None:
        self._connected = connected
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


class _Listener:
    """One subscription that outlives connections."""

    def __init__(self, subject: str, queue: str, deliver: Deliver) -> None:
        self.subject = subject
        self.queue = queue
        self.deliver: Deliver | None = deliver
        self._on: Session | None = None
        self._subscription: Subscription | None = None

    def __call__(self, message: Message) -> None:
        if self.deliver is not None:
            self.deliver(message)

    async def make(self, connection: Session) -> bool:
        """Subscribe on this connection unless that is done; return False where the connection has ended."""
        if self._on is connection:
            return True
        self._on = connection
        try:
            self._subscription = await connection.tap(self.subject, self.queue, self)
        except ConnectionClosedError:
            return False
        if self.deliver is None:
            await connection.untap(self._subscription)
        return True

    async def leave(self) -> None:
        """Hear no more."""
        self.deliver = None
        if self._on is not None and self._subscription is not None:
            await self._on.untap(self._subscription)


class _Asked:
    """One question under way. A class, since a generator as context costs twice as much, and each append is a question."""

    def __init__(self, asked: dict[str, asyncio.Future[Message]], inbox: str, key: str, timeout_s: float) -> None:
        self._among = asked
        self._inbox = inbox
        self._key = key
        loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Message] = loop.create_future()
        self._timer = loop.call_later(timeout_s, _fail, self._future, f"no answer within {timeout_s:g} s")

    def __enter__(self) -> tuple[str, asyncio.Future[Message]]:
        self._among[self._key] = self._future
        return f"{self._inbox}.{self._key}", self._future

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()
        self._among.pop(self._key, None)
        if not self._future.cancel() and not self._future.cancelled():
            self._future.exception()  # seen, though nobody waits for it any more


class Channel:
    """Keeps one connection, for as long as `run` runs, and all that hangs on it.

    dial: gives what is connected each time. where: the broker, for people. inbox_prefix: where answers come to.
    """

    def __init__(self, dial: Dial, where: str, inbox_prefix: str) -> None:
        self.link = Standing()
        self.inbox = f"{inbox_prefix}.{secrets.token_hex(8)}"
        self.fault = f"no broker answers at {where}"
        self._dial = dial
        self._where = where
        self._connection: Session | None = None
        self._listeners: dict[_Listener, None] = {}
        self._asked: dict[str, asyncio.Future[Message]] = {}
        self._on_end: dict[int, Callable[[], None]] = {}
        self._numbers = count(1)
        self._said: dict[str, float] = {}
        self._complained = anyio.Event()
        self._cut = len(self.inbox) + 1
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def connection(self) -> Session:
        """The present connection; raises `Unavailable` when there is none."""
        if self._connection is None:
            raise Unavailable(self.fault)
        return self._connection

    @property
    def complaints(self) -> tuple[str, ...]:
        """What the broker said of late that it does not allow, or that else went wrong."""
        return tuple(self._said)

    async def complained(self) -> None:
        """Wait for the next complaint."""
        await self._complained.wait()

    async def run(self) -> None:
        """Connect, and connect again whenever the connection ends, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            await self._keep_connected()

    async def _keep_connected(self) -> None:
        pause = _PAUSE_S[0]
        while True:
            connection = self._dial(self._report)
            try:
                await self._attempt(connection)
                pause = _PAUSE_S[0]
                await self._live(connection)
            except TurnedAway as error:
                self._note(error)
                pause = min(pause * 2, _PAUSE_S[1])
            except Unavailable as error:
                self._note(error)
                pause = _PAUSE_S[0]
            finally:
                self._end()
                with anyio.move_on_after(_LEAVE_S, shield=True):
                    await connection.shut()
            await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, guards nothing

    def _note(self, error: Unavailable) -> None:
        self.fault = str(error)
        self._say("bus.no_connection", self.fault)

    async def leave(self) -> None:
        """Send what is waiting, for at most a second."""
        if self._connection is not None:
            with anyio.move_on_after(_LEAVE_S, shield=True):
                await self._connection.barrier()

    async def send(self, subject: str, body: bytes, reply: str = "", headers: Headers = NO_HEADERS) -> None:
        """Publish one message; raise `Unavailable` or `Refused`."""
        await self.connection.send(subject, body, reply, headers)

    async def request(self, subject: str, body: bytes, headers: Headers = NO_HEADERS, *, timeout_s: float) -> Message:
        """Ask and return the answer; raises as the port's `request`."""
        with self.answer(timeout_s) as (inbox, future):
            await self.connection.send(subject, body, inbox, headers)
            message = await future
        if message.headers.get(STATUS) == "503":
            raise NoResponder(f"nobody answers on {subject}")
        return message

    def answer(self, timeout_s: float) -> _Asked:
        """Give, as a context, a reply subject and the future of the one message that comes to it; it fails with `Uncertain`."""
        return _Asked(self._asked, self.inbox, str(next(self._numbers)), timeout_s)

    @asynccontextmanager
    async def listen(self, subject: str, deliver: Deliver, queue: str = "") -> AsyncIterator[None]:
        """Hand each message of `subject` to `deliver`, over all connections, for as long as the context lasts.

        Raises `Refused` if it is no subject: the broker would not have it, on this connection and on every later one.
        """
        if _SUBJECT.match(subject) is None:
            raise Refused(f"{subject!r} is no subject that can be listened to")
        listener = _Listener(subject, queue, deliver)
        self._listeners[listener] = None
        try:
            if self._connection is not None:
                connection = self._connection
                if await listener.make(connection):
                    await connection.barrier()
            yield
        finally:
            del self._listeners[listener]
            with anyio.move_on_after(_LEAVE_S, shield=True):
                await listener.leave()

    async def attach(self, connection: Session, subject: str, deliver: Deliver, ended: Callable[[], None]) -> Callable[[], None]:
        """Hand over each message of `subject` on this one connection, and call `ended` when it ends.

        Returns what undoes it, to be called from any thread. Raises `Uncertain` where the connection has ended.
        """
        try:
            subscription = await connection.tap(subject, "", deliver)
        except ConnectionClosedError as error:
            raise Uncertain("the connection broke") from error
        if self._connection is not connection:
            raise Uncertain("the connection broke")
        number = next(self._numbers)
        self._on_end[number] = ended
        loop = asyncio.get_running_loop()

        def detach() -> None:
            if self._on_end.pop(number, None) is not None and self._tasks is not None and self._connection is connection:
                self._tasks.start_soon(connection.untap, subscription)

        def release() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(detach)

        return release

    async def _attempt(self, connection: Session) -> None:
        """Connect and make all subscriptions; raise `Unavailable` with the reason in one sentence."""
        where = self._where
        try:
            with anyio.fail_after(_ATTEMPT_S):
                await connection.open()
                check_version(connection.version, where)
                self._connection = connection
                await connection.tap(f"{self.inbox}.*", "", self._answered)
                for listener in list(self._listeners):
                    await listener.make(connection)
                known = await connection.barrier()
        except Exception as error:  # nats-py and nkeys raise all kinds for bad credentials
            raise reason(error, where) from error
        if not known:
            raise reason(connection.cause, where)

    async def _live(self, connection: Session) -> None:
        """Be connected until the connection ends."""
        self.link.begin()
        _log.info("bus.connected", session=self.link.session)
        await connection.over()
        self.fault = str(reason(connection.cause, self._where))
        _log.warning("bus.disconnected", session=self.link.session, reason=self.fault)

    def _end(self) -> None:
        """Forget the connection and fail whatever waits for it."""
        self._connection = None
        self.link.end()
        asked, self._asked = self._asked, {}
        for future in asked.values():
            _fail(future, "the connection broke before an answer came")
        calls, self._on_end = self._on_end, {}
        for call in calls.values():
            call()

    def _answered(self, message: Message) -> None:
        future = self._asked.pop(message.subject[self._cut :], None)
        if future is not None and not future.done():
            future.set_result(message)

    async def _report(self, error: Exception) -> None:
        """Take in what nats-py has to say of a connection: refused permissions above all; why it ends, others say."""
        if self._connection is not None and not isinstance(error, OSError | StaleConnectionError):
            self._say("bus.broker_says", str(error) or type(error).__name__)

    def _say(self, event: str, text: str) -> None:
        """Log a text, the same one at most once in ten seconds."""
        now = time.monotonic()
        self._said = {said: until for said, until in self._said.items() if until > now}
        if text in self._said or len(self._said) >= _MAX_SAID:
            return
        self._said[text] = now + _SAY_AGAIN_S
        complained, self._complained = self._complained, anyio.Event()
        complained.set()
        _log.warning(event, reason=text)


def _fail(future: asyncio.Future[Message], why: str) -> None:
    if not future.done():
        future.set_exception(Uncertain(why))
