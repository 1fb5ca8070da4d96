"""Bad input: each message that is no valid command ends as one event that says so, whichever way it came, and the logs go on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from orchestrator.bus.nats import NatsBus
from orchestrator.client import Client
from tests.e2e import audit
from tests.e2e.fleet import PROJECT_ROOT, SUBJECTS, Fleet, everything, publish
from tests.e2e.garbage import NODE, Garbage
from tests.e2e.places import TEST, in_process_test
from tests.e2e.wire import Letter, wire

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]
WAYS = ("api", "cmd", "run")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Broker, coordinator and one worker over libvirt's test driver."""
    with in_process_test([NODE]) as place:
        fleet = Fleet(tmp_path, place.uris)
        await fleet.start()
        try:
            yield fleet
        finally:
            await fleet.stop()


async def ended(bus: NatsBus, count: int) -> list[audit.Told]:
    """Return all terminal events once there are `count`; those that there are, where they do not come."""
    events: list[audit.Told] = []
    with anyio.move_on_after(30):
        while len(events) < count:
            told = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.evt("*", "*", "*", "command.*")))
            events = [event for event in told if "ok" in event["data"]]
            await anyio.sleep(0.05)
    return events


async def sent(fleet: Fleet, letters: list[tuple[str, Letter]]) -> list[dict[str, object]]:
    """Send everything, each answered: by the coordinator, or by the log that has stored it. Return the answers, in the order of sending."""
    async with wire(fleet.broker.url) as sender:
        for number, (_, letter) in enumerate(letters):
            await sender.send(letter, str(number))
        answers = await sender.answered(len(letters))
    found = {int(answer.subject.removeprefix("answers.")): json.loads(answer.body) for answer in answers}
    return [found[number] for number in range(len(letters))]


async def works(fleet: Fleet, bus: NatsBus) -> None:
    """Check that a good command has its effect on each way."""
    client = Client(bus, SUBJECTS)
    made = await client.create_xml("good", TEST.format(name="good"))
    assert made.domain is not None
    await client.post("good", "suspend")
    await client.wait("good", state="paused", timeout=30)
    await publish(bus, SUBJECTS.run(NODE, "default", made.domain.uuid, "resume"), b"")
    await client.wait("good", state="running", timeout=30)
    assert {("create-xml", made.domain.uuid): 1, ("suspend", made.domain.uuid): 1, ("resume", made.domain.uuid): 1} == fleet.calls()


async def listed(fleet: Fleet) -> list[dict[str, str]]:
    """Return what `virtbus invalid` lists."""
    arguments = ["-m", "orchestrator.cli", "--server", fleet.broker.url, "invalid", "--limit", "10000", "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=PROJECT_ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    found: list[dict[str, str]] = json.loads(output)
    return found


async def test_each_piece_of_garbage_ends_as_one_invalid_event_and_good_commands_go_on(fleet: Fleet) -> None:
    """Hundreds of them, of all kinds, on all three ways: as many events, each naming what to mend; libvirt hears of none."""
    garbage = {way: list(Garbage(way, seed=1).letters()) for way in WAYS}
    total = sum(map(len, garbage.values()))
    async with fleet.client() as bus:
        for way, letters in garbage.items():
            answers = await sent(fleet, letters)
            if way == "api":
                wrong = [(name, answer) for (name, _), answer in zip(letters, answers, strict=True) if code(answer) != "invalid"]
                assert [] == wrong
            else:
                assert [] == [name for (name, _), answer in zip(letters, answers, strict=True) if "seq" not in answer]
        events = await ended(bus, total)
        assert {"invalid": total} == Counter(code(event["data"]) for event in events), unexpected(events)
        assert all(event["data"]["subject"].startswith("virt.v1.") for event in events)
        told = await listed(fleet)
        assert [(event["data"]["subject"], event["data"]["error"]["message"]) for event in events] == [
            (each["subject"], each["reason"]) for each in told
        ]
        await works(fleet, bus)
        await ended(bus, total + 3)
        events = audit.parsed(await everything(bus, SUBJECTS.log_evt, SUBJECTS.events))
    audit.check_sequences(events, NODE)
    assert [1] * (total + 3) == [len(told) for told in audit.ends(events).values()]
    print(f"\n{total} pieces of garbage ({', '.join(f'{len(letters)} on {way}' for way, letters in garbage.items())}): {total} events")


def code(result: dict[str, object]) -> str:
    """Return the code of a result's error."""
    error = result.get("error")
    return str(error["code"]) if isinstance(error, dict) else "none"


def unexpected(events: list[audit.Told]) -> list[object]:
    """Return what ended otherwise, to be seen where it did."""
    return [event["data"] for event in events if code(event["data"]) != "invalid"]
