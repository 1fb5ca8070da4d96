"""Laws that hold once all faults are healed and everything has come to rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.bus.port import Message
from orchestrator.protocol import codec
from orchestrator.protocol.command import id_of
from orchestrator.protocol.domain import Observed
from tests.simulation.laws import Key
from tests.simulation.stage import SimulatedNode
from tests.simulation.witness import Witness

FACTS = ("name", "type", "state", "persistent", "autostart", "vcpus", "memory_kib", "incarnation")


def accepted(witness: Witness) -> set[Key]:
    """Return the commands that a log has taken in: each must come to an end."""
    return set(_keys(witness.cmd, 3)) | set(_keys(witness.run, 4))


def endless(witness: Witness) -> set[Key]:
    """Return the accepted commands that have not ended."""
    return accepted(witness) - witness.events.ends.keys()


def check_answers(witness: Witness) -> None:
    """Judge answers: one that is final is what the terminal event says, and speaks of what was asked.

    Of two commands of one verb under one id only who has seen the first can tell that they are two: a terminal event does not
    bear what the command was in full.
    """
    for sending, answer in witness.answers:
        key = sending.project, sending.id
        if "id" not in answer or not answer.get("final", True):
            continue
        told = witness.events.ends.get(key)
        if answer["id"] != sending.id:
            witness.breach(f"answer to {key} is final and bears another id: {answer}")
        elif answer != told and answer not in witness.events.others:
            witness.breach(f"answer to {key} is {answer}, its terminal event says {told}")
        if answer["verb"] != sending.verb:
            witness.breach(f"{sending.verb} under the id {key} was told the outcome of another command: {answer}")


def check_states(witness: Witness, nodes: Iterable[SimulatedNode], kept: Mapping[str, bytes]) -> None:
    """Judge state keys: they are what the hypervisors have, no more and no less."""
    for node in nodes:
        mine = [codec.decode(body, Observed) for key, body in kept.items() if body and key.startswith(f"{node.name}.")]
        told = {observed.uuid: _facts(observed) for observed in mine}
        real = {seen.uuid: _facts(seen) for seen in (domain.sighting(uuid) for uuid, domain in node.fake.machine.domains.items())}
        if len(told) < len(mine):
            witness.breach(f"{node.name} tells a domain under two keys: {sorted(key for key, body in kept.items() if body)}")
        for uuid in sorted(told.keys() | real.keys()):
            if told.get(uuid) != real.get(uuid):
                witness.breach(f"state key of {uuid} on {node.name} says {told.get(uuid)}, the hypervisor {real.get(uuid)}")


def check_owners(witness: Witness, nodes: Iterable[SimulatedNode]) -> None:
    """Each domain is on one node, and its owner record says which."""
    homes: dict[str, str] = {}
    for node in nodes:
        for uuid in node.fake.machine.domains:
            if uuid in homes:
                witness.breach(f"domain {uuid} is on {homes[uuid]} and on {node.name}")
            homes[uuid] = node.name
    for uuid, home in homes.items():
        owner = witness.records.owners.get(uuid)
        if owner is None or owner["node"] != home:
            witness.breach(f"domain {uuid} is on {home}, its owner record is {owner}")


def _facts(seen: Any) -> tuple[Any, ...]:
    return tuple(getattr(seen, fact) for fact in FACTS)


def _keys(messages: Iterable[Message], at: int) -> Iterable[Key]:
    """Return the commands of messages whose clients gave an id; `at`: the project's place in the subject."""
    for message in messages:
        id = id_of(message.body, message.headers)
        if id is not None:
            yield message.subject.split(".")[at], id
