"""Everything malformed that somebody could send, by what is wrong with it. Each is one message, and none is a valid command."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.e2e.places import TEST
from tests.e2e.wire import Letter

NODE = "n1"
XML = TEST.format(name="web1")
LAUGHS = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
LIMIT = 512 * 1024

XMLS = {
    "no XML": "web1",
    "nothing": " ",
    "not well-formed": XML.replace("</name>", ""),
    "two roots": XML + XML,
    "another root": "<network><name>web1</name></network>",
    "no child": "<domain type='test'/>",
    "DOCTYPE": "<!DOCTYPE domain>" + XML,
    "external DTD": "<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'>" + XML,
    "external entity": "<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + XML.replace("web1", "&a;"),
    "billion laughs": f'<!DOCTYPE d [<!ENTITY a "ha">{LAUGHS}]>' + XML.replace("web1", "&i;"),
    "unknown entity": XML.replace("web1", "&web1;"),
    "control character": XML.replace("web1", "web1\x01"),
    "control character by number": XML.replace("web1", "web1&#1;"),
    "NUL": XML + "\0",
    "too deep": XML.replace("<memory", f"<metadata>{'<a>' * 100}{'</a>' * 100}</metadata><memory"),
    "unknown encoding": '<?xml version="1.0" encoding="bogus"?>' + XML,
    "unknown version": '<?xml version="2.0"?>' + XML,
    "declaration out of place": ' <?xml version="1.0"?>' + XML,
    "long name": XML.replace("web1", "w" * 2000),
    "no UUID": XML.replace("<memory", "<uuid>123</uuid><memory"),
}
"""Domain XML that is refused before any hypervisor is asked."""

CONTRADICTIONS = {
    "api": {"other name": XML.replace("web1", "web2"), "name and blanks": XML.replace("web1", " web1 ")},
    "cmd": {"other name": XML.replace("web1", "web2"), "name and blanks": XML.replace("web1", " web1 ")},
    "run": {
        "other UUID": XML.replace("<memory", "<uuid>6f1c0000-0000-4000-8000-00000000ffff</uuid><memory"),
        "no name": XML.replace("<name>web1</name>", ""),
    },
}
"""Domain XML that does not agree with its subject: the domain's name, or its UUID on `run`."""

VALUES: list[Any] = [None, True, 7, 1.5, "x", [], {}, [[]], "é\u0000", 10**40, -1]


class Garbage:
    """Makes garbage for one way: `api`, `cmd` or `run`. Ids never repeat, since a repeat is told of once."""

    def __init__(self, way: str, seed: int) -> None:
        self.way = way
        self._chance = random.Random(seed)
        self._numbers = count(1)

    def letters(self) -> Iterator[tuple[str, Letter]]:
        """Yield each kind of garbage, named."""
        for name, subject in self._subjects():
            yield f"subject: {name}", Letter(subject=subject)
        for name, body in self._bodies():
            yield f"body: {name}", Letter(subject=self._subject("start"), body=body)
        for name, block in self._headers():
            yield f"header: {name}", Letter(subject=self._subject("start"), headers=block)
        for name, xml in (XMLS | CONTRADICTIONS[self.way]).items():
            yield f"xml: {name}", Letter(subject=self._subject("define-xml"), body=self._json({"args": {"xml": xml}}))
        for fields in ({}, {"xml": 7}, {"xml": ""}, {"xml": XML, "more": 1}, {"xml": XML, "node": 1}):
            yield f"args: {fields}", Letter(subject=self._subject("define-xml"), body=self._json({"args": fields}))

    def _subject(self, verb: str, project: bytes = b"p", domain: bytes | None = None) -> bytes:
        number = next(self._numbers)
        if self.way == "run":
            uuid = domain if domain is not None else f"6f1c0000-0000-4000-8000-{number:012d}".encode()
            return b".".join((b"virt.v1.run", NODE.encode(), project, uuid, verb.encode()))
        return b".".join((b"virt.v1", self.way.encode(), project, b"web1" if domain is None else domain, verb.encode()))

    def _subjects(self) -> Iterator[tuple[str, bytes]]:
        yield "too few tokens", f"virt.v1.{self.way}.{NODE}.p".encode()
        yield "too many tokens", self._subject("start") + b".now"
        for verb in ("strat", "START", "x" * 200, "\x7f", "é"):
            yield f"verb {verb!r:.20}", self._subject(verb)
        if self.way != "api":
            yield "a question", self._subject("get")
        for token in (b"_", b"a%b", b"\xff\xfe", b"a\x01", b"x" * 64, "é".encode(), b"$SYS"):
            yield f"project {token!r:.20}", self._subject("start", project=token)
            yield f"domain {token!r:.20}", self._subject("start", domain=token)

    def _bodies(self) -> Iterator[tuple[str, bytes]]:
        plain = [
            b"{", b"}", b"[]", b"null", b"7", b'"x"', b"{}x", b"{'id': 1}", b"{id: 1}", b'{"args": {},}', b"\x00", b"\xff\xfe{}",
            b"\xef\xbb\xbf{}", b'{"timeout_s": NaN}', b'{"timeout_s": Infinity}', b'{"timeout_s": 1e999}', b'{"timeout_s": -0.0}',
            b'{"actor": "\xff"}', b'{"actor": "\\ud800"}', b'{"actor": "\x01"}', b'{"id": "' + b"x" * 100_000 + b'"}', b"[" * 200_000,
            b'{"args": ' * 50_000, b" " * (LIMIT + 1), b'{"if": {"generation": ' + b"9" * 5000 + b"}}", b'{"args": {}, "args": {}}',
            b'{"if": {"state": "running", "state": "paused"}}', b'{"id": "a", "\\u0069d": "%s"}' % self.way.encode(), b"\x0b", b"<domain/>",
        ]  # fmt: skip
        yield from ((f"{body!r:.30} {len(body)}", body) for body in plain)
        yield "a key as long as may be", self._json({"\x01" * 80_000: 1})
        yield "an id as long as may be", self._json({"id": "\U0010ffff" * 120_000}, ascii=False)
        for field in ("id", "args", "timeout_s", "if", "actor"):
            wrong = [value for value in VALUES if not _fits(field, value)]
            yield from ((f"{field}: {value!r:.20}", self._json({field: value})) for value in wrong)
        for value in ({"state": "asleep"}, {"mood": 1}, {"generation": "1"}, {"incarnation": 7}):
            yield f"if: {value}", self._json({"if": value})
        for _ in range(20):
            yield "chance", b"\xfe" + self._chance.randbytes(self._chance.randrange(1, 300))
        whole = self._json({"id": f"k{next(self._numbers)}-{self.way}", "args": {}, "timeout_s": 5, "actor": "me"})
        for _ in range(20):
            yield "cut short", whole[: self._chance.randrange(1, len(whole))]

    def _headers(self) -> Iterator[tuple[str, bytes]]:
        for value in (b"a b", b"m-cmd-1", b"\xff", b"x" * 65, b"a.b", b"", "é".encode()):
            yield f"Virt-Id {value!r:.20}", _block(b"Virt-Id: " + value)
        yield "traceparent too long", _block(b"traceparent: " + b"0" * 60_000)
        yield "tracestate too long", _block(b"tracestate: " + b"0" * 1000)
        if self.way == "run":
            for value in (b"tomorrow", b"2026-01-01T00:00:00", b"\xff", b"9" * 400, b"2026-13-01T00:00:00Z"):
                yield f"Virt-Deadline {value!r:.20}", _block(b"Virt-Deadline: " + value)
            for value in (b"-1", b"1.5", b"\xc2\xb2", b"9" * 5000, b"x"):
                yield f"Virt-Fence {value!r:.20}", _block(b"Virt-Fence: " + value)

    def _json(self, body: dict[str, Any], *, ascii: bool = True) -> bytes:
        return json.dumps(body, ensure_ascii=ascii).encode()


def _block(line: bytes) -> bytes:
    return b"NATS/1.0\r\n" + line + b"\r\n\r\n"


def _fits(field: str, value: Any) -> bool:
    """Tell whether a field may have a value after all."""
    if value is None:
        return field != "args"
    allowed = {"id": value == "x", "args": value == {}, "timeout_s": value in (7, 1.5) and value is not True, "if": value == {}}
    return bool(allowed.get(field, isinstance(value, str)))
