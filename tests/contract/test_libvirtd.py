"""A libvirtd that dies or hangs takes no caller with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests import hypervisors
from workers.drivers.libvirt import LibvirtDriver
from workers.drivers.port import Lost
from workers.testing import Recorder

# Slow: in a process that ran many tests before, libvirt 9.0 may hang at a killed daemon; `make e2e` runs it in one of its own.
pytestmark = [pytest.mark.hypervisor, pytest.mark.slow]

NOBODY = "00000000-0000-4000-8000-000000000000"
CALLERS = 4


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[hypervisors.Libvirtd]:
    """One libvirtd with containers only, which start the fastest."""
    reason = hypervisors.unavailable()
    if reason is not None:
        pytest.skip(f"a private libvirtd {reason}")
    with hypervisors.private_libvirtd("lxc", listening=True) as daemon:
        yield daemon


@pytest.fixture(params=["unix", "tcp"])
def uri(libvirtd: hypervisors.Libvirtd, request: pytest.FixtureRequest) -> str:
    """Return the way to it: on this host, or as if it were on another."""
    return libvirtd.uri("lxc") if request.param == "unix" else libvirtd.remote_uri("lxc")


class Callers:
    """Threads that call at once and keep what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.outcomes: list[object] = []
        self._call = call
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all have come back."""
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _run(self) -> None:
        try:
            self.outcomes.append(self._call())
        except Lost as error:
            self.outcomes.append(type(error))


def test_calls_into_a_frozen_daemon_return_once_it_goes_on(libvirtd: hypervisors.Libvirtd, uri: str) -> None:
    """They wait, an opening waits too, and all get their answers."""
    driver, other = LibvirtDriver(uri), LibvirtDriver(uri)
    driver.open(Recorder())
    libvirtd.freeze()
    callers = Callers(lambda: driver.look(NOBODY))
    opening = threading.Thread(target=other.open, args=(Recorder(),), daemon=True)
    opening.start()
    opening.join(0.3)
    assert (True, []) == (opening.is_alive(), callers.outcomes)
    libvirtd.thaw()
    opening.join(10)
    callers.join()
    assert [None] * CALLERS == callers.outcomes
    assert other.scan() == []
    driver.close()
    other.close()


def test_calls_into_a_daemon_that_is_killed_are_lost(libvirtd: hypervisors.Libvirtd, uri: str) -> None:
    """All at once, the loss is told once, and the next opening works."""
    driver, recorder = LibvirtDriver(uri), Recorder()
    driver.open(recorder)
    libvirtd.freeze()
    callers = Callers(lambda: driver.look(NOBODY))
    libvirtd.kill()
    callers.join()
    assert [Lost] * CALLERS == callers.outcomes
    assert recorder.until(lambda: bool(recorder.losses), 10)
    with pytest.raises(Lost, match="cannot connect"):
        driver.open(Recorder())
    libvirtd.start()
    driver.open(Recorder())
    assert driver.scan() == []
    driver.close()
    assert len(recorder.losses) == 1
