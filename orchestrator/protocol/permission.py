"""What each kind of user may publish and subscribe to, as NATS permissions (PROTOCOL §2-3).

Readers of a log are held by the subject that makes them: log, the reader's name (one exact
token, the user's own) and the filter all stand in it. Reads in which the body chooses the
subject (`STREAM.MSG.GET`, `DIRECT.GET` without subject) are given to nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from orchestrator.protocol.error import Invalid
from orchestrator.protocol.subject import Subjects
from orchestrator.protocol.token import NONE, is_word
from orchestrator.protocol.verb import VERBS

_API = "$JS.API"
_DISCOVERY = "$SRV.>"
_ASK_S = 300
_COMMAND_S = 24 * 3600
_STATE = ("nodes", "leases", "domains", "owners", "specs", "admin", "cursors")
_DECIDED = ("owners", "specs", "admin", "cursors")


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """Subjects (wildcards allowed) that a user may publish and subscribe to; all others are refused.

    responses_s: seconds for which a request received may be answered, once, whatever its reply subject; 0: not at all.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responses_s: int = 0

    def entry(self) -> dict[str, Any]:
        """Return them as the server's configuration has them."""
        entry: dict[str, Any] = {"publish": {"allow": list(self.publish)}, "subscribe": {"allow": list(self.subscribe)}}
        if self.responses_s:
            entry["allow_responses"] = {"max": 1, "expires": f"{self.responses_s}s"}
        return entry


def inbox(user: str) -> str:
    """Return the inbox prefix of a user; raise `Invalid` if its name is no token."""
    if not is_word(user):
        raise Invalid(f"user {user!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -")
    return f"_INBOX.{user}"


def worker(subjects: Subjects, node: str) -> Permissions:
    """Return what the worker of `node` may do; its user and its readers are called like the node."""
    evt, run = subjects.node_events(node), subjects.runs(node)
    nodes, leases, domains = (_keys(subjects, name) for name in ("nodes", "leases", "domains"))
    state = [(nodes, f"$KV.{nodes}.{node}"), (leases, f"$KV.{leases}.{node}"), (domains, f"$KV.{domains}.{node}.>")]
    return Permissions(
        publish=(
            evt,
            subjects.res(node, "*", "*"),
            _console(subjects, node, "*", "out"),
            *(keys for _, keys in state),
            *(_last(f"KV_{bucket}", keys) for bucket, keys in state),
            _last(subjects.log_evt, evt),
            _last(subjects.log_run, run),
            *_reader(subjects.log_run, node, run),
            *_reader(subjects.log_evt, node, evt),
            *_reader(f"KV_{domains}", node, f"$KV.{domains}.{node}.>"),
        ),
        subscribe=(
            subjects.deliveries(node),
            subjects.asks(node),
            _console(subjects, node, "*", "in"),
            f"{inbox(node)}.>",
            _DISCOVERY,
        ),
        responses_s=_ASK_S,
    )


def coordinator(subjects: Subjects, user: str) -> Permissions:
    """Return what a coordinator may do: route, decide, read everything, provision and trim."""
    return Permissions(
        publish=(
            subjects.runs(),
            subjects.res(NONE, "*", "*"),
            subjects.node_events(NONE),
            subjects.asks("*"),
            subjects.withdrawals,
            *(f"$KV.{_keys(subjects, name)}.>" for name in _DECIDED),
            f"$SRV.PING.{subjects.service('api')}",  # for its health check
            *_keeper(subjects),
        ),
        subscribe=(subjects.apis, subjects.withdrawals, subjects.results, subjects.events, f"{inbox(user)}.>", _DISCOVERY),
        responses_s=_COMMAND_S,
    )


def client(subjects: Subjects, user: str, project: str, *, verbs: Collection[str] | None = None, direct: bool = False) -> Permissions:
    """Return what a client of one project may do.

    verbs: the verbs it may use, None for all; raw XML for one reaches the host's files and can be withheld.
    direct: it may also publish to workers, past the coordinators.
    """
    evt = subjects.evt("*", project, "*", ">")
    domains, specs = _keys(subjects, "domains"), _keys(subjects, "specs")
    tails = [("*", verb) for verb in sorted(verbs)] if verbs is not None else [("*", "*")]
    runs = [subjects.run("*", project, domain, verb) for domain, verb in tails] if direct else []
    return Permissions(
        publish=(
            *(subjects.api(project, domain, verb) for domain, verb in tails),
            *(subjects.cmd(project, domain, verb) for domain, verb in tails),
            *runs,
            subjects.ask("*", project, "*", "*"),
            _console(subjects, "*", project, "in"),
            *_read(subjects.log_evt, user, evt),
            *_read(f"KV_{domains}", user, f"$KV.{domains}.*.{project}.*"),
            *_read(f"KV_{specs}", user, f"$KV.{specs}.{project}.*"),
        ),
        subscribe=(subjects.res("*", project, "*"), evt, _console(subjects, "*", project, "out"), f"{inbox(user)}.>"),
    )


def observer(subjects: Subjects, user: str) -> Permissions:
    """Return what one may do who looks at everything and changes nothing."""
    asks = sorted(name for name, verb in VERBS.items() if verb.kind in ("query", "fleet"))
    return Permissions(
        publish=(
            *(subjects.api("*", "*", verb) for verb in asks),
            subjects.asks("*"),
            "$SRV.>",
            *(subject for log, filter in _all(subjects) for subject in _read(log, user, filter)),
        ),
        subscribe=(subjects.results, subjects.events, f"{inbox(user)}.>"),
    )


def admin(subjects: Subjects, user: str) -> Permissions:
    """Return what an operator may do: every verb of every project, the fleet, provisioning; not play a worker."""
    return Permissions(
        publish=(
            subjects.apis,
            subjects.cmds,
            subjects.runs(),
            subjects.asks("*"),
            _console(subjects, "*", "*", "in"),
            "$SRV.>",
            *_keeper(subjects),
        ),
        subscribe=(subjects.results, subjects.events, _console(subjects, "*", "*", "out"), f"{inbox(user)}.>"),
    )


def _keys(subjects: Subjects, name: str) -> str:
    return subjects.bucket(name)


def _console(subjects: Subjects, node: str, project: str, way: str) -> str:
    return f"{subjects.prefix}.v1.con.{node}.{project}.*.*.{way}"


def _all(subjects: Subjects) -> Iterable[tuple[str, str]]:
    """Yield each log with the filter that takes in all of it."""
    yield subjects.log_cmd, subjects.cmds
    yield subjects.log_run, subjects.runs()
    yield subjects.log_evt, subjects.events
    for name in _STATE:
        bucket = _keys(subjects, name)
        yield f"KV_{bucket}", f"$KV.{bucket}.>"


def _last(log: str, filter: str) -> str:
    return f"{_API}.DIRECT.GET.{log}.{filter}"


def _reader(log: str, name: str, filter: str) -> tuple[str, ...]:
    return (
        f"{_API}.CONSUMER.CREATE.{log}.{name}.{filter}",
        f"{_API}.CONSUMER.DELETE.{log}.{name}",
        f"{_API}.CONSUMER.MSG.NEXT.{log}.{name}",
    )


def _read(log: str, name: str, filter: str) -> tuple[str, ...]:
    return (_last(log, filter), *_reader(log, name, filter))


def _keeper(subjects: Subjects) -> tuple[str, ...]:
    """Return what it takes to provision, trim and read all logs, under any reader's name."""
    calls = ("STREAM.INFO.{}", "STREAM.CREATE.{}", "STREAM.UPDATE.{}", "STREAM.PURGE.{}", "DIRECT.GET.{}.>")
    readers = ("CONSUMER.CREATE.{}.*.>", "CONSUMER.DELETE.{}.*", "CONSUMER.MSG.NEXT.{}.*")
    return tuple(f"{_API}.{call.format(log)}" for log, _ in _all(subjects) for call in (*calls, *readers))
