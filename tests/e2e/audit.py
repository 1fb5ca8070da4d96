"""What an outsider can prove from the logs alone: one end for each command, no holes, order kept, effects counted."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.bus.port import Message
from orchestrator.protocol.event import TERMINAL

Told = dict[str, Any]


def parsed(messages: Iterable[Message]) -> list[Told]:
    """Return the events of a log, in its order."""
    return [json.loads(message.body) for message in messages]


def ends(events: Iterable[Told]) -> dict[str, list[Told]]:
    """Return the terminal events by command id."""
    found: dict[str, list[Told]] = defaultdict(list)
    for event in events:
        if event["type"].split(".", 2)[2] in TERMINAL:
            found[event["data"]["id"]].append(event)
    return found


def check_one_end_each(events: Sequence[Told], ids: Iterable[str]) -> None:
    """Every command has exactly one terminal event, and nothing else has one."""
    found = ends(events)
    assert set(ids) == set(found), "commands without an end, or ends without a command"
    doubled = {identity: len(told) for identity, told in found.items() if len(told) != 1}
    assert {} == doubled


def check_sequences(events: Sequence[Told], node: str) -> None:
    """Check that the node's sequences have no hole in any epoch, and each event names the one before it on its domain."""
    epochs: dict[str, int] = {}
    previous: dict[tuple[str, str, str], str] = {}
    for event in (event for event in events if event["node"] == node):
        epoch, sequence = event["epoch"], int(event["sequence"])
        assert sequence == epochs.get(epoch, 0) + 1, f"hole or disorder at {event['id']}"
        assert event["id"] == f"{node}.{epoch}.{event['sequence']}"
        epochs[epoch] = sequence
        key = (epoch, event["project"], event["subject"])
        assert event["previous"] == previous.get(key, "0" * 16), f"broken chain at {event['id']}"
        previous[key] = event["sequence"]
    assert list(epochs) == sorted(epochs), "epochs out of order"


def check_order(events: Sequence[Told], sent: Mapping[str, Sequence[str]]) -> None:
    """Check that the commands of each domain ended in the order in which they were sent."""
    ended = [identity for event in events for identity in [event["data"].get("id")] if event["type"].split(".", 2)[2] in TERMINAL]
    place = {identity: at for at, identity in enumerate(ended)}
    for domain, ids in sent.items():
        assert list(ids) == sorted(ids, key=place.__getitem__), f"order broken on {domain}"


def check_effects(events: Sequence[Told], calls: Counter[tuple[str, str]]) -> None:
    """No command had more than one effect: libvirt was not called more often than commands may have had effects."""
    may: Counter[tuple[str, str]] = Counter()
    did: Counter[tuple[str, str]] = Counter()
    for told in ends(events).values():
        data = told[0]["data"]
        if "domain" not in data:
            assert not data["ok"], "success of a command without a domain"
            continue
        key = (data["verb"], data["domain"]["uuid"])
        may[key] += not (data["ok"] and not data["changed"])
        did[key] += data["ok"] and data["changed"]
    doubled = {key: (count, may[key]) for key, count in calls.items() if count > may[key]}
    assert {} == doubled, "libvirt was called more often than commands can account for"
    missing = {key: (calls[key], count) for key, count in did.items() if calls[key] < count}
    assert {} == missing, "success was told of what was never done"


def failures(events: Sequence[Told]) -> Counter[str]:
    """Return how many commands ended with which code and outcome."""
    errors = [told[0]["data"].get("error") for told in ends(events).values()]
    return Counter(f"{error['code']}/{error['outcome']}" for error in errors if error is not None)
