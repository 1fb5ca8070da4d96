"""From sightings to observed state, and from differences to the events that nobody saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from orchestrator.protocol.domain import Observed
from workers.drivers.port import Happening, Sighting, Tag


class Unseen(msgspec.Struct, frozen=True):
    """An event that a comparison tells: `name` is `<event>[.<detail>]`."""

    name: str
    data: dict[str, Any]


def project_of(sighting: Sighting, default_project: str) -> str:
    """Return the project that a domain belongs to."""
    return sighting.tag.project if sighting.tag is not None else default_project


def observed(
    sighting: Sighting, *, node: str, hypervisor: str, default_project: str, epoch: str, sequence: int, updated: str
) -> Observed:
    """Return the observed state (PROTOCOL §6) that a sighting gives, as of the event at `sequence`."""
    tag = sighting.tag
    return Observed(
        uuid=sighting.uuid,
        name=sighting.name,
        project=project_of(sighting, default_project),
        node=node,
        hypervisor=hypervisor,
        type=sighting.type,
        state=sighting.state,
        reason=sighting.reason,
        persistent=sighting.persistent,
        autostart=sighting.autostart,
        vcpus=sighting.vcpus,
        memory_kib=sighting.memory_kib,
        labels=tag.labels if tag is not None else {},
        generation=tag.generation if tag is not None else 0,
        incarnation=sighting.incarnation,
        role="owner",
        epoch=epoch,
        sequence=f"{sequence:016d}",
        updated=updated,
        saved=sighting.saved,
    )


def is_active(domain: Observed) -> bool:
    """Tell whether an observed domain had a running instance."""
    return domain.state not in ("shutoff", "nostate", "unknown")


def unseen(before: Observed | None, now: Sighting | None, *, moved: bool = False) -> list[Unseen]:
    """Return the events that lead from `before` to `now`, oldest first; [] where nothing differs.

    A domain that cannot be read (`unknown`) tells nothing of its life. `moved`: another hypervisor of the node shows it now.
    """
    if now is None:
        return [] if before is None else _ended(before)
    if now.state == "unknown" or (before is not None and before.state == "unknown"):
        # No lifecycle can be told across what was not known; state.changed gives the new truth.
        return [_changed(now)] if before is None or before.state != now.state else []
    if before is None:
        return _begun(now)
    return _lived(before, now, moved=moved)


def _lived(before: Observed, now: Sighting, *, moved: bool) -> list[Unseen]:
    events: list[Unseen] = []
    if now.persistent and not before.persistent:
        events.append(_lifecycle("defined", "added"))
    replaced = is_active(before) and now.active and before.incarnation is not None and before.incarnation != now.incarnation
    if is_active(before) and (replaced or not now.active):
        events.append(_lifecycle("stopped", "unknown" if replaced else now.reason))
    if now.active and (replaced or not is_active(before)):
        events += _started(now)
    elif now.active and is_active(before):
        events += _moved(before, now)
    if before.persistent and not now.persistent:
        events.append(_lifecycle("undefined", "removed"))
    marked = is_active(before) and before.incarnation is None and now.incarnation is not None
    if not events and (moved or marked or _facts(before) != _facts(now)):
        events.append(_changed(now))
    return events


def _ended(before: Observed) -> list[Unseen]:
    events = [_lifecycle("stopped", "unknown")] if is_active(before) else []
    return [*events, _lifecycle("undefined", "removed")] if before.persistent else events


def _begun(now: Sighting) -> list[Unseen]:
    events = [_lifecycle("defined", "added")] if now.persistent else []
    return [*events, *_started(now)] if now.active else events


def _started(now: Sighting) -> list[Unseen]:
    return [_lifecycle("started", "booted" if now.state == "running" else "unknown"), *_paused(now)]


def _paused(now: Sighting) -> list[Unseen]:
    names = {"paused": "suspended", "pmsuspended": "pmsuspended", "crashed": "crashed", "shutdown": "shutdown"}
    return [_lifecycle(names[now.state], now.reason)] if now.state in names else []


def _moved(before: Observed, now: Sighting) -> list[Unseen]:
    running = ("running", "blocked")
    if before.state == now.state or (before.state in running and now.state in running):
        return []
    return [_lifecycle("resumed", now.reason)] if now.state in running else _paused(now)


def _facts(domain: Observed | Sighting) -> tuple[object, ...]:
    if isinstance(domain, Observed):
        labels, generation = domain.labels, domain.generation
    else:
        labels, generation = (domain.tag.labels, domain.tag.generation) if domain.tag is not None else ({}, 0)
    facts = (domain.name, domain.type, domain.autostart, domain.vcpus, domain.memory_kib, domain.saved, labels, generation)
    return (*facts, domain.incarnation)  # it may be marked by a later look than the one that saw it start


def _lifecycle(event: str, detail: str) -> Unseen:
    return Unseen(f"lifecycle.{event}", {"event": event, "detail": detail})


def _changed(now: Sighting) -> Unseen:
    return Unseen("state.changed", {"state": now.state, "reason": now.reason})


def rewound(now: Sighting | None, seen: Sequence[Happening], before: Observed | None) -> Sighting | None:
    """Return what the domain was before the first of the lifecycle events `seen`, as far as they tell.

    A scan that overlaps with live events shows their effects already; only what happened before them went unseen.
    """
    details = [happening.detail for happening in seen if happening.event == "lifecycle"]
    if not details:
        return now
    if now is None or "defined" in details:
        # Removed while we looked, or defined: the first event's other side is what we knew.
        return remembered(before)
    life = details[: details.index("stopped")] if "stopped" in details else details
    if "started" in life:
        return msgspec.structs.replace(now, state="shutoff", reason="unknown", incarnation=None) if now.persistent else None
    was_up = before is not None and is_active(before)
    incarnation = before.incarnation if before is not None and was_up else now.incarnation
    state = {"suspended": "running", "resumed": "paused"}.get(life[0]) if life else None
    if state is None:
        state = before.state if before is not None and was_up else "running"
    return msgspec.structs.replace(now, state=state, reason="unknown", incarnation=incarnation)


def remembered(before: Observed | None) -> Sighting | None:
    """Return what was observed of a domain as if it were seen now."""
    if before is None:
        return None
    names = ("uuid", "name", "type", "state", "reason", "persistent", "autostart", "vcpus", "memory_kib", "incarnation", "saved")
    tag = Tag(project=before.project, labels=before.labels, generation=before.generation)
    return Sighting(tag=tag, **{name: getattr(before, name) for name in names})


def unreadable(before: Observed | None, happening: Happening) -> Sighting:
    """Return what stands for a domain that cannot be read: what was known of it, with state `unknown`, never gone."""
    known = remembered(before)
    if known is not None:
        return msgspec.structs.replace(known, state="unknown", reason="unreadable")
    return Sighting(
        uuid=happening.uuid,
        name=happening.name,
        type="",
        state="unknown",
        reason="unreadable",
        persistent=False,
        autostart=False,
        vcpus=0,
        memory_kib=0,
    )


def incarnations(seen: Sequence[Happening], before: str | None, now: str | None) -> list[str | None]:
    """Return, for each event, the incarnation it belongs to; `stopped` ends one.

    `before` is the one known until now, `now` the one that the domain has after the last event. Of a running
    instance that came and went between two looks nobody knows the incarnation: None.
    """
    last = sum(1 for happening in seen if happening.detail == "stopped")
    found: list[str | None] = []
    instance = 0
    for happening in seen:
        if instance == last:
            found.append(now if now is not None or instance > 0 else before)
        else:
            found.append(before if instance == 0 else None)
        instance += happening.detail == "stopped"
    return found
