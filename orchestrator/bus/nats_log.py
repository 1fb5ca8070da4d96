"""Logs of JetStream, by plain requests: append, last, purge, readers, provisioning.

Not nats-py's own JetStream context: it asks for more than a least-privileged credential may, and
hides which outcomes are unknown.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
import msgspec

from orchestrator.bus import header
from orchestrator.bus.nats_channel import Channel
from orchestrator.bus.nats_client import STATUS, seconds
from orchestrator.bus.nats_reader import PullReader
from orchestrator.bus.port import (
    MAX_BATCH,
    Clock,
    Expect,
    Full,
    Headers,
    LogConfig,
    Message,
    NoResponder,
    Outgoing,
    Refused,
    Stale,
    Start,
    Unavailable,
    Uncertain,
)
from orchestrator.log import get_logger

_API = "$JS.API"
_ANSWER_S = 5.0
_SECOND = 1_000_000_000
_IDLE_NS = 30 * _SECOND
# JetStream's error codes, by what they mean here
_STALE = frozenset({10071, 10164})
_FULL = frozenset({10077, 10023, 10047, 10002})  # of the log, of the broker's storage, of the account
_AWAY = frozenset({10008, 10009, 10039, 10076, 10163, 10167})  # no leader, no JetStream, not ready yet, too many requests
_NO_CONSUMER = 10014
NO_STREAM = 10059
_TOO_MANY_OPEN = 10210
_BATCH_TRIES = 6

_log = get_logger()


class _Problem(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Stored(msgspec.Struct, frozen=True):
    seq: int = 0
    error: _Problem | None = None


class _Purged(msgspec.Struct, frozen=True):
    purged: int = 0
    error: _Problem | None = None


class _Made(msgspec.Struct, frozen=True):
    num_pending: int = 0
    ts: str = ""
    error: _Problem | None = None


class _Stream(msgspec.Struct, frozen=True):
    config: dict[str, Any] = {}
    error: _Problem | None = None


_Answer = TypeVar("_Answer", _Stored, _Purged, _Made, _Stream)

_stored = msgspec.json.Decoder(_Stored)


class Logs:
    """What a bus can do with logs, over a channel. Methods as the port says."""

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self.offset_s = 0.0
        self._channel = channel
        self._clock = clock

    async def append(self, message: Outgoing, expect: Expect | None) -> int:
        """Store one message."""
        headers = {**message.headers, **_fence(expect)} if expect is not None else message.headers
        return await self._store(message.subject, message.body, headers)

    async def append_all(self, messages: Sequence[Outgoing], expect: Expect) -> int:
        """Store a batch; waits and tries again where the broker has too many open batches."""
        if not 1 <= len(messages) <= MAX_BATCH:
            raise Refused(f"a batch has 1 to {MAX_BATCH} messages, not {len(messages)}")
        if len(messages) == 1:
            return await self.append(messages[0], expect)
        for tried in range(_BATCH_TRIES):
            try:
                return await self._batch(messages, expect)
            except Refused as error:
                if error.code != _TOO_MANY_OPEN or tried == _BATCH_TRIES - 1:
                    raise
                await anyio.sleep(0.02 * 2**tried)
        raise AssertionError

    async def _batch(self, messages: Sequence[Outgoing], expect: Expect) -> int:
        """Send all of a batch and return what the broker says to the last one.

        Where the first is refused, the last only learns that something is missing; so the first asks for an answer too.
        """
        send = self._channel.connection.send
        batch = secrets.token_hex(16)
        last = len(messages)
        with self._channel.answer(_ANSWER_S) as (first_inbox, first), self._channel.answer(_ANSWER_S) as (inbox, answer):
            for number, message in enumerate(messages, 1):
                headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                if number == 1:
                    headers.update(_fence(expect))
                if number == last:
                    headers["Nats-Batch-Commit"] = "1"
                reply = inbox if number == last else first_inbox if number == 1 else ""
                await send(message.subject, message.body, reply, headers)
            said = await answer
            if first.done() and first.exception() is None and first.result().body:
                said = first.result()
        return _sequence(said, messages[0].subject)

    async def _store(self, subject: str, body: bytes, headers: Headers) -> int:
        try:
            said = await self._channel.request(subject, body, headers, timeout_s=_ANSWER_S)
        except NoResponder as error:
            raise _no_log(subject) from error
        return _sequence(said, subject)

    async def last(self, log: str, subjects: str) -> Message | None:
        """Read the last message under `subjects`."""
        try:
            said = await self._channel.request(f"{_API}.DIRECT.GET.{log}.{subjects}", b"", timeout_s=_ANSWER_S)
        except NoResponder as error:
            raise Unavailable(f"log {log} cannot be read: run 'virtbus provision'") from error
        status = said.headers.get(STATUS, "")
        if status == "404":
            return None
        if status:
            raise Uncertain(f"log {log} cannot be read now: {said.headers.get('Description', status)}")
        return Message(said.headers.get(header.SUBJECT, ""), said.body, said.headers, "", said.sequence, said.time)

    async def purge(self, log: str, subjects: str, up_to: int) -> int:
        """Remove what is under `subjects`, up to a sequence."""
        if up_to < 1:  # the broker takes 0 for "all"
            return 0
        said = await self._api(_Purged, f"STREAM.PURGE.{log}", {"filter": subjects, "seq": up_to + 1})
        _check(said.error, f"purge of {log}")
        return said.purged

    async def reader(self, log: str, name: str, subjects: str, start: Start) -> PullReader:
        """Make a consumer, in place of an earlier one of that name, and a reader on it."""
        connection = self._channel.connection
        gone = await self._api(_Made, f"CONSUMER.DELETE.{log}.{name}", None)
        if gone.error is not None and gone.error.err_code != _NO_CONSUMER:
            _check(gone.error, f"reader {name} of {log}")
        asked = self._clock()
        config = {"stream_name": log, "config": _consumer(name, subjects, start)}
        made = await self._api(_Made, f"CONSUMER.CREATE.{log}.{name}.{subjects}", config)
        answered = self._clock()
        _check(made.error, f"reader {name} of {log}")
        now = seconds(made.ts)
        self.offset_s = now - (asked + answered) / 2
        return await PullReader.on(self._channel, connection, log, name, pending=made.num_pending, broker_time=now)

    async def provision(self, logs: Sequence[LogConfig]) -> None:
        """Make each log or update it in place."""
        for config in logs:
            await self._provision(config)

    async def _provision(self, config: LogConfig) -> None:
        found = await self._api(_Stream, f"STREAM.INFO.{config.name}", None)
        if found.error is not None and found.error.err_code != NO_STREAM:
            _check(found.error, f"log {config.name}")
        wanted = stream_config(config)
        if found.error is not None:
            verb = "CREATE"
            if config.first_sequence:
                wanted["first_seq"] = config.first_sequence
        elif not differences(found.config, wanted):
            return
        else:
            verb = "UPDATE"
            wanted = {**found.config, **wanted}
        said = await self._api(_Stream, f"STREAM.{verb}.{config.name}", wanted)
        _check(said.error, f"log {config.name}")
        _log.info("bus.provisioned", log=config.name, by=verb.lower())

    async def _api(self, kind: type[_Answer], call: str, body: Any) -> _Answer:
        """Call JetStream's API; the answer may hold an error."""
        raw = b"" if body is None else msgspec.json.encode(body)
        try:
            said = await self._channel.request(f"{_API}.{call}", raw, timeout_s=_ANSWER_S)
            return msgspec.json.decode(said.body, type=kind)
        except NoResponder as error:
            raise Unavailable("the broker has no JetStream: start nats-server with -js, or enable it for this account") from error
        except msgspec.DecodeError as error:
            raise Uncertain(f"{call}: the answer cannot be read: {error}") from error


def _fence(expect: Expect) -> dict[str, str]:
    headers = {"Nats-Expected-Last-Subject-Sequence": str(expect.last)}
    if expect.subjects:
        headers["Nats-Expected-Last-Subject-Sequence-Subject"] = expect.subjects
    return headers


def _sequence(said: Message, subject: str) -> int:
    """Return the sequence that the broker gave, or raise what it says."""
    if said.headers.get(STATUS) == "503":
        raise _no_log(subject)
    try:
        stored = _stored.decode(said.body)
    except msgspec.DecodeError as error:
        raise Uncertain(f"append on {subject}: the answer cannot be read: {error}") from error
    _check(stored.error, f"append on {subject}")
    if not stored.seq:
        raise Uncertain(f"append on {subject}: somebody answered who is no log")
    return stored.seq


def _no_log(subject: str) -> Unavailable:
    return Unavailable(f"no log takes {subject}: is JetStream enabled, and did 'virtbus provision' run?")


def _check(problem: _Problem | None, what: str) -> None:
    """Raise the error that JetStream reports, if any."""
    if problem is None:
        return
    text = f"{what}: {problem.description}"
    code = problem.err_code
    if code in _STALE:
        raise Stale(text, code)
    if code in _FULL:
        raise Full(text, code)
    if code in _AWAY:
        raise Unavailable(text)
    raise Refused(text, code)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * _SECOND)


def _consumer(name: str, subjects: str, start: Start) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": name,
        "filter_subject": subjects,
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _IDLE_NS,
    }
    if start.sequence is not None:
        return {**config, "deliver_policy": "by_start_sequence", "opt_start_seq": max(1, start.sequence)}
    if start.time is not None:
        since = datetime.fromtimestamp(start.time, UTC).isoformat()
        return {**config, "deliver_policy": "by_start_time", "opt_start_time": since}
    if start.last_per_subject:
        return {**config, "deliver_policy": "last_per_subject"}
    return {**config, "deliver_policy": "new" if start.new else "all"}


def differences(there: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, each as it is and as wanted; the broker leaves out what is off."""
    return {name: (there.get(name), value) for name, value in wanted.items() if (there.get(name) or False) != (value or False)}


def stream_config(config: LogConfig) -> dict[str, Any]:
    """Return the log as a stream. One that keeps so many a subject is a bucket, as every NATS client knows them (ADR-8)."""
    bucket = config.max_per_subject > 0
    stream: dict[str, Any] = {
        "name": config.name,
        "subjects": list(config.subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "new" if config.discard_new else "old",
        "max_age": _nanoseconds(config.max_age_s),
        "max_bytes": config.max_bytes,
        "max_msg_size": config.max_message,
        "max_msgs_per_subject": config.max_per_subject or -1,
        "max_consumers": config.max_consumers,
        "duplicate_window": _nanoseconds(config.duplicate_window_s),
        "allow_direct": True,
        "allow_atomic": config.atomic,
        "allow_rollup_hdrs": bucket,
        "deny_delete": bucket,
        "allow_msg_ttl": config.markers_s > 0,
    }
    if config.markers_s > 0:
        stream["subject_delete_marker_ttl"] = _nanoseconds(config.markers_s)
    if config.republish is not None:
        stream["republish"] = {"src": config.republish[0], "dest": config.republish[1]}
    return stream
