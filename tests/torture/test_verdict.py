"""Laws of the judge: a run that kept all laws has no violation, and each law that is broken on purpose is named."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from orchestrator.bus.port import Message
from tests.torture.plan import Domain, Plan, Send
from tests.torture.verdict import LAWS, Evidence, judge

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
EPOCH = "01M84TG65PC2MRCJDQDVRDBK7A"
BEGAN = 1795458341.0


def told(number: int, verb: str, sequence: int, *, changed: bool = True, node: str = "n1") -> Message:
    """Return the terminal event of command `c<number>`."""
    domain = {"uuid": UUID, "name": "vm", "state": "running"}
    data = {"id": f"c{number}", "verb": verb, "ok": True, "changed": changed, "node": node, "domain": domain}
    event = {
        "id": f"{node}.{EPOCH}.{sequence:016d}", "type": "virt.v1.command.succeeded", "node": node, "project": "default",
        "subject": UUID, "epoch": EPOCH, "sequence": f"{sequence:016d}", "previous": f"{sequence - 1:016d}", "data": data,
        "time": "2026-11-23T18:26:00.000000Z",
    }  # fmt: skip
    return Message(f"virt.v1.evt.{node}.default.{UUID}.command.succeeded", json.dumps(event).encode(), sequence=sequence)


def sent(number: int, verb: str) -> Send:
    """Return command `c<number>` as sent."""
    return Send(at=0.0, way="cmd", domain="vm", subject=UUID, verb=verb, id=f"c{number}", body=json.dumps({"id": f"c{number}"}).encode())


def stored(send: Send, sequence: int) -> tuple[Message, Message]:
    """Return a command as it stands in the logs of commands and of its node."""
    cmd = Message(f"virt.v1.cmd.default.{UUID}.{send.verb}", send.body, sequence=sequence, time=BEGAN)
    run = Message(f"virt.v1.run.n1.default.{UUID}.{send.verb}", send.body, {"Virt-Cmd": str(sequence)}, sequence=sequence, time=BEGAN + 60)
    return cmd, run


def evidence(**other: Any) -> Evidence:
    """Return the evidence of a run that kept all laws: start, suspend, resume, each done once."""
    sends = [sent(1, "start"), sent(2, "suspend"), sent(3, "resume")]
    logs = [stored(send, number) for number, send in enumerate(sends, 1)]
    events = [told(number, send.verb, number) for number, send in enumerate(sends, 1)]
    domain = Domain(name="vm", uuid=UUID, node="n1", kind="test", touched=False)
    kept = Evidence(
        plan=Plan(seed=1, seconds=1.0, domains={"vm": domain}, sends=sends, meddling=[], faults=[]),
        cmd=[cmd for cmd, _ in logs],
        run=[run for _, run in logs],
        evt=events,
        results=[json.loads(event.body)["data"] for event in events],
        answers=[],
        calls=Counter({("start", UUID): 1, ("suspend", UUID): 1, ("resume", UUID): 1}),
        keys={"n1": {"vm": ["running", True, False]}},
        listed={"n1": {"vm": ["running", True, False]}},
        unhelped=frozenset(),
        logs={},
    )
    return msgspec.structs.replace(kept, **other)


def broken(**other: Any) -> set[str]:
    """Return the laws that a run with other evidence broke."""
    return {law for law, found in judge(evidence(**other)).items() if found}


def test_a_run_that_kept_all_laws_has_no_violation() -> None:
    """Otherwise nothing that the judge says means anything."""
    assert {law: [] for law in LAWS} == judge(evidence())


def test_a_command_without_an_end_is_lost() -> None:
    """Its last event is missing from the log, and what it did is then without a reason."""
    assert {"lost", "doubled"} == broken(evt=evidence().evt[:2], results=[])


def test_a_second_end_is_seen_even_where_it_says_the_same() -> None:
    """Ended by the node and by a coordinator."""
    again = told(3, "resume", 1, node="_")
    assert {"two outcomes"} == broken(evt=[*evidence().evt, again])


def test_a_call_too_many_is_a_doubled_effect() -> None:
    """One command, two calls."""
    assert {"doubled"} == broken(calls=evidence().calls + Counter({("suspend", UUID): 1}))


def test_a_success_without_a_call_is_undone() -> None:
    """Told as done, and libvirt was never asked."""
    calls = evidence().calls - Counter({("suspend", UUID): 1})
    assert {"undone"} == broken(calls=calls)


def test_what_a_restart_left_in_doubt_may_have_been_done_by_others() -> None:
    """On a domain that others touched too: then the state cannot tell who did it."""
    kept = evidence()
    domain = msgspec.structs.replace(kept.plan.domains["vm"], touched=True)
    plan = msgspec.structs.replace(kept.plan, domains={"vm": domain})
    calls = kept.calls - Counter({("suspend", UUID): 1})
    before = [msgspec.structs.replace(message, time=BEGAN - 60) for message in kept.run]
    assert set() == broken(plan=plan, calls=calls, run=before)
    assert {"undone"} == broken(plan=plan, calls=calls)


def test_ends_in_another_order_than_the_log_of_the_node_are_seen() -> None:
    """The third ends before the second."""
    events = [told(1, "start", 1), told(3, "resume", 2), told(2, "suspend", 3)]
    assert {"out of order"} == broken(evt=events)


def test_a_command_routed_before_an_earlier_one_is_seen() -> None:
    """The node kept its order; the coordinator did not keep that of `cmd`."""
    first, second, third = evidence().run
    swapped = [first, msgspec.structs.replace(third, sequence=2), msgspec.structs.replace(second, sequence=3)]
    events = [told(1, "start", 1), told(3, "resume", 2), told(2, "suspend", 3)]
    assert {"out of order"} == broken(run=swapped, evt=events)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_hole_in_the_events_is_seen(missing: int) -> None:
    """One event is gone, be it the first."""
    events = [event for number, event in enumerate(evidence().evt) if number != missing]
    assert "holes" in broken(evt=events)


def test_a_state_key_that_says_something_else_than_libvirt_is_seen() -> None:
    """The domain is paused, and a domain is told that is not there."""
    assert {"wrong state"} == broken(listed={"n1": {"vm": ["paused", True, False]}})
    assert {"wrong state"} == broken(listed={"n1": {}})


def test_a_result_that_differs_from_the_event_is_seen() -> None:
    """Also an answer of `api`; what is not final says nothing of the end."""
    wrong = {**evidence().results[0], "changed": False}
    assert {"wrong results"} == broken(results=[wrong])
    assert {"wrong results"} == broken(answers=[wrong])
    assert set() == broken(answers=[{**wrong, "final": False}])


def test_a_traceback_in_a_log_is_seen() -> None:
    """Nothing may fail in a way that nobody thought of."""
    assert {"tracebacks"} == broken(logs={"n1.log": "Traceback (most recent call last): …"})
