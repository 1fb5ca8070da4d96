"""Every subject, log and bucket name, built and parsed here and nowhere else (PROTOCOL §1-2)."""

from __future__ import annotations

import msgspec

from orchestrator.protocol.error import Invalid
from orchestrator.protocol.token import NONE, is_word

VERSION = "v1"

ALL_COMMANDS = "command.*"
"""The event tail of every `command.<outcome>` event."""


class Addressed(msgspec.Struct, frozen=True):
    """The tokens of an `api` or `cmd` subject, as received and unchecked."""

    project: str
    domain: str
    verb: str


class Routed(msgspec.Struct, frozen=True):
    """The tokens of a `run`, `dlv` or `ask` subject, as received and unchecked."""

    node: str
    project: str
    domain: str
    verb: str


class Told(msgspec.Struct, frozen=True):
    """The tokens of an `evt` subject; `event` is all that follows the domain."""

    node: str
    project: str
    domain: str
    event: str


class Subjects(msgspec.Struct, frozen=True):
    """The subjects of one installation, under its prefix."""

    prefix: str = "virt"

    def __post_init__(self) -> None:
        if not is_word(self.prefix):
            raise Invalid(f"prefix {self.prefix!r} is no token: use 1 to 63 of A-Z a-z 0-9 _ -")

    def _of(self, *tokens: str) -> str:
        return ".".join((self.prefix, VERSION, *tokens))

    def api(self, project: str, domain: str, verb: str) -> str:
        """Return the request subject of a verb: `virt.v1.api.<project>.<domain>.<verb>`."""
        return self._of("api", project, domain, verb)

    def cmd(self, project: str, domain: str, verb: str) -> str:
        """Return the fire-and-forget subject of a verb: `virt.v1.cmd.<project>.<domain>.<verb>`."""
        return self._of("cmd", project, domain, verb)

    def run(self, node: str, project: str, uuid: str, verb: str) -> str:
        """Return the subject on which one node is told to run a verb."""
        return self._of("run", node, project, uuid, verb)

    def delivery(self, run: str) -> str:
        """Return the `dlv` subject under which the broker pushes what was stored on `run`."""
        return self._of("dlv", *run.split(".")[3:])

    def stored(self, delivery: str) -> str:
        """Return the `run` subject whose push came as `delivery` (a `run` subject stays what it is)."""
        return self._of("run", *delivery.split(".")[3:])

    def ask(self, node: str, project: str, domain: str, query: str) -> str:
        """Return the request subject of a query to one node."""
        return self._of("ask", node, project, domain, query)

    def res(self, node: str, project: str, command_id: str) -> str:
        """Return the subject of a command's result."""
        return self._of("res", node, project, command_id)

    def evt(self, node: str, project: str, domain: str, event: str) -> str:
        """Return the subject of an event; `event` is `<event>[.<detail>]`."""
        return self._of("evt", node, project, domain, event)

    @property
    def apis(self) -> str:
        """All requests: what a coordinator serves."""
        return self._of("api", ">")

    @property
    def cmds(self) -> str:
        """All fire-and-forget commands."""
        return self._of("cmd", ">")

    @property
    def withdrawals(self) -> str:
        """What a coordinator asks all others: to withdraw a command that it may not have routed yet."""
        return self._of("peer", "withdraw")

    @property
    def events(self) -> str:
        """All events."""
        return self._of("evt", ">")

    @property
    def results(self) -> str:
        """All results."""
        return self._of("res", ">")

    def runs(self, node: str = "") -> str:
        """All orders of one node, or of all nodes."""
        return self._of("run", node, ">") if node else self._of("run", ">")

    def deliveries(self, node: str) -> str:
        """All pushes for one node."""
        return self._of("dlv", node, ">")

    def asks(self, node: str) -> str:
        """All queries to one node."""
        return self._of("ask", node, ">")

    def node_events(self, node: str) -> str:
        """All events of one node."""
        return self._of("evt", node, ">")

    def parse_addressed(self, subject: str) -> Addressed:
        """Take an `api` or `cmd` subject apart; raise `Invalid` if its shape is wrong."""
        tokens = subject.split(".")
        if len(tokens) != 6:
            raise Invalid(f"subject has {len(tokens)} tokens; the form is {self.prefix}.v1.api|cmd.<project>.<domain>.<verb>")
        return Addressed(*tokens[3:])

    def parse_routed(self, subject: str) -> Routed:
        """Take a `run`, `dlv` or `ask` subject apart; raise `Invalid` if its shape is wrong."""
        tokens = subject.split(".")
        if len(tokens) != 7:
            raise Invalid(f"subject has {len(tokens)} tokens; the form is {self.prefix}.v1.run|ask.<node>.<project>.<domain>.<verb>")
        return Routed(*tokens[3:])

    def parse_event(self, subject: str) -> Told:
        """Take an `evt` subject apart; raise `Invalid` if its shape is wrong."""
        tokens = subject.split(".", 6)
        if len(tokens) != 7:
            raise Invalid(f"subject {subject!r} is no event: the form is {self.prefix}.v1.evt.<node>.<project>.<domain>.<event>")
        return Told(*tokens[3:])

    def parse_result(self, subject: str) -> tuple[str, str, str]:
        """Return node, project and command id of a `res` subject; raise `Invalid` if its shape is wrong."""
        tokens = subject.split(".")
        if len(tokens) != 6:
            raise Invalid(f"subject {subject!r} is no result: the form is {self.prefix}.v1.res.<node>.<project>.<id>")
        return tokens[3], tokens[4], tokens[5]

    @property
    def log_cmd(self) -> str:
        """Name of the log of commands that are yet to be routed."""
        return f"{self.prefix.upper()}_CMD"

    @property
    def log_run(self) -> str:
        """Name of the log of commands routed to nodes."""
        return f"{self.prefix.upper()}_RUN"

    @property
    def log_evt(self) -> str:
        """Name of the log of events."""
        return f"{self.prefix.upper()}_EVT"

    def bucket(self, name: str) -> str:
        """Return the name of a key-value bucket: `nodes leases domains owners specs admin cursors`."""
        return f"{self.prefix}_{name}"

    def service(self, name: str) -> str:
        """Return the name of a NATS micro service: `api`, `worker`."""
        return f"{self.prefix}-{name}"


def domain_key(node: str, project: str, uuid: str) -> str:
    """Return the key of a domain's observed state in `virt_domains`."""
    return f"{node}.{project}.{uuid}"


def split_domain_key(key: str) -> tuple[str, str, str]:
    """Return node, project and UUID of a key in `virt_domains`; raise `Invalid` if its shape is wrong."""
    tokens = key.split(".")
    if len(tokens) != 3:
        raise Invalid(f"key {key!r}: the form is <node>.<project>.<uuid>")
    return tokens[0], tokens[1], tokens[2]


__all__ = ["ALL_COMMANDS", "NONE", "Addressed", "Routed", "Subjects", "Told", "domain_key", "split_domain_key"]
