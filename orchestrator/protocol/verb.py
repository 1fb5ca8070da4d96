"""The registry: one entry for each thing that can be asked. Command line, validation, dispatch, permissions and schemas derive from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from orchestrator.protocol.domain import State
from orchestrator.protocol.error import Invalid, Outcome

Kind = Literal["verb", "query", "fleet", "control"]


class NoArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The verb takes no arguments."""


class XmlArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A domain as libvirt XML; `node` and `hypervisor` choose where it shall live."""

    xml: Annotated[str, msgspec.Meta(min_length=1, description="domain XML, see https://libvirt.org/formatdomain.html")]
    node: Annotated[str | None, msgspec.Meta(description="worker that shall host it; else one is chosen")] = None
    hypervisor: Annotated[str | None, msgspec.Meta(description="URI or type, where a node has several")] = None


class AutostartArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether the hypervisor starts the domain when the host boots."""

    enabled: Annotated[bool, msgspec.Meta(description="start the domain when its host boots")] = True


class CommandIdArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which command is meant."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)", description="the command's id")]


class ListArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of a list: `after` is the `next` of the page before."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 500
    after: str = ""


Args = msgspec.Struct
"""What a verb takes: one of the structs above, or that of a verb of somebody's own (`extension`)."""


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One entry.

    name: token in the subject.
    kind: `verb` changes a domain and runs in its queue; `query` reads one node; `fleet` reads many; `control` acts on another
    command, out of turn.
    args: the struct that `args` must fit.
    summary: one line for help and documents.
    long: a job of minutes: own thread limit, default timeout of an hour.
    creates: may bring a domain into being, so it is placed and its name and UUID come from its XML.
    goal: the state that the domain is in once the verb took effect; None if no state tells.
    from_states: the states in which it may begin; empty: any.
    event: the lifecycle event that libvirt sends for it, awaited before the command ends; empty: none.
    asks_guest: the call only asks the guest; the command ends when the event says that it obeyed.
    abortable: a `cancel` can stop it while it runs.
    run, settles: of a verb of somebody's own (`extension`).
    """

    name: str
    kind: Kind = "verb"
    args: type[Args] = NoArgs
    summary: str
    long: bool = False
    creates: bool = False
    goal: State | None = None
    from_states: frozenset[State] = frozenset()
    event: str = ""
    asks_guest: bool = False
    abortable: bool = False
    run: Callable[[Any, str, Any], None] | None = None
    settles: Callable[[Any, Any], Outcome] | None = None

    @property
    def timeout_s(self) -> float:
        """Seconds that a command has when it names no `timeout_s`."""
        return 3600.0 if self.long else 60.0


_UP: frozenset[State] = frozenset({"running", "blocked", "paused", "pmsuspended", "shutdown"})

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(name="define-xml", args=XmlArgs, creates=True, event="defined", summary="define a persistent domain from XML, or redefine it"),
        Verb(
            name="create-xml", args=XmlArgs, creates=True, goal="running", event="started",
            summary="define a persistent domain from XML and start it",
        ),
        Verb(name="start", goal="running", event="started", summary="boot a domain"),
        Verb(
            name="shutdown", goal="shutoff", event="stopped", asks_guest=True,
            summary="ask the guest to shut down, and wait until it has",
        ),
        Verb(name="destroy", goal="shutoff", event="stopped", summary="stop a domain at once, as if the power were cut"),
        Verb(name="reboot", from_states=_UP, summary="ask the guest to reboot"),
        Verb(name="reset", from_states=_UP, summary="reset a domain, as if the reset button were pressed"),
        Verb(name="suspend", goal="paused", from_states=_UP, event="suspended", summary="pause a domain's processors"),
        Verb(name="resume", goal="running", from_states=_UP, event="resumed", summary="let a paused domain run on"),
        Verb(name="undefine", event="undefined", summary="remove a domain's definition; a running one becomes transient"),
        Verb(
            name="managed-save", long=True, abortable=True, goal="shutoff", from_states=frozenset({"running", "blocked", "paused"}),
            event="stopped", summary="save a domain's memory to its host and stop it; start goes on from there",
        ),
        Verb(name="managed-save-remove", summary="remove what managed-save saved, so that start boots"),
        Verb(name="set-autostart", args=AutostartArgs, summary="say whether the host starts a domain when it boots"),
        Verb(name="get", kind="query", summary="show a domain's observed state"),
        Verb(name="xml", kind="query", summary="show a domain's XML"),
        Verb(name="stats", kind="query", summary="show a domain's figures: processor, memory, disks, interfaces"),
        Verb(name="command", kind="fleet", args=CommandIdArgs, summary="show what is recorded of a command"),
        Verb(name="cancel", kind="control", args=CommandIdArgs, summary="cancel a command that has not begun, or a job that runs"),
        Verb(name="domains", kind="fleet", args=ListArgs, summary="list domains"),
        Verb(name="nodes", kind="fleet", args=ListArgs, summary="list nodes"),
    )
}


def find(name: str, *kinds: Kind) -> Verb:
    """Return the entry called `name` of one of `kinds` (none given: any); raise `Invalid` if there is none."""
    verb = VERBS.get(name)
    if verb is None or (kinds and verb.kind not in kinds):
        known = ", ".join(entry.name for entry in VERBS.values() if not kinds or entry.kind in kinds)
        raise Invalid(f"verb {name!r} is unknown here; known are: {known}")
    return verb
