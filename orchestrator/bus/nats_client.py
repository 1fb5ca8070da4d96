"""One connection to the broker, from its beginning to its end, on top of nats-py.

nats-py reconnects by itself, but it gives up where the broker refuses, may stay silent for ever
after an error in its read loop, and sends what was buffered before an outage after it, when the
caller has long been told that the outcome is unknown. So here a connection that ends has ended;
`nats_channel` makes the next one.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import BadSubscriptionError, ConnectionClosedError, ConnectionDrainingError, Error

from orchestrator.bus import header
from orchestrator.bus.nats_session import OnError
from orchestrator.bus.port import NO_HEADERS, Deliver, Headers, Message, Refused, Unavailable
from orchestrator.log import get_logger

STATUS = ":status"
"""Key of the broker's own status (`404`, `503` …) in `Message.headers`; no header that travels can be called so."""

_CONNECT_S = 2
_RETRY_S = 0.1
_PING_S = 3
_FLUSH_S = 5
_MAX_SUBJECT = 1024
_PASSING = re.compile("permissions violation|stale connection")
_NO_SUBJECT = re.compile(r"[ \t\r\n]")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROL = dict.fromkeys([*range(32), 127], " ")

_log = get_logger()


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to connect: one way to say who we are, or none. Files are read anew at each connect."""

    name: str
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: str | None = None
    nkey_seed: str | None = None
    tls: ssl.SSLContext | None = None


class _Tap:
    """Poses as the future of a request, so that nats-py hands each message straight on, with neither queue nor task."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def set_result(self, message: Message) -> None:
        try:
            self._deliver(message)
        except Exception:  # noqa: BLE001  # the root of all that messages cause: further up it would end nats-py's read loop
            _log.exception("bus.deliver_failed", subject=message.subject)


class Connection(Client):
    """The `Session` on a connection of our own to one of `servers`. `ended` is set when it is over, for whatever reason."""

    def __init__(self, on_error: OnError, servers: list[str], options: Options) -> None:
        super().__init__()
        self._on_error = on_error
        self._servers = servers
        self._options = options
        self._told = ""
        self.ended = anyio.Event()

    @property
    def version(self) -> str:
        """The broker's version, as it gives it itself."""
        return str(self._server_info.get("version", ""))

    @property
    def cause(self) -> Exception | None:
        """Why it ended, as far as is known: what the broker said last counts more than that it then hung up."""
        return Error(self._told) if self._told else self.last_error

    async def open(self) -> None:
        """Connect; raise nats-py's error, `OSError`, `TimeoutError` or `ValueError` where that fails."""
        options = self._options
        if options.credentials is not None:
            check_credentials(Path(options.credentials))
        await self.connect(
            self._servers,
            name=options.name,
            error_cb=self._on_error,
            allow_reconnect=False,
            connect_timeout=_CONNECT_S,
            reconnect_time_wait=cast(int, _RETRY_S),  # a float does, whatever the annotation says
            max_reconnect_attempts=1,
            ping_interval=_PING_S,
            max_outstanding_pings=2,
            flush_timeout=_FLUSH_S,  # without it a publish may wait for ever on a connection that has ended
            user=options.user,
            password=options.password,
            token=options.token,
            user_credentials=options.credentials,
            nkeys_seed=options.nkey_seed,
            tls=options.tls,
        )

    async def over(self) -> None:
        """Wait until it has ended."""
        await self.ended.wait()

    async def send(self, subject: str, body: bytes, reply: str, headers: Headers) -> None:
        """Publish; raise `Unavailable` where the connection has ended and `Refused` for what the broker would hang up on."""
        if self.ended.is_set() or self.is_closed:
            raise Unavailable("the connection to the broker has ended")
        head = _head(headers) if headers else b""
        size = len(head) + len(body)
        check_fit(subject, size, self.max_payload)
        # Framed here: nats-py's own way from header to frame costs four times as much, and is the largest part of a publish.
        control = f"HPUB {subject} {reply} {len(head)} {size}\r\n" if head else f"PUB {subject} {reply} {size}\r\n"
        await self._send_command(b"".join((control.encode(), head, body, b"\r\n")))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def tap(self, subject: str, queue: str, deliver: Deliver) -> Subscription:
        """Have each message of `subject` handed to `deliver`; raise nats-py's error where the connection has ended."""
        return await self.subscribe(subject, queue, future=cast("asyncio.Future[Any]", _Tap(deliver)))

    async def untap(self, subscription: Subscription) -> None:
        """Undo `tap`; does nothing where the connection has ended."""
        if self.ended.is_set():
            return
        try:
            await subscription.unsubscribe()
        except (ConnectionClosedError, ConnectionDrainingError, BadSubscriptionError):
            _log.debug("bus.untap_too_late", subject=subscription.subject)

    async def shut(self) -> None:
        """Close, whatever state the connection is in."""
        if self._flush_queue is None:  # `open` failed so early that `close` would trip over it
            return
        try:
            await self.close()
        except (Error, OSError) as error:
            _log.debug("bus.close_failed", reason=str(error))

    async def barrier(self) -> bool:
        """Wait until the broker has taken in all that was sent so far; return False if the connection ended before."""
        done = False
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_ended, group.cancel_scope)
            pause = 0.0
            while self.pending_data_size:  # `flush` pings past what waits to be written
                await anyio.sleep(pause)
                pause = min(pause + 0.0005, 0.01)
            try:
                await self.flush(_FLUSH_S)
                done = True
            except Error as error:
                _log.warning("bus.no_barrier", reason=str(error))
            group.cancel_scope.cancel()
        return done and not self.ended.is_set()

    async def _cancel_when_ended(self, scope: anyio.CancelScope) -> None:
        await self.ended.wait()
        scope.cancel()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self.ended.set()
        try:
            await super()._close(status, do_cbs)
        except OSError as error:  # what was still to be sent met a broken socket; nats-py leaves it open then
            _log.debug("bus.close_failed", reason=str(error))
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]  # as nats-py has it

    async def _process_err(self, err_msg: str) -> None:
        if not _PASSING.search(err_msg):
            self._told = err_msg.strip("'")
        await super()._process_err(err_msg)

    async def _read_loop(self) -> None:
        # It may end without `_close`, and nats-py would not notice.
        try:
            await super()._read_loop()
        finally:
            self.ended.set()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        # Each subscription is a tap; nats-py's own way, which costs more, is for queues, limits and consumers, and nobody here has those.
        subscription = self._subs.get(sid)
        tap = None if subscription is None else subscription._future  # noqa: SLF001  # where nats-py keeps what `tap` gave it
        if tap is not None:
            tap.set_result(_message(subject, reply, data, headers))


def _message(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> Message:
    # `replace`: what anybody may publish must not end the read loop, as nats-py's strict decoding does.
    name, answer = subject.decode("utf-8", "replace"), reply.decode("utf-8", "replace")
    return placed(name, data, NO_HEADERS if headers is None else parse_headers(headers), answer)


def placed(subject: str, body: bytes, headers: Headers, reply: str) -> Message:
    """Return a message with its place in a log, if the broker gave it one."""
    if header.SEQUENCE in headers:
        return Message(subject, body, headers, reply, *_place(headers))
    return Message(subject, body, headers, reply)


def check_fit(subject: str, size: int, limit: int) -> None:
    """Raise `Refused` for what the broker would hang up on: a bad subject, or a message (headers and body) over its limit."""
    if not subject or _NO_SUBJECT.search(subject) or len(subject) > _MAX_SUBJECT:
        raise Refused(f"{subject[:_MAX_SUBJECT]!r} is no subject that the broker takes")
    if size > limit:
        raise Refused(f"message of {size} bytes on {subject}: the broker takes {limit}")


def check_credentials(path: Path) -> None:
    """Raise `OSError` or `ValueError` if this is no credentials file; nats-py would look for the token in it for ever."""
    content = path.read_bytes()
    if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
        raise ValueError(f"{path} is no credentials file: it has no JWT or no seed")


def parse_headers(raw: bytes) -> dict[str, str]:
    """Return a header block as a mapping; of equal names the last counts, since the broker appends its own."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    if len(first) > 9:
        headers[STATUS] = first[9:12]
        headers["Description"] = first[13:]
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip(" \t")
    return headers


def seconds(timestamp: str) -> float:
    """Return an RFC 3339 time, up to nanoseconds, as Unix seconds; raise `ValueError` if it is none."""
    return datetime.fromisoformat(timestamp).timestamp()


def _place(headers: Headers) -> tuple[int, float]:
    """Return sequence and time that a stored message carries; zeros where somebody forged nonsense."""
    try:
        return int(headers[header.SEQUENCE]), seconds(headers.get(header.TIME, ""))
    except ValueError:
        return 0, 0.0


def _head(headers: Headers) -> bytes:
    """Return headers as they stand in a frame; raise `Refused` for a name that cannot be one."""
    lines = "".join([f"{_name(name)}: {_clean(value)}\r\n" for name, value in headers.items()])
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def clean(headers: Headers) -> dict[str, str]:
    """Return headers that cannot break the frame; raise `Refused` for a name that cannot be one."""
    return {_name(name): _clean(value) for name, value in headers.items()}


@lru_cache(maxsize=256)
def _name(name: str) -> str:
    """Return a header's name if it is one. Remembered, since a process sends the same few names again and again."""
    if _HEADER_NAME.match(name) is None:
        raise Refused(f"{name!r} is no name of a header")
    return name


def _clean(value: str) -> str:
    """Return a header value that cannot break the frame: control characters become spaces, lone surrogates question marks."""
    if value.isascii() and value.isprintable():
        return value.strip()
    return value.encode("utf-8", "replace").decode().translate(_CONTROL).strip()
