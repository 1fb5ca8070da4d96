"""Domain XML is judged by libvirt alone: each file of its own corpus ends through us as it does when libvirt is asked directly."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import libvirt
import msgspec
import pytest
from lxml import etree

from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Message
from orchestrator.protocol import domainxml
from orchestrator.protocol.command import Result
from orchestrator.protocol.error import Failure, Invalid
from tests.e2e import corpus
from tests.e2e.fleet import SUBJECTS, Fleet, publish
from tests.e2e.places import QEMU, libvirtd_qemu
from tests.hypervisors import held, unavailable
from workers.drivers.libvirt.xml import TAG

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.hypervisor,
    pytest.mark.timeout(900),
    pytest.mark.skipif(unavailable() is not None, reason=f"real hypervisors: {unavailable()}"),
]
NODE = "n1"
MALFORMED = (libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_ERR_XML_DETAIL, libvirt.VIR_ERR_XML_INVALID_SCHEMA)
DUMP = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
UNDEFINE = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE


def odd(*edits: tuple[str, str], before: str = "", after: str = "") -> str:
    """Return a plain machine's XML with pieces replaced, and with more before and after it."""
    document = QEMU.format(name="web1").replace("<memory", f"<uuid>{UUID}</uuid><memory", 1)
    for old, new in edits:
        document = document.replace(old, new, 1)
    return before + document + after


def with_metadata(inside: str) -> str:
    """Return a machine's XML with metadata."""
    return odd(("<memory", f"<metadata>{inside}</metadata><memory"))


UUID = "6f1c0000-0000-4000-8000-000000000001"
ODD = {
    "plain": odd(),
    "declaration": odd(before='<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?>\n'),
    "declaration of UTF-7": odd(before='<?xml version="1.0" encoding="UTF-7"?>\n'),
    "declaration of XML 1.1": odd(before='<?xml version="1.1"?>'),
    "byte order mark": odd(before="\ufeff"),
    "comments around": odd(before="<!-- a --><?b c?>", after="<!-- d -->"),
    "comment in the name": odd(("web1", "we<!-- x -->b1")),
    "blanks in the name": odd(("web1", " web 1 ")),
    "empty name": odd(("web1", "")),
    "long name": odd(("web1", "w" * 300)),
    "two names": odd(("<memory", "<name>web2</name><memory")),
    "name in a namespace": odd(("<memory", "<name xmlns='urn:a'>web2</name><memory")),
    "UUID without dashes": odd((UUID, UUID.replace("-", "").upper())),
    "UUID with blanks": odd((UUID, f" {UUID} ")),
    "unknown element": odd(("<memory", "<bogus/><memory")),
    "unknown attribute": odd(("<memory", "<memory bogus='1'")),
    "no memory": odd(('<memory unit="MiB">32</memory>', "")),
    "another namespace": odd(("<domain", "<domain xmlns='urn:a'")),
    "another prefix": odd(("<domain", "<a:domain xmlns:a='urn:a'"), ("</domain", "</a:domain")),
    "no type": odd((' type="qemu"', "")),
    "another type": odd(('"qemu"', '"bogus"')),
    "empty metadata": odd(("<memory", "<metadata/><memory")),
    "two metadata": odd(("<memory", "<metadata/><metadata/><memory")),
    "metadata with CDATA": with_metadata("<a:b xmlns:a='urn:a'><![CDATA[x<y]]></a:b>"),
    "metadata with a prefix that nobody declares": with_metadata("<a:b/><c:d xmlns:c='urn:c'>&#233;</c:d>"),
    "metadata without a namespace": with_metadata("<a/>"),
    "metadata in our namespace": with_metadata(f"<v:domain xmlns:v='{TAG}' project='forged'><v:label name='a' value='b'/></v:domain>"),
    "DOCTYPE": odd(before="<!DOCTYPE domain>"),
    "deep": with_metadata("<a:a xmlns:a='urn:a'>" * 100 + "</a:a>" * 100),
    "not well-formed": odd(("</name>", "")),
    "undeclared entity": odd(("web1", "&web1;")),
    "unknown encoding": odd(before='<?xml version="1.0" encoding="bogus"?>'),
    "another root": "<network><name>web1</name></network>",
    "no child": "<domain type='qemu'/>",
    "no name": odd(("<name>web1</name>", "")),
    "no UUID": odd((UUID, "123")),
}
"""Beside the corpus: what is rarely seen, and what is meant to come through where it should not."""

EXCEPTIONS = {
    "DOCTYPE": "libvirt takes it; it is refused here, whatever it says",
    "deep": "libvirt takes 256 levels, we 64",
    "not well-formed": "refused by both; by us before libvirt is asked, since nobody can say which domain it is",
    "undeclared entity": "as above",
    "unknown encoding": "as above",
    "another root": "as above",
    "no child": "as above",
    "no name": "as above",
    "another namespace": "as above: no <name> of libvirt's is in it",
    "no UUID": "as above",
}
"""What ends otherwise, and why; nothing of the corpus."""

_CHANCE = re.compile(r"52:54:00(:[0-9a-f]{2}){3}|<genid>[^<]*</genid>")
"""What libvirt makes up anew each time."""


class Verdict(msgspec.Struct, frozen=True):
    """How libvirt took a document: the XML it made of it, or why it refused, with code and domain of the error."""

    made: bytes = b""
    code: int = 0
    domain: int = 0
    message: str = ""


def directly(connection: Any, document: str) -> Verdict:
    """Ask libvirt as `virsh define --validate` does, and leave nothing behind."""
    try:
        domain = connection.defineXMLFlags(document, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    except libvirt.libvirtError as error:
        return Verdict(b"", error.get_error_code(), error.get_error_domain(), str(error))
    made = without_ours(domain.XMLDesc(DUMP))
    domain.undefineFlags(UNDEFINE)
    return Verdict(made)


def without_ours(document: str) -> bytes:
    """Return what libvirt made of a document, in canonical form, without our metadata and what is left to chance."""
    root = etree.fromstring(_CHANCE.sub("", document), etree.XMLParser(remove_blank_text=True, strip_cdata=False))
    for metadata in root.findall("metadata"):
        for element in metadata.findall(f"{{{TAG}}}*"):
            metadata.remove(element)
        if not len(metadata):
            root.remove(metadata)
    return etree.tostring(root, method="c14n")


def addressed(document: str) -> str:
    """Return the UUID under which a document's domain is asked for: its own, else one made up."""
    try:
        return domainxml.identify(document).uuid or UUID
    except Invalid:
        return UUID


class Worker:
    """One worker, asked on `run`; `results` come from `res`."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self._awaited: dict[str, asyncio.Future[Result]] = {}

    def take(self, message: Message) -> None:
        """Take in a result."""
        future = self._awaited.get(SUBJECTS.parse_result(message.subject)[2])
        if future is not None and not future.done():
            future.set_result(msgspec.json.decode(message.body, type=Result))

    async def run(self, domain: str, verb: str, args: dict[str, str]) -> Result:
        """Have a command carried out."""
        id = uuid.uuid4().hex
        self._awaited[id] = future = asyncio.get_running_loop().create_future()
        await publish(self._bus, SUBJECTS.run(NODE, "default", domain, verb), json.dumps({"id": id, "args": args}).encode())
        with anyio.fail_after(60):
            result: Result = await future
        return result


def through_us(result: Result, connection: Any, domain: str) -> Verdict:
    """Return the verdict that a result tells."""
    if result.ok:
        return Verdict(without_ours(connection.lookupByUUIDString(domain).XMLDesc(DUMP)))
    failure = result.error
    assert isinstance(failure, Failure)
    if failure.libvirt is None:
        return Verdict(message=f"{failure.code}: {failure.message}")
    assert (failure.code == "invalid") == (failure.libvirt.code in MALFORMED)
    return Verdict(b"", failure.libvirt.code, failure.libvirt.domain, failure.message)


@pytest.fixture
def documents() -> dict[str, str]:
    """Return the corpus, and our own."""
    try:
        return corpus.documents() | ODD
    except httpx.HTTPError as error:
        pytest.skip(f"libvirt's corpus cannot be fetched: {error}")


@pytest.fixture
async def asked(documents: dict[str, str], tmp_path: Path) -> AsyncIterator[tuple[dict[str, Verdict], Fleet, str]]:
    """Ask one libvirtd directly, then run a worker over the same one; give the verdicts, the fleet and where libvirt is."""
    with libvirtd_qemu([NODE]) as place:
        [uri] = place.uris[NODE]
        began = time.monotonic()
        with held(uri) as connection:
            verdicts = {name: directly(connection, document) for name, document in documents.items()}
        print(f"\n{len(verdicts)} files asked directly in {time.monotonic() - began:.0f} s")
        fleet = Fleet(tmp_path, place.uris)
        await fleet.start()
        try:
            yield verdicts, fleet, uri
        finally:
            await fleet.stop()


async def test_each_file_of_libvirts_corpus_has_the_same_end_as_asked_directly(
    documents: dict[str, str], asked: tuple[dict[str, Verdict], Fleet, str]
) -> None:
    """Taken by both, and the domain made is the same but for our metadata; or refused by both, with the same code and words."""
    expected, fleet, uri = asked
    found: dict[str, Verdict] = {}
    began = time.monotonic()
    with held(uri) as connection:
        async with fleet.client() as bus:
            worker = Worker(bus)
            async with bus.listen(SUBJECTS.results, worker.take):
                for name, document in documents.items():
                    domain = addressed(document)
                    found[name] = through_us(await worker.run(domain, "define-xml", {"xml": document}), connection, domain)
                    if found[name].made:
                        assert (await worker.run(domain, "undefine", {})).ok
    differing = {name for name in expected if _plain(expected[name], documents[name]) != _plain(found[name], documents[name])}
    _print_figures({name: verdict for name, verdict in expected.items() if name not in ODD}, time.monotonic() - began)
    assert set(EXCEPTIONS) == differing, "\n".join(f"{name}\n  {expected[name]}\n  {found[name]}" for name in sorted(differing))


def _plain(verdict: Verdict, document: str) -> Verdict:
    """Return a verdict without the UUID that was made up, where the document gives none."""
    if "<uuid>" in document or not verdict.made:
        return verdict
    return msgspec.structs.replace(verdict, made=re.sub(rb"<uuid>[^<]*</uuid>", b"", verdict.made))


def _print_figures(verdicts: dict[str, Verdict], seconds: float) -> None:
    refused = Counter(verdict.code for verdict in verdicts.values() if verdict.code)
    codes = ", ".join(f"{count} with code {code}" for code, count in refused.most_common())
    print(f"the same through a worker in {seconds:.0f} s")
    print(f"{len(verdicts)} files of libvirt's corpus: {len(verdicts) - refused.total()} taken, {refused.total()} refused ({codes})")
    print(f"{len(ODD)} of our own; other than libvirt asked directly:")
    for name, reason in EXCEPTIONS.items():
        print(f"  {name}: {reason}")
