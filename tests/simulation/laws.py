"""Laws that hold at every step, each judged the moment that something happens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from orchestrator.bus.port import Message
from orchestrator.protocol import codec
from orchestrator.protocol.command import HEADER_CMD, id_of
from orchestrator.protocol.event import TERMINAL, ZERO
from orchestrator.protocol.verb import VERBS
from workers.drivers.machine import Domain, Machine
from workers.journal.memory import Contents
from workers.journal.port import Begun, Change, Ended, EpochBegun, Received

Breach = Callable[[str], None]
Key = tuple[str, str]
"""Project and id of a command."""


class EventLaw:
    """One terminal event a command; sequences without a hole, chains without a break, epochs that rise.

    ends: the terminal events' data. others: those of commands that reused an id, see `_end`.
    """

    def __init__(self, breach: Breach, reused: Collection[Key] = ()) -> None:
        self.ends: dict[Key, dict[str, Any]] = {}
        self.others: list[dict[str, Any]] = []
        self._reused = reused
        self._breach = breach
        self._reached: dict[str, tuple[str, int]] = {}
        self._previous: dict[tuple[str, str, str, str], str] = {}

    def stored(self, message: Message) -> None:
        """Judge an event that is in the log now."""
        event = codec.decode(message.body, dict)
        if event["node"] != "_":
            self._in_order(event)
        if event["type"].split(".", 2)[2] in TERMINAL:
            self._end(event)

    def _in_order(self, event: Mapping[str, Any]) -> None:
        node, epoch, sequence = event["node"], event["epoch"], int(event["sequence"])
        last_epoch, last = self._reached.get(node, ("", 0))
        expected = last + 1 if epoch == last_epoch else 1
        if epoch < last_epoch or sequence != expected:
            self._breach(f"event {event['id']} follows {last_epoch}.{last}")
        self._reached[node] = epoch, sequence
        key = (node, epoch, event["project"], event["subject"])
        if event["previous"] != self._previous.get(key, ZERO):
            self._breach(f"event {event['id']} says previous {event['previous']}, it is {self._previous.get(key, ZERO)}")
        self._previous[key] = event["sequence"]

    def _end(self, event: Mapping[str, Any]) -> None:
        """Judge a terminal event.

        A node knows of no command that a coordinator ended, and a coordinator that was killed remembers none. So a command
        that reuses the id of one that never came to a node may come to its own end under it: it is another one, by its verb.
        """
        key = event["project"], event["commandid"]
        first = self.ends.get(key)
        if first is not None and key in self._reused and first["verb"] != event["data"]["verb"] and "_" in (first["node"], event["node"]):
            self.others.append(event["data"])
        elif key in self.ends:
            self._breach(f"command {key} has a second terminal event: {event['data']} after {self.ends[key]}")
        self.ends.setdefault(key, event["data"])


class _Run:
    """A command that has begun on a node. steps: what it did there. meddled: whether somebody else acted on its domain since."""

    def __init__(self, key: Key, verb: str) -> None:
        self.key = key
        self.verb = verb
        self.steps: list[str] = []
        self.meddled = False


class LedgerLaw:
    """Each command begins once, in order, in time, and has at most one effect; what it says of its effect is true."""

    def __init__(self, breach: Breach, clock: Callable[[], float]) -> None:
        self.machines: dict[str, Machine] = {}
        """By node, its hypervisor."""
        self.disturbed: dict[str, float] = {}
        """By node, the broker's time until which its own idea of time may be wrong."""
        self._breach = breach
        self._clock = clock
        self._runs: dict[tuple[str, Key], _Run] = {}
        self._current: dict[tuple[str, str], _Run] = {}
        self._reached: dict[tuple[str, str], int] = {}
        self._epochs: dict[str, str] = {}

    def change(self, node: str, change: Change, contents: Contents) -> str:
        """Judge a change of a node's journal before it is in; return what the trace says of it."""
        if isinstance(change, Received):
            return f"received {change.entry.id} {change.entry.verb}"
        if isinstance(change, Begun):
            self._begins(node, change, contents)
            return f"began {change.id}"
        if isinstance(change, Ended):
            self._ends(node, change, contents)
            return f"ended {change.id}"
        if isinstance(change, EpochBegun):
            if change.epoch <= self._epochs.get(node, ""):
                self._breach(f"{node} begins epoch {change.epoch} after {self._epochs[node]}")
            self._epochs[node] = change.epoch
            return f"begins epoch {change.epoch}"
        return ""

    def effect(self, node: str, verb: str, step: str, uuid: str) -> None:
        """Judge that a call has had its effect."""
        run = self._current.get((node, uuid))
        if run is None or run.verb != verb:
            self._breach(f"{node} did {verb} of {uuid}, and no such command has begun")
            return
        if step in run.steps:
            self._breach(f"{node} did {step} of {uuid} a second time for command {run.key}")
        run.steps.append(step)

    def meddled(self, node: str, uuid: str) -> None:
        """Note that somebody else acted on a domain: what its command finds may not be its own work."""
        run = self._current.get((node, uuid))
        if run is not None:
            run.meddled = True

    def began(self, node: str, key: Key) -> bool:
        """Tell whether a command has begun on a node."""
        return (node, key) in self._runs

    def _begins(self, node: str, change: Begun, contents: Contents) -> None:
        key = change.project, change.id
        entry = contents.ledger.get(key)
        if entry is None:
            self._breach(f"{node} begins {key}, which its ledger does not have")
            return
        if (node, key) in self._runs or entry.phase != "received":
            self._breach(f"{node} begins {key} again, in phase {entry.phase}")
        late = self._clock() - entry.deadline
        if late > 0 and self._clock() > self.disturbed.get(node, 0.0):
            self._breach(f"{node} begins {key} {late:.3f} s after its deadline")
        place = (node, entry.uuid)
        if entry.sequence <= self._reached.get(place, 0):
            self._breach(f"{node} begins {key} out of order: sequence {entry.sequence} after {self._reached[place]}")
        self._reached[place] = max(entry.sequence, self._reached.get(place, 0))
        self._runs[node, key] = self._current[place] = _Run(key, entry.verb)

    def _ends(self, node: str, change: Ended, contents: Contents) -> None:
        key = change.project, change.id
        entry = contents.ledger.get(key)
        if entry is None or entry.phase in ("ended", "stored"):
            self._breach(f"{node} ends {key}, which is {'unknown' if entry is None else entry.phase}")
            return
        self._true(node, key, self._runs.get((node, key)), codec.decode(change.result, dict))

    def _true(self, node: str, key: Key, run: _Run | None, result: Mapping[str, Any]) -> None:
        error = result.get("error", {})
        code, outcome = error.get("code"), error.get("outcome")
        if run is None:
            if result["ok"] and result["verb"] != "cancel":
                self._breach(f"{node} says {key} succeeded, and it never began")
            return
        if code == "cancelled" or (code == "deadline" and outcome == "none"):
            self._breach(f"{node} says {key} ended as {code} without effect, and it had begun")
        did = "start" in run.steps if run.verb == "create-xml" else bool(run.steps)
        if run.meddled:
            return
        if result["ok"] and not _as_wanted(run.verb, self.machines[node].domains.get(result["domain"]["uuid"])):
            self._breach(f"{node} says {key} succeeded, and the domain is not as {run.verb} wants it")
        if result["ok"] and result.get("changed") and not did:
            self._breach(f"{node} says {key} succeeded and changed something, and nothing was done")
        if outcome == "none" and did:
            self._breach(f"{node} says {key} had no effect, and it did {run.steps}")


def _as_wanted(verb: str, domain: Domain | None) -> bool:
    """Tell whether a domain, None where there is none, is what a verb makes of one, as far as its state tells."""
    if domain is None:
        return verb in ("undefine", "destroy", "shutdown")
    if verb == "undefine":
        return not domain.persistent
    wanted = {"start": domain.instance is not None, "create-xml": domain.instance is not None, "define-xml": domain.persistent}
    return wanted.get(verb, VERBS[verb].goal in (None, domain.state))


class RecordLaw:
    """Leases, leadership and cursors go forward; owners change only with their epoch; `VIRT_CMD`'s order is kept for each domain."""

    def __init__(self, breach: Breach) -> None:
        self.owners: dict[str, dict[str, Any]] = {}
        self._breach = breach
        self._highest: dict[str, Any] = {}
        self._order: dict[str, int] = {}
        self._routed: set[Key] = set()

    def stored(self, message: Message) -> None:
        """Judge a key's new value."""
        _, bucket, key = message.subject.split(".", 2)
        if bucket == "virt_owners":
            self._owned(key, message.body)
        if not message.body or bucket not in ("virt_leases", "virt_cursors"):
            return
        value = codec.decode(message.body, dict)
        self._rises(f"{bucket} {key} epoch", value["epoch"])
        if "cmd" in value:
            self._rises("the cursor in VIRT_CMD", value["cmd"])

    def routed(self, message: Message) -> None:
        """Judge a copy in `VIRT_RUN` by the place of its command in `VIRT_CMD`; of a command's copies only the first counts."""
        place, (project, uuid) = int(message.headers.get(HEADER_CMD, "0")), message.subject.split(".")[4:6]
        key = project, id_of(message.body, message.headers) or str(place)
        if key in self._routed:
            return
        self._routed.add(key)
        if not place or message.subject.endswith(".cancel"):
            return
        if place < self._order.get(uuid, 0):
            self._breach(f"VIRT_CMD #{place} is routed after #{self._order[uuid]}, both for {uuid}")
        self._order[uuid] = max(place, self._order.get(uuid, 0))

    def _owned(self, uuid: str, body: bytes) -> None:
        before = self.owners.pop(uuid, None)
        if not body:
            return
        owner = self.owners[uuid] = codec.decode(body, dict)
        if before is None:
            return
        moved = owner["node"] != before["node"]
        if owner["epoch"] < before["epoch"] or (moved and owner["epoch"] == before["epoch"]):
            self._breach(f"owner of {uuid} was {before}, is {owner}")

    def _rises(self, what: str, value: Any) -> None:
        if what in self._highest and value < self._highest[what]:
            self._breach(f"{what} goes back from {self._highest[what]} to {value}")
        self._highest[what] = value


class ResultLaw:
    """A result is what its terminal event says, and comes after it."""

    def __init__(self, breach: Breach, events: EventLaw) -> None:
        self._breach = breach
        self._events = events

    def said(self, message: Message) -> None:
        """Judge a message on `res`."""
        project, id = message.subject.split(".")[4:6]
        result = codec.decode(message.body, dict)
        told = self._events.ends.get((project, id))
        if result.get("final", True) and told != result and result not in self._events.others:
            self._breach(f"result of {(project, id)} is {result}, its terminal event says {told}")
