"""The AsyncAPI document tells the truth: all that a real system says on the wire in a domain's life is in it, and fits."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.bus.nats import NatsBus
from orchestrator.bus.port import Message, Outgoing
from orchestrator.cli import asyncapi
from orchestrator.protocol.verb import VERBS
from tests.e2e.shell import Shell

pytestmark = pytest.mark.anyio
XML = "<domain type='test'><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("default.web1.create-xml", {"xml": XML}),
    ("default.web1.start", {}),
    ("default.web1.suspend", {}),
    ("default.web1.reset", {}),  # the test driver has none
    ("default.web1.get", {}),
    ("default.web1.xml", {}),
    ("default.web1.stats", {}),
    ("default.nobody.resume", {}),
    ("default._.command", {"id": "once-start"}),
    ("default._.command", {"id": "nobodys"}),
    ("default._.cancel", {"id": "once-start"}),  # too late
    ("default._.domains", {"limit": 1}),
    ("_._.nodes", {}),
]
PUSHED = "virt.v1.dlv."
"""What the broker repeats of the log of orders."""


class Contract:
    """The document, as something that messages fit or not; what structs do not mention does not fit."""

    def __init__(self) -> None:
        self._document = asyncapi.document()
        for schema in self._document["components"]["schemas"].values():
            if "properties" in schema:
                schema["additionalProperties"] = False
        self._channels = {
            pattern(channel["address"]): channel
            for channel in self._document["channels"].values()
            if channel["address"] is not None
        }

    def faults(self, message: str, body: bytes) -> list[str]:
        """Return why a body does not fit the message of that name."""
        schema = {**self._document, "$ref": f"#/components/messages/{message}/payload"}
        errors = jsonschema.Draft202012Validator(schema).iter_errors(json.loads(body or b"{}"))
        return [f"{message}: {error.json_path}: {error.message}" for error in errors]

    def heard(self, message: Message) -> list[str]:
        """Return why what was heard on a subject is not what the document says of it."""
        for address, channel in self._channels.items():
            if address.match(message.subject):
                return [fault for name in channel["messages"] for fault in self.faults(name, message.body)]
        return [f"no channel for {message.subject}"]


def pattern(address: str) -> re.Pattern[str]:
    """Return what matches the subjects of an address: a token a place, and for the event's name one or two."""
    quoted = re.escape(address).replace(r"\{event\}", ".+")
    return re.compile(re.sub(r"\\{\w+\\}", "[^.]+", quoted) + r"\Z")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """One node with libvirt's test driver."""
    with Shell(tmp_path) as shell:
        shell.begin(sys.executable, "-m", "orchestrator.cli", "up", "--port", str(shell.port), until="ready;")
        yield shell


@pytest.fixture
async def bus(shell: Shell) -> AsyncIterator[NatsBus]:
    """Connect as somebody on this machine, who may hear everything."""
    async with NatsBus(shell.server, name="wire") as bus:
        await bus.link.up()
        yield bus


async def test_all_that_is_said_is_in_the_document(bus: NatsBus) -> None:
    """By the channel of its subject, requests and answers by their verb."""
    contract, heard, faults = Contract(), list[Message](), list[str]()
    async with bus.listen("virt.v1.>", heard.append):
        for place, args in ASKED:
            faults += await asked(contract, bus, place, args)
        await bus.append(Outgoing("virt.v1.cmd.default.web1.destroy", b""))
        faults += await asked(contract, bus, "default.web1.undefine", {})
    told = [message for message in heard if not message.subject.startswith(PUSHED)]
    faults += [fault for message in told for fault in contract.heard(message)]
    assert not faults, faults
    assert {"api", "ask", "cmd", "evt", "res", "run"} <= {message.subject.split(".")[2] for message in told}


async def asked(contract: Contract, bus: NatsBus, place: str, args: dict[str, Any]) -> list[str]:
    """Ask, and return what is wrong with the answer."""
    verb = place.rpartition(".")[2]
    body = {"args": args, "id": f"once-{verb}"} if VERBS[verb].kind in ("verb", "control") else {"args": args}
    answer = (await bus.request(f"virt.v1.api.{place}", json.dumps(body).encode(), timeout_s=30)).body
    said = json.loads(answer)
    kind = "result" if "id" in said else f"{verb}-answer" if said["ok"] else "refusal"
    return contract.faults(kind, answer)


def test_what_is_not_in_the_document_is_found() -> None:
    """So the law above can fail."""
    contract = Contract()
    assert ["no channel for virt.v1.new.x"] == contract.heard(Message("virt.v1.new.x", b"{}"))
    assert [] == contract.faults("start", b"")
    assert "'new' was unexpected" in contract.faults("start", b'{"new": 1}')[0]
