"""Where the laws play: a bench from the author, an opened driver, a recorder, and guests that are removed afterwards."""
# ruff: noqa: S101 - laws assert

from __future__ import annotations

import threading
import time
import uuid as _uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import msgspec
import pytest

from orchestrator.protocol.verb import Args, NoArgs, XmlArgs
from workers.drivers.port import Ability, Driver, Happening, Impossible, Lost, Missing, Rejected, Sighting, Tag

TAG = Tag(project="laws", labels={"role": "witness", "note": "<&>\"'"}, generation=3)
NOBODY = "00000000-0000-4000-8000-000000000000"

Write = Callable[[str, str], str]
"""(name, uuid) to domain XML."""


class Bench(msgspec.Struct, kw_only=True):
    """What the laws need of a driver's author.

    driver: not opened. xml: the smallest domain that starts there, one processor, with `<memory>65536</memory>`.
    unstartable: one that can be defined and not started (None: there is no such). lasting: one whose managed save takes seconds
    unless it is given up (None: none does). sever: break the connection and return
    when `open` can work again (None: it cannot break). patience_s: how long an event may take.
    """

    driver: Driver
    xml: Write
    unstartable: Write | None = None
    lasting: Write | None = None
    sever: Callable[[], None] | None = None
    patience_s: float = 10.0


class Recorder:
    """A listener that keeps what it is told, and waits for more."""

    def __init__(self) -> None:
        self.happenings: list[Happening] = []
        self.losses: list[str] = []
        self._changed = threading.Condition()

    def happened(self, happening: Happening) -> None:
        """Take an event."""
        with self._changed:
            self.happenings.append(happening)
            self._changed.notify_all()

    def lost(self, reason: str) -> None:
        """Take that the connection is gone."""
        with self._changed:
            self.losses.append(reason)
            self._changed.notify_all()

    def details(self, uuid: str) -> list[tuple[str, str]]:
        """Return the lifecycle events of a domain so far: (event, detail)."""
        with self._changed:
            return [(one.data["event"], one.data["detail"]) for one in self.happenings if one.uuid == uuid and one.event == "lifecycle"]

    def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition` holds; return whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)


class Guest:
    """A domain of a law, with the calls that laws make."""

    def __init__(self, stage: Stage) -> None:
        self.uuid = str(_uuid.uuid4())
        self.name = f"law-{self.uuid[:8]}"
        self.stage = stage
        self.xml = stage.bench.xml(self.name, self.uuid)

    def run(self, verb: str, args: Args | None = None, tag: Tag = TAG) -> None:
        """Carry out a verb on it. One that the hypervisor lacks is impossible, and the law ends there."""
        able = verb in self.stage.ability.verbs
        with nullcontext() if able else pytest.raises(Impossible):
            self.stage.driver.run(verb, self.uuid, NoArgs() if args is None else args, tag)
        if not able:
            pytest.skip(f"this hypervisor cannot {verb}")

    def define(self, xml: str | None = None, tag: Tag = TAG) -> None:
        """Define it, from its own XML if none is given."""
        self.run("define-xml", XmlArgs(xml=xml or self.xml), tag)

    def create(self, xml: str | None = None) -> None:
        """Define and start it."""
        self.run("create-xml", XmlArgs(xml=xml or self.xml))

    def request(self, verb: str) -> None:
        """Carry out a verb that needs the guest's help, again for as long as it is refused: a container just started has no init yet."""
        deadline = time.monotonic() + self.stage.bench.patience_s
        while True:
            try:
                self.run(verb)
            except Rejected:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)  # nothing tells that the guest can be asked
            else:
                return

    def look(self) -> Sighting:
        """Return what is seen of it."""
        seen = self.stage.driver.look(self.uuid)
        assert seen is not None
        return seen

    def told(self, event: str) -> list[tuple[str, str]]:
        """Wait for a lifecycle event of it; return all up to now. A hypervisor without events has told nothing."""
        if not self.stage.tells:
            return []
        recorder = self.stage.recorder
        found = recorder.until(lambda: any(name == event for name, _ in recorder.details(self.uuid)), self.stage.bench.patience_s)
        assert found, f"{event} was not told; only {recorder.details(self.uuid)}"
        return recorder.details(self.uuid)

    def heard(self, event: str, detail: str) -> bool:
        """Wait for a lifecycle event of it; tell whether it came last and with this detail, or no event comes at all."""
        return not self.stage.tells or (event, detail) == self.told(event)[-1]


class Stage:
    """An opened driver with its recorder, and the guests of one law."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.driver = bench.driver
        self.recorder = Recorder()
        self.ability: Ability = self.driver.open(self.recorder)
        self.guests: list[Guest] = []

    @property
    def tells(self) -> bool:
        """Whether the hypervisor has events; one without is polled by the worker."""
        return "lifecycle" in self.ability.events

    def guest(self) -> Guest:
        """Return a new guest; nothing is defined yet."""
        self.guests.append(Guest(self))
        return self.guests[-1]

    def reopen(self) -> None:
        """Open the driver again with a recorder of its own."""
        self.recorder = Recorder()
        self.ability = self.driver.open(self.recorder)

    def leave(self) -> None:
        """Remove the guests, whatever state they are in, and close."""
        for guest in self.guests:
            for verb in ("destroy", "undefine"):
                with suppress(Missing, Rejected, Lost, Impossible):  # already off, or gone, which is what we want
                    self.driver.run(verb, guest.uuid, NoArgs(), TAG)
        self.driver.close()


class Laws:
    """What every group of laws shares."""

    @pytest.fixture
    def bench(self) -> Bench:
        """Return the bench; every subclass gives its own."""
        raise NotImplementedError

    @pytest.fixture
    def stage(self, bench: Bench) -> Iterator[Stage]:
        """Open the driver for one law."""
        stage = Stage(bench)
        yield stage
        stage.leave()
