"""What a run will do, all of it drawn from one seed before it begins: commands, changes behind our back, faults.

Two runs of one seed have the same plan to the byte; how the steps fall into each other is up to the machine.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from tests.e2e.places import QEMU, TEST

Way = Literal["api", "cmd", "run"]

PROJECT = "default"
LONG_S = 600.0
"""Deadline of a command that shall not expire, whatever is done to the system."""

_XML = {"test": TEST, "qemu": QEMU}
_VERBS = {
    "test": {
        "suspend": 20, "resume": 20, "start": 14, "destroy": 14, "set-autostart": 10,
        "create-xml": 8, "define-xml": 8, "undefine": 4, "reboot": 2,
    },
    "qemu": {
        "suspend": 20, "resume": 20, "start": 8, "destroy": 8, "set-autostart": 12,
        "create-xml": 8, "define-xml": 6, "undefine": 2, "reset": 4, "shutdown": 2,
    },
}  # fmt: skip
_LIFE = {"test": 6, "qemu": 1}
"""How often domains of a kind are chosen: a start of QEMU costs a hundred times one of the test driver."""

_MEDDLING = {"test": ("suspend", "resume", "start", "destroy", "undefine"), "qemu": ("kill-guest", "freeze-guest")}


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain of the run. touched: also changed behind our back."""

    name: str
    uuid: str
    node: str
    kind: str
    touched: bool


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """One message: a command, or a repeat of one. subject: token of the domain as addressed. bent: a used id with another body."""

    at: float
    way: Way
    domain: str
    subject: str
    verb: str
    id: str
    body: bytes
    bent: bool = False


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """Something done to the system (`kind` to `target` for `for_s` seconds), or behind its back (then `domain` is a name)."""

    at: float
    kind: str
    target: str
    for_s: float = 0.0
    domain: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run does, each list in the order of time."""

    seed: int
    seconds: float
    domains: dict[str, Domain]
    sends: list[Send]
    meddling: list[Deed]
    faults: list[Deed]


def draw(seed: int, seconds: float, nodes: Mapping[str, str], coordinators: Sequence[str], *, rate: float, domains: int) -> Plan:
    """Draw a plan. nodes: kind by name, `test` or `qemu`. rate: commands a second. domains: on each node of the test driver."""
    houses = _domains(seed, nodes, domains)
    return Plan(
        seed=seed,
        seconds=seconds,
        domains={domain.name: domain for domain in houses},
        sends=sorted(_sends(random.Random(f"{seed}/sends"), seconds, houses, rate), key=lambda send: send.at),
        meddling=sorted(_meddling(random.Random(f"{seed}/meddling"), seconds, houses), key=lambda deed: deed.at),
        faults=sorted(_faults(random.Random(f"{seed}/faults"), seconds, nodes, coordinators), key=lambda deed: deed.at),
    )


def _domains(seed: int, nodes: Mapping[str, str], count: int) -> list[Domain]:
    found = []
    for node, kind in nodes.items():
        for number in range(count if kind == "test" else max(count // 4, 2)):
            name = f"{node}-vm{number}"
            identity = str(uuid.UUID(bytes=random.Random(f"{seed}/{name}").randbytes(16), version=4))
            found.append(Domain(name=name, uuid=identity, node=node, kind=kind, touched=number % 3 == 2))
    return found


def _sends(chance: random.Random, seconds: float, domains: Sequence[Domain], rate: float) -> Iterator[Send]:
    """Yield commands, with the repeats and the cancels of them."""
    made: set[str] = set()
    recent: deque[Send] = deque(maxlen=30)
    at, number = 0.0, 0
    weights = [_LIFE[domain.kind] for domain in domains]
    while (at := at + chance.expovariate(rate)) < seconds:
        number += 1
        domain = chance.choices(domains, weights)[0]
        identity = f"c{number}"
        if recent and chance.random() < 0.08:
            yield _cancel(chance, at, identity, chance.choice(list(recent)), domain.node)
            continue
        verb = _verb(chance, domain) if domain.name in made else chance.choice(["create-xml", "define-xml"])
        made.add(domain.name)
        send = _command(chance, at, identity, domain, verb)
        recent.append(send)
        yield send
        yield from _repeats(chance, send, seconds)


def _verb(chance: random.Random, domain: Domain) -> str:
    verbs = _VERBS[domain.kind]
    return chance.choices(list(verbs), list(verbs.values()))[0]


def _command(chance: random.Random, at: float, identity: str, domain: Domain, verb: str) -> Send:
    body: dict[str, Any] = {"id": identity, "timeout_s": _timeout_s(chance, verb)}
    if verb in ("create-xml", "define-xml"):
        xml = _XML[domain.kind].format(name=domain.name).replace("</name>", f"</name><uuid>{domain.uuid}</uuid>", 1)
        body["args"] = {"xml": xml, "node": domain.node}
    elif verb == "set-autostart":
        body["args"] = {"enabled": chance.random() < 0.5}
    elif chance.random() < 0.05:
        body["if"] = {"state": chance.choice(["running", "paused", "shutoff"])}
    way: Way = chance.choices(("api", "cmd", "run"), (3, 5, 2))[0]
    subject = domain.name if way != "run" and chance.random() < 0.5 else domain.uuid
    return Send(at=at, way=way, domain=domain.name, subject=subject, verb=verb, id=identity, body=json.dumps(body).encode())


def _timeout_s(chance: random.Random, verb: str) -> float:
    if verb == "shutdown":
        return round(chance.uniform(1.0, 3.0), 3)  # no guest system is there to obey
    return round(chance.uniform(0.05, 2.0), 3) if chance.random() < 0.12 else LONG_S


def _cancel(chance: random.Random, at: float, identity: str, target: Send, node: str) -> Send:
    body = json.dumps({"id": identity, "args": {"id": target.id}, "timeout_s": 60}).encode()
    del node
    way: Way = "run" if target.way == "run" else chance.choice(("api", "cmd"))
    subject = target.subject if way == "run" or chance.random() < 0.5 else "_"
    return Send(at=at, way=way, domain=target.domain, subject=subject, verb="cancel", id=identity, body=body)


def _repeats(chance: random.Random, send: Send, seconds: float) -> Iterator[Send]:
    """Yield repeats of a command: the same way or, but for `run`, the other one; now and then with another body."""
    if chance.random() < 0.1:
        for _ in range(chance.choice((1, 1, 1, 4))):
            way: Way = "run" if send.way == "run" else chance.choice(("api", "cmd"))
            yield msgspec.structs.replace(send, at=min(send.at + chance.uniform(0, 15), seconds), way=way)
    if send.way != "api" and chance.random() < 0.02:
        body = {**json.loads(send.body), "actor": "somebody", "timeout_s": 59}
        yield msgspec.structs.replace(send, at=min(send.at + chance.uniform(0, 5), seconds), body=json.dumps(body).encode(), bent=True)


def _meddling(chance: random.Random, seconds: float, domains: Sequence[Domain]) -> Iterator[Deed]:
    touched = [domain for domain in domains if domain.touched]
    at = 1.0
    while touched and (at := at + chance.expovariate(1.0)) < seconds:
        domain = chance.choice(touched)
        for_s = round(chance.uniform(0.5, 4.0), 3)
        yield Deed(at=at, kind=chance.choice(_MEDDLING[domain.kind]), target=domain.node, for_s=for_s, domain=domain.name)


def _faults(chance: random.Random, seconds: float, nodes: Mapping[str, str], coordinators: Sequence[str]) -> Iterator[Deed]:
    """Yield faults a few seconds apart: of each kind and target one, in any order, before any comes again."""
    deck: list[tuple[str, str]] = []
    at = 1.5
    while (at := at + chance.uniform(0.3, 3.5)) < seconds - 1:
        if not deck:
            deck = _deck(nodes, coordinators)
            chance.shuffle(deck)
        kind, target = deck.pop()
        # Now and then longer than leases last; never beyond the end, where all is to heal.
        long = chance.random() < 0.08
        for_s = chance.uniform(16, 20) if long else chance.uniform(0.3, 4.0)
        yield Deed(at=at, kind=kind, target=target, for_s=round(min(for_s, max(seconds - at, 1.0)), 3))


def _deck(nodes: Mapping[str, str], coordinators: Sequence[str]) -> list[tuple[str, str]]:
    """Return each kind of fault with each target that it fits."""
    deck = [(kind, target) for target in (*nodes, *coordinators) for kind in ("kill", "stop", "cut")]
    deck += [("kill", target) for target in (*nodes, "broker")]
    deck += [("stop", "broker")]
    deck += [("full", node) for node in nodes]
    deck += [(kind, node) for node, driver in nodes.items() if driver == "test" for kind in ("libvirtd-kill", "libvirtd-stop")]
    return deck
