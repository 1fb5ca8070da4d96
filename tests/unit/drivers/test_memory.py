"""The hypervisor in memory: QEMU's order, guests that act by themselves, faults on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from orchestrator.protocol.verb import Args, AutostartArgs, NoArgs, XmlArgs
from workers.drivers.memory import MemoryDriver
from workers.drivers.port import Impossible, Lost, Rejected, Sighting, Tag
from workers.testing import Recorder

UUID = "6f1c0000-0000-4000-8000-000000000001"
XML = f"<domain type='test'><name>a</name><uuid>{UUID}</uuid><memory>1024</memory></domain>"
TAG = Tag(project="p")


@pytest.fixture
def recorder() -> Recorder:
    """Return a listener that keeps what it is told."""
    return Recorder()


@pytest.fixture
def driver(recorder: Recorder) -> Iterator[MemoryDriver]:
    """Return an opened driver without domains."""
    driver = MemoryDriver()
    driver.open(recorder)
    yield driver
    driver.close()


def run(driver: MemoryDriver, verb: str, args: Args | None = None) -> None:
    """Carry out a verb on the one domain."""
    driver.run(verb, UUID, NoArgs() if args is None else args, TAG)


def create(driver: MemoryDriver) -> None:
    """Define and start the one domain."""
    run(driver, "create-xml", XmlArgs(xml=XML))


def seen(driver: MemoryDriver) -> Sighting:
    """Return what is seen of it."""
    sighting = driver.look(UUID)
    assert sighting is not None
    return sighting


def test_events_come_in_the_order_of_qemu_and_before_the_call_returns(driver: MemoryDriver, recorder: Recorder) -> None:
    """`resumed` before `started`, `shutdown` before `stopped`."""
    create(driver)
    run(driver, "destroy")
    assert [
        ("defined", "added"),
        ("resumed", "unpaused"),
        ("started", "booted"),
        ("shutdown", "host"),
        ("stopped", "destroyed"),
    ] == recorder.details(UUID)


def test_a_guest_that_obeys_shuts_down_and_one_that_does_not_runs_on(driver: MemoryDriver, recorder: Recorder) -> None:
    """`shutdown` only asks."""
    create(driver)
    driver.machine.obeys = False
    run(driver, "shutdown")
    assert seen(driver).state == "running"
    driver.machine.obeys = True
    run(driver, "shutdown")
    assert ("shutoff", "shutdown") == (seen(driver).state, seen(driver).reason)
    assert [("shutdown", "guest"), ("stopped", "shutdown")] == recorder.details(UUID)[-2:]


def test_a_crash_is_told_as_qemu_tells_it(driver: MemoryDriver, recorder: Recorder) -> None:
    """The process died: `stopped`, `failed`, and the incarnation is gone."""
    create(driver)
    driver.mark(UUID, "01J")
    driver.machine.crash(UUID)
    assert ("shutoff", "crashed", None) == (seen(driver).state, seen(driver).reason, seen(driver).incarnation)
    assert ("stopped", "failed") == recorder.details(UUID)[-1]


def test_suspending_twice_pauses_once_and_resuming_twice_is_refused(driver: MemoryDriver, recorder: Recorder) -> None:
    """As QEMU does."""
    create(driver)
    run(driver, "suspend")
    run(driver, "suspend")
    run(driver, "resume")
    with pytest.raises(Rejected):
        run(driver, "resume")
    assert [("suspended", "paused"), ("resumed", "unpaused")] == recorder.details(UUID)[3:]


def test_a_transient_domain_has_no_definition_to_change(driver: MemoryDriver) -> None:
    """Neither undefined again nor started by the host."""
    create(driver)
    run(driver, "undefine")
    for verb, args in (("undefine", None), ("set-autostart", AutostartArgs(enabled=True))):
        with pytest.raises(Rejected):
            run(driver, verb, args)


def test_the_calls_are_recorded_in_their_order(driver: MemoryDriver) -> None:
    """Refused ones too."""
    create(driver)
    with pytest.raises(Rejected):
        run(driver, "start")
    assert [("create-xml", UUID), ("start", UUID)] == driver.calls


def test_a_fault_before_the_effect_prevents_it_and_one_after_it_does_not(driver: MemoryDriver) -> None:
    """A lost answer is no lost effect."""
    run(driver, "define-xml", XmlArgs(xml=XML))
    driver.faults.fail(Rejected("no"), "start")
    with pytest.raises(Rejected):
        run(driver, "start")
    assert seen(driver).state == "shutoff"
    driver.faults.fail(Lost("gone"), "start", after=True)
    with pytest.raises(Lost):
        run(driver, "start")
    assert seen(driver).state == "running"


def test_a_fault_meets_its_own_step_only_and_only_once(driver: MemoryDriver) -> None:
    """Other calls pass it by."""
    driver.faults.fail(Rejected("no"), "scan")
    assert driver.look(UUID) is None
    with pytest.raises(Rejected):
        driver.scan()
    assert [] == driver.scan()


@pytest.mark.parametrize("step", ["scan", "look", "free_memory_kib", "open", "mark", "ask"])
def test_every_call_can_be_made_to_fail(driver: MemoryDriver, recorder: Recorder, step: str) -> None:
    """Also those that are no verbs."""
    calls: dict[str, Callable[[], object]] = {
        "scan": driver.scan,
        "look": lambda: driver.look(UUID),
        "free_memory_kib": driver.free_memory_kib,
        "open": lambda: driver.open(recorder),
        "mark": lambda: driver.mark(UUID, "01J"),
        "ask": lambda: driver.ask("xml", UUID),
    }
    driver.faults.fail(Lost("gone"), step)
    with pytest.raises(Lost, match="gone"):
        calls[step]()


def test_a_hanging_call_holds_up_no_other(driver: MemoryDriver) -> None:
    """It waits until released, and then takes effect."""
    create(driver)
    fault = driver.faults.hang("destroy")
    thread = threading.Thread(target=run, args=(driver, "destroy"))
    thread.start()
    assert fault.entered.wait(5)
    assert seen(driver).state == "running"
    fault.release()
    thread.join(5)
    assert seen(driver).state == "shutoff"


def test_a_create_whose_answer_is_lost_leaves_what_it_made(driver: MemoryDriver) -> None:
    """Only a start that failed is taken back; what is not known is left for a look."""
    driver.faults.fail(Lost("gone"), "start", after=True)
    with pytest.raises(Lost):
        create(driver)
    assert ("running", True) == (seen(driver).state, seen(driver).persistent)


def test_an_unreadable_domain_is_unknown_and_never_gone(driver: MemoryDriver) -> None:
    """A look is refused, a scan shows it."""
    create(driver)
    driver.machine.domains[UUID].readable = False
    with pytest.raises(Rejected):
        driver.look(UUID)
    assert [(UUID, "unknown")] == [(sighting.uuid, sighting.state) for sighting in driver.scan()]


def test_what_happens_while_disconnected_is_told_to_nobody(driver: MemoryDriver, recorder: Recorder) -> None:
    """The bracket of gap and resync is there for this."""
    create(driver)
    driver.sever("cut")
    driver.machine.crash(UUID)
    told = recorder.details(UUID)
    driver.open(recorder)
    assert ("started", "booted") == told[-1]
    assert (["cut"], "shutoff") == (recorder.losses, seen(driver).state)


def test_a_domain_of_a_foreign_type_is_rejected(driver: MemoryDriver) -> None:
    """It runs what it says it runs."""
    with pytest.raises(Rejected):
        run(driver, "define-xml", XmlArgs(xml=XML.replace("'test'", "'kvm'")))


def test_running_domains_use_memory() -> None:
    """Free is what they leave."""
    driver = MemoryDriver(memory_kib=4096)
    driver.open(Recorder())
    assert driver.free_memory_kib() == 4096
    create(driver)
    assert driver.free_memory_kib() == 3072


def test_a_verb_that_it_lacks_is_impossible_and_not_claimed() -> None:
    """One API does not mean one ability."""
    driver = MemoryDriver(lacks=("reset",))
    assert "reset" not in driver.open(Recorder()).verbs
    create(driver)
    with pytest.raises(Impossible):
        run(driver, "reset")
