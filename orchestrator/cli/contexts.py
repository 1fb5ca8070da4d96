"""Contexts: fleets by name in a TOML file, so that nobody types a broker's URL twice.

    current = "lab"

    [contexts.lab]
    server = "tls://lab.example:4222"
    creds = "lab.creds"       # relative to this file
    project = "blue"
    prefix = "virt"

The file is the user's: what is written here keeps comments and order, replaces the file in one step,
and leaves it readable for its owner alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from orchestrator.protocol.token import is_word

FIELDS = ("server", "creds", "project", "prefix", "reader")
"""What a context may say."""

WORDS = ("project", "prefix", "reader")
"""Those of them that are tokens."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content: fleets by name, and which of them is in use."""

    path: Path
    current: str | None = None
    contexts: dict[str, dict[str, str]] = {}

    def context(self, name: str) -> dict[str, str]:
        """Return a context, its credentials file as a full path. Raises `click.ClickException` if there is none of that name."""
        if name not in self.contexts:
            known = ", ".join(self.contexts) or "none"
            make = f"'virtbus context set {name} --server URL' makes it"
            raise click.ClickException(f"{self.path}: there is no context {name!r} (there are: {known}); {make}")
        found = dict(self.contexts[name])
        if "creds" in found:
            found["creds"] = str(self.path.parent / Path(found["creds"]).expanduser())
        return found


def config_path(environment: Mapping[str, str]) -> Path:
    """Return where the file is, or would be: `$VIRTBUS_CONFIG`, else in the XDG directory for configuration."""
    if environment.get("VIRTBUS_CONFIG"):
        return Path(environment["VIRTBUS_CONFIG"]).expanduser()
    base = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "virtbus" / "config.toml"


def read(path: Path) -> Config:
    """Return the file's content, nothing if it is not there. Raises `click.ClickException` that names file, place and remedy."""
    import tomllib  # noqa: PLC0415  not on the way of --help

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config(path=path)
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise click.ClickException(f"{path} is no TOML: {error}; mend that line") from error
    return _checked(path, document)


def _checked(path: Path, document: dict[str, Any]) -> Config:
    for name in document:
        if name not in ("current", "contexts"):
            raise _wrong(path, name, "is unknown; known are current and contexts")
    contexts, current = document.get("contexts", {}), document.get("current")
    if not isinstance(contexts, dict):
        raise _wrong(path, "contexts", "must be a table: [contexts.NAME]")
    for name, fields in contexts.items():
        _check_context(path, name, fields)
    if current is not None and not isinstance(current, str):
        raise _wrong(path, "current", "must be a string: the name of a context")
    return Config(path=path, current=current or None, contexts=contexts)


def _check_context(path: Path, name: str, fields: Any) -> None:
    if not isinstance(fields, dict):
        raise _wrong(path, f"contexts.{name}", f"must be a table: [contexts.{name}]")
    for field, value in fields.items():
        place = f"contexts.{name}.{field}"
        if field not in FIELDS:
            raise _wrong(path, place, f"is unknown; known are {', '.join(FIELDS)}")
        if not isinstance(value, str) or not value:
            raise _wrong(path, place, "must be a string in quotes that is not empty")
        if field in WORDS and not is_word(value):
            raise _wrong(path, place, f"is {value!r}, which is no token: use 1 to 63 of A-Z a-z 0-9 _ -")


def _wrong(path: Path, place: str, what: str) -> click.ClickException:
    return click.ClickException(f"{path}: {place} {what}")


def put(path: Path, name: str, fields: Mapping[str, str]) -> None:
    """Add a context, or change the given fields of one; a first one is in use from then on. Raises `click.ClickException`."""
    import tomlkit  # noqa: PLC0415  only where the file is written

    config = read(path)
    document = _document(path)
    contexts = document.setdefault("contexts", tomlkit.table(is_super_table=True))
    contexts.setdefault(name, tomlkit.table()).update(fields)
    if not config.contexts and config.current is None:
        _set_current(document, name)
    _replace(path, document)


def use(path: Path, name: str) -> None:
    """Make a context the one in use. Raises `click.ClickException`, also if there is none of that name."""
    read(path).context(name)
    document = _document(path)
    _set_current(document, name)
    _replace(path, document)


def remove(path: Path, name: str) -> None:
    """Remove a context; if it was in use, none is. Raises `click.ClickException`, also if there is none of that name."""
    config = read(path)
    config.context(name)
    document = _document(path)
    del document["contexts"][name]
    if config.current == name:
        del document["current"]
    _replace(path, document)


def _document(path: Path) -> Any:
    """Return the file for editing, with its comments; it was read before, so it is TOML."""
    import tomlkit  # noqa: PLC0415  only where the file is written

    return tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()


def _set_current(document: Any, name: str) -> None:
    """Set the key `current`; a new one stands at the top, since further down it would belong to a table."""
    import tomlkit  # noqa: PLC0415  only where the file is written

    if "current" in document or not document:
        document["current"] = name
        return
    rest = document.as_string()
    document.clear()
    document.update(tomlkit.parse(f"current = {tomlkit.item(name).as_string()}\n\n{rest}"))


def _replace(path: Path, document: Any) -> None:
    """Write the file anew, all or nothing; where it is a link, what it points to."""
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # made for its owner alone
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(document.as_string())
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from error


def shown(url: str) -> str:
    """Return a broker's URLs for people: who connects, but no password and no token."""
    return ",".join(_without_secret(part) for part in url.split(","))


def _without_secret(url: str) -> str:
    try:
        parts = urlsplit(url)
        hidden = f"{parts.username}:***" if parts.password else "***"
        return url if "@" not in parts.netloc else url.replace(parts.netloc.rpartition("@")[0], hidden, 1)
    except ValueError:
        return "***"  # no URL; whatever it is, it may hold a secret
