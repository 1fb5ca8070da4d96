"""A NATS client of a few lines that sends what no other client would: any bytes, as subject, as headers, as body."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import anyio.abc
import msgspec

from orchestrator.bus.port import Message

_WAIT_S = 30.0


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it stands on the wire. headers: the whole block with its first and its empty last line; none: empty."""

    subject: bytes
    body: bytes = b""
    headers: bytes = b""


class Wire:
    """One connection. Answers come in `answers`, in the order in which they came."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.answers: list[Message] = []
        self._stream = stream
        self._buffer = b""
        self._pongs = 0

    async def open(self) -> None:
        """Say hello, and listen for answers."""
        await self._line()
        hello = {"verbose": False, "headers": True, "no_responders": True, "protocol": 1, "lang": "bytes", "version": "0"}
        await self._stream.send(b"CONNECT %s\r\nSUB answers.> 1\r\n" % json.dumps(hello).encode())
        await self.barrier()

    async def send(self, letter: Letter, reply: str = "") -> None:
        """Publish a message; an answer to it comes to `answers.<reply>`."""
        to = b" answers." + reply.encode() if reply else b""
        if letter.headers:
            sizes = b"%d %d" % (len(letter.headers), len(letter.headers) + len(letter.body))
            await self._stream.send(b"HPUB %s%s %s\r\n%s%s\r\n" % (letter.subject, to, sizes, letter.headers, letter.body))
        else:
            await self._stream.send(b"PUB %s%s %d\r\n%s\r\n" % (letter.subject, to, len(letter.body), letter.body))

    async def barrier(self) -> None:
        """Return once the broker has taken in all that was sent."""
        seen = self._pongs
        await self._stream.send(b"PING\r\n")
        while self._pongs == seen:
            await self._take()

    async def answered(self, count: int) -> list[Message]:
        """Return the answers once there are `count`."""
        while len(self.answers) < count:
            await self._take()
        return self.answers

    async def _take(self) -> None:
        words = (await self._line()).split(b" ")
        if words[0] == b"PONG":
            self._pongs += 1
        elif words[0] == b"PING":
            await self._stream.send(b"PONG\r\n")
        elif words[0] in (b"MSG", b"HMSG"):
            size = int(words[-1])
            while len(self._buffer) < size + 2:
                await self._more()
            skip = int(words[-2]) if words[0] == b"HMSG" else 0
            body, self._buffer = self._buffer[skip:size], self._buffer[size + 2 :]
            self.answers.append(Message(subject=words[1].decode(), body=body))
        elif words[0] == b"-ERR":
            raise ConnectionError(b" ".join(words).decode())

    async def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            await self._more()
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line

    async def _more(self) -> None:
        with anyio.fail_after(_WAIT_S):
            self._buffer += await self._stream.receive()


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """Connect to a broker as somebody on this machine."""
    where = urlsplit(url)
    async with await anyio.connect_tcp(where.hostname or "", where.port or 4222) as stream:
        made = Wire(stream)
        await made.open()
        yield made
