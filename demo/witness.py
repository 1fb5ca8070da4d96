"""Looks at the event log as a stranger would, and says where a promise of PROTOCOL §5 was broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from orchestrator.protocol import codec
from orchestrator.protocol.event import TERMINAL, Event

_Stream = tuple[str, ...]
_Key = Callable[[Event], _Stream]


def holes(events: Iterable[Event]) -> list[str]:
    """Return where the sequence of a worker's epoch does not begin at 1, leaves a number out, or has one twice."""
    found = []
    for (node, epoch), stream in _streams(events, lambda event: (event.node, event.epoch)).items():
        numbers = [0, *(int(event.sequence) for event in stream)]
        found += [f"{node} {epoch}: {then} follows {before}" for before, then in pairwise(numbers) if then != before + 1]
    return found


def broken_chains(events: Iterable[Event]) -> list[str]:
    """Return where an event's `previous` is not the event before it on the same domain, in the same epoch of the same worker."""
    found = []
    streams = _streams(events, lambda event: (event.node, event.epoch, event.project, event.subject))
    for (node, epoch, _, subject), stream in streams.items():
        before = f"{0:016d}"
        for event in stream:
            if event.previous != before:
                found.append(f"{node} {epoch} {subject}: {event.sequence} says {event.previous}, and {before} came before")
            before = event.sequence
    return found


def torn_epochs(events: Iterable[Event]) -> list[str]:
    """Return where a worker's `node.online` does not name the last event of its epoch before."""
    found = []
    for (node,), stream in _streams(events, lambda event: (event.node,)).items():
        for last, online in pairwise(stream):
            if last.epoch != online.epoch:
                end = {"epoch": last.epoch, "sequence": last.sequence}
                told = codec.decode(codec.encode(online.data), dict[str, Any]).get("previous")
                if told != end:
                    found.append(f"{node} {online.epoch}: begins after {told}, and the epoch before ended with {end}")
    return found


def wrong_ends(events: Iterable[Event], ids: Sequence[str]) -> list[str]:
    """Return which of the commands `ids` have no terminal event or several, and which terminal events belong to none of them."""
    ends = Counter(event.commandid or "" for event in events if event.name in TERMINAL)
    missing = [f"{id}: {ends[id]} terminal events" for id in ids if ends[id] != 1]
    return missing + [f"{id}: a terminal event that nobody asked for" for id in ends if id not in ids]


def missing_steps(events: Iterable[Event], uuid: str, steps: Sequence[str]) -> list[str]:
    """Return the first of `steps` that a domain's lifecycle does not tell in that order; there may be more between them."""
    told = [event.name.partition(".")[2] for event in events if event.subject == uuid and event.name.startswith("lifecycle.")]
    rest = iter(told)
    missing = [step for step in steps if step not in rest]
    return [f"no {missing[0]} where it belongs in: {' '.join(told)}"] if missing else []


def _streams(events: Iterable[Event], key: _Key) -> dict[_Stream, list[Event]]:
    streams: dict[_Stream, list[Event]] = {}
    for event in events:
        if event.source.split("/")[2:3] == ["nodes"]:  # coordinators promise no contiguity
            streams.setdefault(key(event), []).append(event)
    return streams
