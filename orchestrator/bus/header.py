"""Names of the headers by which broker and clients understand each other."""

from __future__ import annotations

from orchestrator.bus.port import Headers

MSG_ID = "Nats-Msg-Id"
TTL = "Nats-TTL"
ROLLUP = "Nats-Rollup"
MARKER = "Nats-Marker-Reason"
OPERATION = "KV-Operation"
STREAM = "Nats-Stream"
SUBJECT = "Nats-Subject"
SEQUENCE = "Nats-Sequence"
TIME = "Nats-Time-Stamp"


def is_marker(headers: Headers) -> bool:
    """Tell whether a message with these headers says that its key is gone (ADR-8, ADR-48)."""
    return MARKER in headers or headers.get(OPERATION) in ("DEL", "PURGE")
