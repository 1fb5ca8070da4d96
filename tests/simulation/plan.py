"""What a seed does: commands and faults with their times, as values. Faults can be left out without changing the rest."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

HORIZON_S = 30.0
"""Virtual seconds in which commands are sent; faults begin in them, and all are healed a little later."""

COMMANDS = 60
NODES = ("n1", "n2", "n3")
PROJECTS = ("default", "default", "default", "other")
DOMAINS = 7
MOST_FAULTS = 8

Way = Literal["api", "cmd", "run"]


class Place(msgspec.Struct, frozen=True):
    """A domain that commands are about. node: where it is to be made, empty: anywhere. uuid: empty: given by the command that makes it."""

    project: str
    name: str
    node: str
    uuid: str


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a client sends. id: of the command that it bears. fresh: whether that id was in no message before it."""

    at: float
    client: str
    way: Way
    project: str
    node: str
    domain: str
    verb: str
    id: str
    body: bytes
    patience_s: float
    fresh: bool = True
    digest: str = ""
    """Two messages of one id and one digest are one command."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong. seconds: how long it lasts. number: what it needs more of chance."""

    at: float
    kind: str
    target: str
    seconds: float
    number: int


class Meddling(msgspec.Struct, frozen=True):
    """Somebody acts on a node's hypervisor behind our back."""

    at: float
    node: str
    act: str
    number: int


class Plan(msgspec.Struct, frozen=True):
    """All that a seed does."""

    seed: int
    coordinators: tuple[str, ...]
    sendings: list[Sending]
    meddlings: list[Meddling]
    faults: list[Fault]


NODE_FAULTS = (
    "crash", "crash", "doom", "doom", "pause", "cut", "cut-on-answer", "linger", "partition", "storm", "storm", "clock",
    "refuse", "hang", "lose", "mute", "blind", "lost-answer", "strike", "strike",
)
SEAT_FAULTS = ("crash", "doom", "pause", "cut", "cut-on-answer", "linger", "partition", "storm")
CLIENT_FAULTS = ("crash", "cut", "linger", "storm")
ACTS = ("power_off", "crash", "start", "suspend", "resume", "undefine", "define")
VERBS = (
    "start", "destroy", "suspend", "resume", "start", "destroy", "shutdown", "reboot", "reset", "set-autostart", "undefine",
    "managed-save",
)
TIMEOUTS = (None, None, None, 30, 10, 5, 1, 0.2, 0.01)


def plan(seed: int) -> Plan:
    """Return what a seed does."""
    chance = random.Random(f"plan {seed}")
    coordinators = tuple(f"c{number}" for number in range(1, chance.randint(1, 2) + 1))
    return Plan(seed, coordinators, _sendings(chance), _meddlings(chance), _faults(random.Random(f"faults {seed}"), coordinators))


def reused(plan: Plan) -> set[tuple[str, str]]:
    """Return the ids, with their projects, under which more than one command is sent."""
    digests: dict[tuple[str, str], set[str]] = {}
    for sending in plan.sendings:
        digests.setdefault((sending.project, sending.id), set()).add(sending.digest)
    return {key for key, several in digests.items() if len(several) > 1}


def _sendings(chance: random.Random) -> list[Sending]:
    places = [_place(chance, number) for number in range(DOMAINS)]
    sent: list[Sending] = []
    times = sorted(chance.uniform(0, HORIZON_S) for _ in range(COMMANDS))
    for number, at in enumerate(times):
        way: Way = chance.choice(("api", "api", "cmd", "cmd", "cmd", "run"))
        client, kind = chance.choice(("k1", "k2")), chance.random()
        place = places[number] if number < len(places) else chance.choice(places)
        if number < len(places) or kind < 0.12:
            sent.append(_creation(chance, number, at, client, way, place))
        elif kind < 0.24:
            sent.append(_repeated(chance.choice(sent), at))
        elif kind < 0.30:
            sent.append(_reused(chance.choice(sent), at))
        elif kind < 0.38:
            sent.append(_cancel(chance, number, at, client, chance.choice(sent)))
        elif kind < 0.41:
            sent.append(_spoilt(chance, number, at, client, place))
        else:
            sent.append(_verb(chance, number, at, client, way, place))
    return sent


def _place(chance: random.Random, number: int) -> Place:
    node = chance.choice((*NODES, ""))
    uuid = f"00000000-0000-4000-8000-{chance.getrandbits(48):012x}" if node or chance.random() < 0.3 else ""
    return Place(chance.choice(PROJECTS), f"web{number}", node, uuid)


def _xml(place: Place) -> str:
    uuid = f"<uuid>{place.uuid}</uuid>" if place.uuid else ""
    return f"<domain type='test'><name>{place.name}</name>{uuid}<memory>65536</memory><os><type>hvm</type></os></domain>"


def _sending(
    chance: random.Random, number: int, at: float, client: str, way: Way, place: Place, verb: str, args: dict[str, Any]
) -> Sending:
    timeout, id = chance.choice(TIMEOUTS), f"{client}-{number}"
    body: dict[str, Any] = {"id": id, "args": args}
    if timeout is not None:
        body["timeout_s"] = timeout
    if chance.random() < 0.08:
        body["if"] = {"state": chance.choice(("running", "shutoff", "paused"))}
    if way == "run" and not place.node:
        way = "cmd"
    by_uuid = way == "run" or (place.uuid and chance.random() < 0.5)
    return Sending(
        at=at, client=client, way=way, project=place.project, node=place.node if way == "run" else "",
        domain=place.uuid if by_uuid else place.name, verb=verb, id=id, body=json.dumps(body).encode(), patience_s=timeout or 60.0,
        digest=f"{place.name} {verb} {json.dumps(body)}",
    )


def _creation(chance: random.Random, number: int, at: float, client: str, way: Way, place: Place) -> Sending:
    args = {"xml": _xml(place)} | ({"node": place.node} if place.node else {})
    return _sending(chance, number, at, client, way, place, chance.choice(("create-xml", "create-xml", "define-xml")), args)


def _verb(chance: random.Random, number: int, at: float, client: str, way: Way, place: Place) -> Sending:
    verb = chance.choice(VERBS)
    args = {"enabled": chance.random() < 0.5} if verb == "set-autostart" else {}
    return _sending(chance, number, at, client, way, place, verb, args)


def _repeated(earlier: Sending, at: float) -> Sending:
    return msgspec.structs.replace(earlier, at=at, fresh=False)


def _reused(earlier: Sending, at: float) -> Sending:
    body = {"id": earlier.id, "timeout_s": 17, "args": {}}
    return msgspec.structs.replace(
        earlier, at=at, verb="resume", body=json.dumps(body).encode(), fresh=False, digest=f"reused {earlier.domain} {body}"
    )


def _cancel(chance: random.Random, number: int, at: float, client: str, target: Sending) -> Sending:
    id = f"{client}-{number}"
    way: Way = "run" if target.way == "run" else chance.choice(("api", "cmd"))
    domain = target.domain if way == "run" or chance.random() < 0.7 else "_"
    body = json.dumps({"id": id, "args": {"id": target.id}, "timeout_s": 20}).encode()
    return Sending(
        at=at, client=client, way=way, project=target.project, node=target.node, domain=domain, verb="cancel", id=id, body=body,
        patience_s=20.0, digest=f"cancel {target.id} {domain}",
    )


def _spoilt(chance: random.Random, number: int, at: float, client: str, place: Place) -> Sending:
    id = f"{client}-{number}"
    verb, body = chance.choice((("fly", {"id": id}), ("start", {"id": id, "colour": 1}), ("start", {"id": id, "timeout_s": -1})))
    return Sending(
        at=at, client=client, way="cmd", project=place.project, node="", domain=place.name, verb=verb, id=id,
        body=json.dumps(body).encode(), patience_s=5.0, digest=f"spoilt {number}",
    )


def _meddlings(chance: random.Random) -> list[Meddling]:
    count = chance.randint(2, 8)
    return [
        Meddling(chance.uniform(2, HORIZON_S), chance.choice(NODES), chance.choice(ACTS), chance.getrandbits(32)) for _ in range(count)
    ]


def _faults(chance: random.Random, coordinators: Sequence[str]) -> list[Fault]:
    return sorted((_fault(chance, coordinators) for _ in range(chance.randint(3, MOST_FAULTS))), key=lambda fault: fault.at)


def _fault(chance: random.Random, coordinators: Sequence[str]) -> Fault:
    where = chance.random()
    if where < 0.62:
        kind, target = chance.choice(NODE_FAULTS), chance.choice(NODES)
    elif where < 0.82:
        kind, target = chance.choice(SEAT_FAULTS), chance.choice(coordinators)
    elif where < 0.91:
        kind, target = chance.choice(CLIENT_FAULTS), chance.choice(("k1", "k2"))
    else:
        kind, target = "restart", "broker"
    seconds = chance.choice((0.05, 0.5, 2.0, 5.0, 12.0, 20.0)) * chance.uniform(0.5, 1.5)
    return Fault(at=chance.uniform(0.2, HORIZON_S), kind=kind, target=target, seconds=seconds, number=chance.getrandbits(32))
