"""What an outsider can prove after a run. Each law returns its violations in words; a run that kept them all returns none.

Nothing here asks the system: logs, answers, counted calls and libvirt's own lists come in as values.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from orchestrator.bus.port import Message
from orchestrator.protocol.event import TERMINAL
from orchestrator.protocol.token import ulid_milliseconds
from tests.e2e import audit
from tests.torture.plan import Plan, Send

Told = dict[str, Any]
Calls = Counter[tuple[str, str]]
Shown = dict[str, list[Any]]
"""Domains of a node by name: state, persistent, autostart."""

_WITHOUT_EFFECT = frozenset({"command.cancelled", "command.expired"})
_REFUSED = frozenset({"invalid", "busy"})
_OUT_OF_TURN = frozenset({"conflict", "not_found", "already_exists", "unsupported", "no_capacity", *_REFUSED})
"""Codes of commands that may have been ended before their turn, since nothing was done."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen. keys: state keys by node. listed: what libvirt says, by node. unhelped: nodes whose libvirtd was killed."""

    plan: Plan
    cmd: Sequence[Message]
    run: Sequence[Message]
    evt: Sequence[Message]
    results: Sequence[Told]
    answers: Sequence[Told]
    calls: Calls
    keys: Mapping[str, Shown]
    listed: Mapping[str, Shown]
    unhelped: frozenset[str]
    logs: Mapping[str, str]


class _Case:
    """The evidence, read."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.events: list[Told] = audit.parsed(evidence.evt)
        self.ends = audit.ends(self.events)
        self.sent: dict[str, Send] = {}
        for send in evidence.plan.sends:
            if not send.bent:
                self.sent.setdefault(send.id, send)
        self.domains = {domain.uuid: domain for domain in evidence.plan.domains.values()}
        self.routed: dict[str, Message] = {}
        for message in evidence.run:
            self.routed.setdefault(_id_of(message, "m-run"), message)


def judge(evidence: Evidence) -> dict[str, list[str]]:
    """Return the violations of each law."""
    case = _Case(evidence)
    return {name: list(law(case)) for name, law in LAWS.items()}


def _lost(case: _Case) -> Iterable[str]:
    """Find commands sent, and messages stored, that have no end."""
    for identity in case.sent.keys() - case.ends.keys():
        yield f"{identity} ({case.sent[identity].verb} by {case.sent[identity].way}) has no end"
    for message in case.evidence.run:
        identity = _id_of(message, "m-run")
        if identity not in case.ends and f"m-run-{message.sequence}" not in case.ends:
            yield f"{identity} was stored at {message.subject} and has no end"


def _two_outcomes(case: _Case) -> Iterable[str]:
    """Find commands with two ends, ends of what nobody sent, and what was routed and not ended by its node."""
    for identity, told in case.ends.items():
        if len(told) > 1:
            yield f"{identity} ended {len(told)} times: {[event['id'] for event in told]}"
        if identity.startswith("m-"):
            if told[0]["data"].get("error", {}).get("code") != "conflict":
                yield f"{identity} is no refusal of an id that was taken: {told[0]['data']}"
        elif identity not in case.sent:
            yield f"{identity} ended, and was never sent"
        elif told[0]["node"] == "_" and identity in case.routed:
            yield f"{identity} was ended by a coordinator, though it stands in the log of {case.routed[identity].subject}"


def _doubled(case: _Case) -> Iterable[str]:
    """Find calls into libvirt beyond those for which there were commands that may have had an effect."""
    may: Calls = Counter()
    for told in case.ends.values():
        data = told[0]["data"]
        if "domain" in data:
            may[data["verb"], data["domain"]["uuid"]] += _may_have_called(told[0])
    for (verb, uuid), count in case.evidence.calls.items():
        if count > may[verb, uuid]:
            yield f"{verb} of {_named(case, uuid)} was called {count} times, for {may[verb, uuid]} commands"


def _may_have_called(event: Told) -> bool:
    data = event["data"]
    code = data.get("error", {}).get("code")
    return _name(event) not in _WITHOUT_EFFECT and code not in _REFUSED and (not data["ok"] or data["changed"])


def _undone(case: _Case) -> Iterable[str]:
    """Find what was told as done and was not: neither by us nor, where a restart left it in doubt, by others who touched the domain."""
    did: Calls = Counter()
    for told in case.ends.values():
        data = told[0]["data"]
        if data["ok"] and data["changed"] and data["verb"] != "cancel" and not _by_others(case, told[0]):
            did[data["verb"], data["domain"]["uuid"]] += 1
    for (verb, uuid), count in did.items():
        if case.evidence.calls[verb, uuid] < count:
            yield f"{verb} of {_named(case, uuid)} was told {count} times as done, and called {case.evidence.calls[verb, uuid]} times"


def _by_others(case: _Case, event: Told) -> bool:
    """Tell whether a success may be somebody else's: settled by looking after a restart, on a domain that others changed too."""
    data = event["data"]
    stored = case.routed.get(data["id"])
    domain = case.domains.get(data["domain"]["uuid"])
    if stored is None or domain is None:
        return False
    in_doubt = stored.time * 1000 < ulid_milliseconds(event["epoch"])
    return in_doubt and (domain.touched or domain.node in case.evidence.unhelped)


def _out_of_order(case: _Case) -> Iterable[str]:
    """Find what took its turn on a domain in another order than the node's log has, or was put there in another one than `cmd` has."""
    last: dict[str, tuple[int, str]] = {}
    for event in case.events:
        identity = event["data"].get("id", "")
        stored = case.routed.get(identity)
        if stored is None or _name(event) not in TERMINAL or not _took_its_turn(event):
            continue
        before = last.get(event["subject"], (0, ""))
        if stored.sequence < before[0]:
            yield f"{identity} ended after {before[1]}, which came later to {_named(case, event['subject'])}"
        last[event["subject"]] = max(before, (stored.sequence, identity))
    yield from _routed_out_of_order(case)


def _took_its_turn(event: Told) -> bool:
    data = event["data"]
    code = data.get("error", {}).get("code")
    return data["verb"] != "cancel" and _name(event) not in _WITHOUT_EFFECT and code not in _OUT_OF_TURN


def _routed_out_of_order(case: _Case) -> Iterable[str]:
    """Find what came from `cmd` in another order than it has there; where a name meant nothing yet, nobody knew whose turn it was."""
    first: dict[str, Message] = {}
    for message in case.evidence.cmd:
        first.setdefault(_id_of(message, "m-cmd"), message)
    last: dict[str, tuple[int, str]] = {}
    for identity, message in case.routed.items():
        domain, verb = message.subject.split(".")[5:7]
        # By which way a command that was sent on both came first is not known.
        if "Virt-Cmd" not in message.headers or verb == "cancel" or identity not in first or _both_ways(case, identity):
            continue
        stored, (reached, before) = first[identity], last.get(domain, (0, ""))
        if stored.sequence < reached and not _was_nameless(case, domain, stored, first[before], message.time):
            yield f"{identity} was routed after {before}, which was stored later for {_named(case, domain)}"
        last[domain] = max((reached, before), (stored.sequence, identity))


def _was_nameless(case: _Case, uuid: str, one: Message, other: Message, routed: float) -> bool:
    """Tell whether two commands address the domain in two ways, and one that may make it ended between storing and routing."""
    if one.subject.split(".")[4] == other.subject.split(".")[4]:
        return False
    for identity, message in case.routed.items():
        domain, verb = message.subject.split(".")[5:7]
        if domain == uuid and verb in ("create-xml", "define-xml") and message.time <= routed and identity in case.ends:
            ended = datetime.fromisoformat(case.ends[identity][0]["time"]).timestamp()
            if one.time <= ended:
                return True
    return False


def _both_ways(case: _Case, identity: str) -> bool:
    return any(send.id == identity and send.way == "api" for send in case.evidence.plan.sends)


def _holes(case: _Case) -> Iterable[str]:
    """Find holes in a node's sequences, events that do not name the one before them, and events stored twice."""
    for node in case.evidence.keys:
        try:
            audit.check_sequences(case.events, node)
        except AssertionError as error:
            yield f"{node}: {error}"
    for identity, count in Counter(event["id"] for event in case.events).items():
        if count > 1:
            yield f"event {identity} is stored {count} times"


def _wrong_state(case: _Case) -> Iterable[str]:
    """Find state keys that do not say what libvirt says."""
    for node, listed in case.evidence.listed.items():
        told = case.evidence.keys.get(node, {})
        for name in sorted(listed.keys() | told.keys()):
            if listed.get(name) != told.get(name):
                yield f"{node}/{name}: libvirt says {listed.get(name)}, the state key {told.get(name)}"


def _wrong_results(case: _Case) -> Iterable[str]:
    """Find results and answers that say something else than the terminal event."""
    for kind, told in (("result", case.evidence.results), ("answer", case.evidence.answers)):
        for result in told:
            ends = case.ends.get(result.get("id", ""))
            if not result.get("final", True):
                continue
            if ends is None:
                yield f"{kind} without an end: {result}"
            elif result != ends[0]["data"]:
                yield f"{kind} {result} differs from the event {ends[0]['data']}"


def _tracebacks(case: _Case) -> Iterable[str]:
    """Find processes that met what they did not expect."""
    for name, log in case.evidence.logs.items():
        if "Traceback" in log:
            yield f"{name}: {log.count('Traceback')} times, first {log[log.index('Traceback') :][:600]}"


def _named(case: _Case, uuid: str) -> str:
    return f"{case.domains[uuid].name} ({uuid})" if uuid in case.domains else uuid


def _name(event: Told) -> str:
    name: str = event["type"].split(".", 2)[2]
    return name


def _id_of(message: Message, kind: str) -> str:
    body = json.loads(message.body)
    identity: str = body.get("id") or message.headers.get("Virt-Id") or f"{kind}-{message.sequence}"
    return identity


LAWS: dict[str, Callable[[_Case], Iterable[str]]] = {
    "lost": _lost,
    "two outcomes": _two_outcomes,
    "doubled": _doubled,
    "undone": _undone,
    "out of order": _out_of_order,
    "holes": _holes,
    "wrong state": _wrong_state,
    "wrong results": _wrong_results,
    "tracebacks": _tracebacks,
}
"""By the name under which the summary counts them."""
