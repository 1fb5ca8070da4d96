"""The bus on a connection that the program has made itself: used beside whatever else it is used for, and given back as it was.

The program's connection reconnects by itself, or does not; each of its connections to the broker is a session here. nats-py tells
of them only to the callbacks that the program gave it, so they are looked for: before anything is sent, and twenty times a second.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import anyio
import anyio.lowlevel
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadSubjectError, BadSubscriptionError, ConnectionClosedError, ConnectionDrainingError, Error

from orchestrator.bus.nats import ChannelBus
from orchestrator.bus.nats_channel import Channel
from orchestrator.bus.nats_client import STATUS, check_fit, clean, placed
from orchestrator.bus.nats_fault import shown
from orchestrator.bus.port import Clock, Deliver, Headers, Message, Refused, Unavailable, Uncertain
from orchestrator.log import get_logger

_LOOK_S = 0.05
_SEND_S = 5.0

_log = get_logger()


class BorrowedBus(ChannelBus):
    """The port's `Bus`, on the connection of somebody else, whose credentials, TLS and inbox prefix it shares.

    The connection must belong to the running event loop. It is never closed here, and no subscription is left on it. What it
    buffered while it was away may be sent after an outcome was reported as unknown.
    """

    def __init__(self, connection: Client, *, clock: Clock = time.time) -> None:
        where = shown([url.geturl() for url in connection.servers])
        # the connection's own prefix, since a permission may hold it to that one
        inbox_prefix = connection.new_inbox().rpartition(".")[0]
        super().__init__(Channel(lambda _: Loan(connection), where, inbox_prefix), clock)


class _LentTap:
    """Poses as the future of a request, so that nats-py hands each message straight on, with neither queue nor task."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def cancelled(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        try:
            self._deliver(_message(message))
        except Exception:  # noqa: BLE001  # the root of all that messages cause: further up it would end the program's read loop
            _log.exception("bus.deliver_failed", subject=message.subject)


class Loan:
    """The `Session` on a connection that is not ours: it lasts from one of its reconnects to the next."""

    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self._taps: dict[Subscription, None] = {}
        self._number = -1

    @property
    def version(self) -> str:
        """The broker's version, as it gives it itself."""
        version = self._connection.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def cause(self) -> Exception | None:
        """Why it ended, as far as is known."""
        return self._connection.last_error

    async def open(self) -> None:
        """Wait until the program's connection stands. Raises `Unavailable` once it is closed for good."""
        while not self._stands():
            if self._connection.is_closed:
                raise Unavailable("the program has closed its connection to the broker")
            self._number = self._connections()
            if not self._stands():
                await anyio.sleep(_LOOK_S)

    async def over(self) -> None:
        """Wait until it has ended."""
        while self._stands():  # noqa: ASYNC110  nobody could set an event
            await anyio.sleep(_LOOK_S)

    async def send(self, subject: str, body: bytes, reply: str, headers: Headers) -> None:
        """Publish as the port says. Raises `Uncertain` where the connection takes nothing in, and may yet send it."""
        self._check()
        head = clean(headers)
        size = len(body) + sum(len(name) + len(value.encode()) + 4 for name, value in head.items())
        check_fit(subject, size + (12 if head else 0), self._connection.max_payload)
        with anyio.move_on_after(_SEND_S):
            try:
                await self._connection.publish(subject, body, reply, headers=head or None)
            except BadSubjectError as error:
                raise Refused(f"{subject!r} is no subject that the broker takes") from error
            except Error as error:
                raise Unavailable(f"the connection to the broker takes nothing: {error}") from error
            return
        raise Uncertain("the connection to the broker takes nothing in")

    async def tap(self, subject: str, queue: str, deliver: Deliver) -> Subscription:
        """Have each message of `subject` handed to `deliver`; raise `ConnectionClosedError` where the session has ended."""
        if not self._stands():
            raise ConnectionClosedError
        subscription = await self._connection.subscribe(subject, queue, future=cast("asyncio.Future[Any]", _LentTap(deliver)))
        self._taps[subscription] = None
        return subscription

    async def untap(self, subscription: Subscription) -> None:
        """Undo `tap`, also where the session has ended: the program's connection would take the subscription to the next one."""
        if subscription not in self._taps:
            return
        del self._taps[subscription]
        try:
            await subscription.unsubscribe()
        except (ConnectionClosedError, ConnectionDrainingError, BadSubscriptionError):
            _log.debug("bus.untap_too_late", subject=subscription.subject)

    async def barrier(self) -> bool:
        """Wait until the broker has taken in all that was sent so far; return False if the session ended before.

        Not by nats-py's `flush`: given up, it leaves a cancelled future behind, and the PONG that comes for it ends the read loop.
        """
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await anyio.lowlevel.checkpoint()
        while self._stands() and self._connection.pending_data_size:  # noqa: ASYNC110  the ping would overtake it, and nothing tells
            await anyio.sleep(0.001)
        if self._stands():
            await self._connection._send_ping(pong)  # noqa: SLF001  # see above
        while self._stands() and not pong.done():
            await asyncio.wait([pong], timeout=_LOOK_S)
        return pong.done() and self._stands()

    async def shut(self) -> None:
        """Take back all subscriptions; the connection stays as it is."""
        for subscription in list(self._taps):
            await self.untap(subscription)

    def _connections(self) -> int:
        return self._connection.stats["reconnects"]

    def _stands(self) -> bool:
        connection = self._connection
        return connection.is_connected and not connection.is_draining and self._connections() == self._number

    def _check(self) -> None:
        if not self._stands():
            raise Unavailable("the connection to the broker has ended")


def _message(message: Msg) -> Message:
    headers = dict(message.headers or {})
    # nats-py gives the broker's own status the name of a header; a publisher's header of that name comes with a body
    if not message.data and "Status" in headers:
        headers[STATUS] = headers["Status"]
    return placed(message.subject, message.data, headers, message.reply)
