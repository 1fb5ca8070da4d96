"""Which domains a worker serves: all of its hypervisors', or only those of some projects or with some labels.

What is not served is as if it were on another node: neither told nor commanded, but its UUID and its name are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from orchestrator.protocol import token
from orchestrator.protocol.error import Invalid
from workers.drivers.port import Sighting, Tag


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is served: domains of one of `projects` (none: of any) that bear every one of `labels`.

    default_project: of domains that bear none of ours.
    """

    default_project: str = token.DEFAULT_PROJECT
    projects: frozenset[str] = frozenset()
    labels: Mapping[str, str] = {}

    def takes(self, project: str) -> bool:
        """Tell whether commands of a project are served at all."""
        return not self.projects or project in self.projects

    def holds(self, project: str, labels: Mapping[str, str]) -> bool:
        """Tell whether a domain with this project and these labels is served."""
        return self.takes(project) and self.labels.items() <= labels.items()

    def serves(self, sighting: Sighting) -> bool:
        """Tell whether a domain is served, as it is now."""
        tag = sighting.tag
        return self.holds(self.default_project, {}) if tag is None else self.holds(tag.project, tag.labels)

    @property
    def limited(self) -> bool:
        """Whether there are domains that are not served."""
        return bool(self.projects or self.labels)

    def tag(self, project: str) -> Tag:
        """Return what a new domain bears: with the labels, without which its maker could not serve it."""
        return Tag(project=project, labels=dict(self.labels))


EVERYTHING = Scope()
"""All domains."""


def read_scope(only: Iterable[str], default_project: str) -> Scope:
    """Return the scope that texts like `project=a` and `label=team=red` mean, together. Raises `Invalid`."""
    projects: set[str] = set()
    labels: dict[str, str] = {}
    for text in only:
        kind, _, value = text.partition("=")
        name, equals, label = value.partition("=")
        if kind == "project":
            projects.add(token.project(value))
        elif kind == "label" and name and equals and labels.get(name, label) == label:
            labels[name] = label
        else:
            raise Invalid(f"only: {text!r} names neither; use project=NAME or label=NAME=VALUE, one value a name")
    return Scope(default_project=token.project(default_project), projects=frozenset(projects), labels=labels)
