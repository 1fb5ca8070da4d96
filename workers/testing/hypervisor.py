"""A hypervisor that a test steers: it refuses, hangs, is lost, and tells its events late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from workers.drivers.memory import Fault, Faults, MemoryDriver
from workers.drivers.port import Ability, Happening, Listener, Lost, Rejected
from workers.engine.lane import Lanes
from workers.testing.strand import SteppedLane, Strand


class Hang(Fault):
    """A call that hangs until `release`. Releasing it twice is releasing it."""

    def __init__(self, step: str | None, *, after: bool) -> None:
        super().__init__(step, None, after=after)
        self._strand: Strand | None = None
        self._tell: list[Callable[[], object]] = []

    async def met(self) -> None:
        """Wait until a call has come to it."""
        met = asyncio.Event()
        self._tell.append(partial(asyncio.get_running_loop().call_soon_threadsafe, met.set))
        if not self.entered.is_set():
            await met.wait()

    def release(self) -> None:
        """Let the hanging call go on; on a fleet's lane it has returned, or hangs again, when this returns."""
        super().release()
        strand, self._strand = self._strand, None
        if strand is not None:
            strand.resume()

    def strike(self) -> None:
        """Hang until released."""
        self.entered.set()
        for tell in self._tell:
            tell()
        caller = threading.current_thread()
        if isinstance(caller, Strand) and not self.released:
            self._strand = caller
            caller.pause()
        else:
            super().strike()


class _Hangs(Faults):
    """Faults that know which calls hang or will."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: list[Hang] = []

    def hang(self, step: str | None = None, *, after: bool = False) -> Hang:
        """Make the next call of `step` (None: the next call at all) hang until released, before or after its effect."""
        fault = Hang(step, after=after)
        self.hangs.append(fault)
        self.add(fault)
        return fault


class FakeHypervisor(MemoryDriver):
    """`MemoryDriver`, steered. `machine` acts by itself (`machine.crash(uuid)`, `machine.power_off(uuid)`); `calls` says what was asked.

    A step is a verb, or `open`, `free_memory_kib`, `scan`, `look`, `mark`, `ask`, `progress`, `abort`; `create-xml` passes `start` too.
    What is asked for happens once, to the next call of that step, first come first served.
    """

    faults: _Hangs

    def __init__(self, uri: str = "memory:///default", *, lacks: tuple[str, ...] = ()) -> None:
        """Without the verbs that it `lacks`."""
        super().__init__(uri, lacks=lacks)
        self.faults = _Hangs()
        self._away = ""
        self._held: list[Happening] | None = None

    def lanes(self) -> Lanes:
        """Return lanes for a worker in virtual time: nothing runs beside its loop, and yet this hypervisor can hang."""
        lane = SteppedLane(self._may_hang)
        return Lanes(short=lane, long=lane, reads=lane, disk=lane)

    def refuse(self, step: str | None = None, message: str = "the test says no", *, after: bool = False) -> Fault:
        """Make the next call of `step` fail, before or after its effect. `faults.fail` does so with any error."""
        return self.faults.fail(Rejected(message, code=1, domain=10), step, after=after)

    def hang(self, step: str | None = None, *, after: bool = False) -> Hang:
        """Make the next call of `step` hang until released, before or after its effect."""
        return self.faults.hang(step, after=after)

    def lose(self, reason: str = "the test cut the connection") -> None:
        """Cut the connection, and let none be made before `restore`; domains run on, and nobody hears of it."""
        self._away = reason
        self.sever(reason)

    def restore(self) -> None:
        """Let the connection be made again."""
        self._away = ""

    def hold_events(self) -> None:
        """Keep events back from now on. A connection that ends loses what was kept."""
        self._held = [] if self._held is None else self._held

    def release_events(self) -> None:
        """Tell the events that were kept back, in their order, and keep back no more."""
        held, self._held = self._held or [], None
        for happening in held:
            self._emit(happening)

    def settle(self) -> None:
        """Release whatever hangs or would."""
        for hang in self.faults.hangs:
            hang.release()

    def open(self, listener: Listener) -> Ability:
        """Connect. Raises `Lost` while it is lost, and what a fault says."""
        if self._away:
            raise Lost(self._away)
        return super().open(listener)

    def close(self) -> None:
        """Disconnect; domains stay."""
        self._forget()
        super().close()

    def sever(self, reason: str) -> None:
        """Cut the connection, as a daemon that dies and comes back; domains run on."""
        self._forget()
        super().sever(reason)

    def _may_hang(self) -> bool:
        return any(not hang.entered.is_set() and not hang.released for hang in self.faults.hangs)

    def _forget(self) -> None:
        if self._held is not None:
            self._held = []

    def _emit(self, happening: Happening) -> None:
        if self._held is None:
            super()._emit(happening)
        else:
            self._held.append(happening)
