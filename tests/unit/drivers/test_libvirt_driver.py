"""What is libvirt's own and not every driver's, on its test driver inside this process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from orchestrator.protocol.verb import NoArgs, XmlArgs
from tests import hypervisors
from workers.drivers.libvirt import LibvirtDriver, eventloop, xml
from workers.drivers.port import Listener, Lost, Malformed, Rejected, Tag
from workers.testing import Recorder

UUID = "6f1c0000-0000-4000-8000-000000000001"
XML = hypervisors.test_xml("a", UUID)
TAG = Tag(project="p")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[LibvirtDriver]:
    """Return an opened driver on a test hypervisor that nobody else sees, with one domain defined."""
    file = tmp_path / "node.xml"
    file.write_text("<node><cpu><nodes>1</nodes><sockets>1</sockets><cores>2</cores><threads>1</threads></cpu></node>")
    driver = LibvirtDriver(f"test://{file}")
    driver.open(Recorder())
    driver.run("define-xml", UUID, XmlArgs(xml=XML), TAG)
    yield driver
    driver.close()


@pytest.mark.parametrize(
    "spoil",
    [
        ("<os>", "<novel/><os>"),
        ("<memory>65536</memory>", "<memory>much</memory>"),
        ("<name>a</name>", ""),
        ("<name>a</name>", "<name>a/b</name>"),
        ("type='test'", "type='none'"),
    ],
)
def test_what_the_schema_refuses_is_malformed_and_changes_nothing(driver: LibvirtDriver, spoil: tuple[str, str]) -> None:
    """Without validation libvirt would drop silently what it does not know."""
    before = driver.look(UUID)
    with pytest.raises(Malformed) as caught:
        driver.run("define-xml", UUID, XmlArgs(xml=XML.replace(*spoil)), TAG)
    assert caught.value.code in (libvirt.VIR_ERR_XML_INVALID_SCHEMA, libvirt.VIR_ERR_XML_ERROR)
    assert before == driver.look(UUID)


def test_metadata_of_others_stays_and_ours_is_there_once(driver: LibvirtDriver) -> None:
    """Redefining from the domain's own XML, as people do, does not pile up."""
    foreign = "<metadata><o:keep xmlns:o='urn:other'/></metadata></domain>"
    driver.run("define-xml", UUID, XmlArgs(xml=XML.replace("</domain>", foreign)), TAG)
    driver.run("define-xml", UUID, XmlArgs(xml=driver.ask("xml", UUID)), TAG)
    metadata = xml.parse(driver.ask("xml", UUID)).find("metadata")
    assert metadata is not None
    assert {"{urn:other}keep", f"{{{xml.TAG}}}domain"} == {str(element.tag) for element in metadata}


def test_two_private_test_hypervisors_know_nothing_of_each_other(driver: LibvirtDriver) -> None:
    """A fleet in one process."""
    other = LibvirtDriver(driver.uri)
    other.open(Recorder())
    assert other.look(UUID) is None
    other.close()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nonsense", "cannot connect to nonsense: no connection driver available"),
        ("test:///nonexistent.xml", "cannot connect to test:///nonexistent.xml: XML error"),
        ("qemu+unix:///system?socket=/nonexistent", "Failed to connect socket to '/nonexistent'"),
    ],
)
def test_what_cannot_be_opened_is_lost_and_says_why(uri: str, words: str) -> None:
    """URI and libvirt's reason are in the message."""
    with pytest.raises(Lost, match=words.replace("?", r"\?")):
        LibvirtDriver(uri).open(Recorder())


def test_an_embedded_hypervisor_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so before libvirt tries."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Lost, match="needs root"):
        LibvirtDriver("qemu:///embed?root=/nonexistent").open(Recorder())


@pytest.mark.parametrize("uri", ["test:///default", "private"])
def test_the_test_hypervisor_has_all_its_memory_free(driver: LibvirtDriver, uri: str) -> None:
    """Libvirt's own figure is KiB for bytes there, or none: nothing could be placed by it."""
    asked = driver if uri == "private" else LibvirtDriver(uri)
    assert asked.open(Recorder()).memory_kib == asked.free_memory_kib()
    asked.close()


class Binding:
    """Libvirt's connection with one call replaced."""

    def __init__(self, connection: Any, **replaced: Any) -> None:
        self._connection = connection
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._connection, name)


def replace(driver: LibvirtDriver, **replaced: Any) -> None:
    """Replace calls of the driver's connection."""
    session = driver._current()
    session._connection = Binding(session._connection, **replaced)


def test_no_free_memory_is_a_failure_and_no_answer(driver: LibvirtDriver) -> None:
    """The binding returns 0 where the call failed: on a dead connection that is a loss, told once."""
    recorder = Recorder()
    driver.open(recorder)

    def fail() -> int:
        libvirt.virResetLastError()
        return 0

    replace(driver, getType=lambda: "QEMU", getFreeMemory=fail)
    with pytest.raises(Rejected):
        driver.free_memory_kib()
    replace(driver, getType=lambda: "QEMU", getFreeMemory=fail, isAlive=lambda: 0)
    for _ in range(2):
        with pytest.raises(Lost):
            driver.free_memory_kib()
    assert recorder.until(lambda: bool(recorder.losses), 5)
    assert len(recorder.losses) == 1


def test_a_domain_that_cannot_be_read_is_unknown_in_a_scan(driver: LibvirtDriver) -> None:
    """And one that vanished between listing and reading is left out."""

    class Handle:
        def __init__(self, code: int) -> None:
            self.code = code

        def state(self) -> list[int]:
            refused = libvirt.libvirtError("refused")
            refused.err = (self.code, 10, "refused", 2, None, None, None, -1, -1)
            raise refused

        def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
            return UUID

        def name(self) -> str:
            return "a"

    replace(driver, listAllDomains=lambda: [Handle(libvirt.VIR_ERR_OPERATION_TIMEOUT), Handle(libvirt.VIR_ERR_NO_DOMAIN)])
    assert [(UUID, "a", "unknown", None)] == [(one.uuid, one.name, one.state, one.tag) for one in driver.scan()]


def test_a_hung_connection_does_not_hold_up_the_next_open(driver: LibvirtDriver) -> None:
    """Letting go of it may block for ever; that is a thread of its own."""
    released, waiting = threading.Event(), threading.Event()

    def hang(*_: Any) -> None:
        waiting.set()
        released.wait(10)

    replace(driver, domainEventDeregisterAny=hang)
    began = time.monotonic()
    driver.open(Recorder())
    assert waiting.wait(5)
    assert time.monotonic() - began < 5
    assert driver.scan() == []
    released.set()


def test_who_was_told_of_a_loss_hears_no_later_event(driver: LibvirtDriver) -> None:
    """The session is over for its listener, whatever libvirt still delivers."""
    recorder = Recorder()
    driver.open(recorder)
    session = driver._current()
    session._closed(None, 2, None)
    assert recorder.until(lambda: bool(recorder.losses), 5)
    with pytest.raises(Lost):
        driver.run("define-xml", UUID, XmlArgs(xml=XML), TAG)
    session._connection.defineXMLFlags(XML, 0)
    settled = threading.Event()
    eventloop.loop.soon(settled.set)
    assert settled.wait(5)
    assert (["no answer to keepalives"], []) == (recorder.losses, recorder.details(UUID))


def test_the_listener_hears_in_libvirts_thread(driver: LibvirtDriver) -> None:
    """Events and losses come from one thread, in order."""
    threads: list[str] = []

    class Ear(Recorder):
        def happened(self, happening: Any) -> None:
            threads.append(threading.current_thread().name)
            super().happened(happening)

        def lost(self, reason: str) -> None:
            threads.append(threading.current_thread().name)
            super().lost(reason)

    ear: Listener = Ear()
    driver.open(ear)
    driver.run("define-xml", UUID, XmlArgs(xml=XML), TAG)
    driver._current()._closed(None, 0, None)
    assert isinstance(ear, Ear)
    assert ear.until(lambda: bool(ear.losses), 5)
    assert {"libvirt-events"} == set(threads)
    assert len(threads) == 2


@pytest.mark.parametrize(("version", "calls"), [(9_000_000, []), (10_004_000, [(5, 3)])])
def test_keepalives_are_left_off_where_they_crash(monkeypatch: pytest.MonkeyPatch, version: int, calls: list[tuple[int, int]]) -> None:
    """CVE-2024-4418: a libvirt older than 10.4 takes the whole process with it."""
    seen: list[tuple[int, int]] = []
    watched = Binding(libvirt.open("test:///default"), setKeepAlive=lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(libvirt, "getVersion", lambda: version)
    monkeypatch.setattr(libvirt, "open", lambda _: watched)
    driver = LibvirtDriver("test:///default")
    driver.open(Recorder())
    driver.close()
    assert calls == seen


def test_a_loop_that_runs_elsewhere_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second implementation is registered and no thread begun; else one, once."""
    registered: list[str] = []
    begun = threading.Event()
    monkeypatch.setattr(libvirt, "virEventRegisterDefaultImpl", lambda: registered.append("impl"))
    monkeypatch.setattr(eventloop, "_run", begun.set)
    theirs = eventloop.EventLoop()
    theirs.runs_elsewhere()
    theirs.ensure()
    assert [] == registered
    ours = eventloop.EventLoop()
    ours.ensure()
    ours.ensure()
    assert begun.wait(5)
    assert ["impl"] == registered


def test_a_start_looks_the_domain_up_anew(driver: LibvirtDriver) -> None:
    """A handle of a connection that is gone is never used: the domain was defined before this opening."""
    driver.run("start", UUID, NoArgs(), TAG)
    seen = driver.look(UUID)
    assert seen is not None
    assert seen.state == "running"
