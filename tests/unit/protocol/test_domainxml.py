"""Laws of the domain XML that both sides read: completed, never rewritten; never a DOCTYPE."""

from __future__ import annotations

import pytest

from orchestrator.protocol.domainxml import MAX_DEPTH, complete, identify
from orchestrator.protocol.error import Invalid

UUID = "6f1c0000-0000-4000-8000-000000000001"
WHOLE = f'<domain type="test"><name>web1</name><uuid>{UUID.upper()}</uuid><memory unit="MiB">64</memory><vcpu>2</vcpu></domain>'


def test_identity_and_needs_are_read() -> None:
    """UUIDs in lower case, memory in KiB."""
    found = identify(WHOLE)
    assert (found.type, found.name, found.uuid, found.memory_kib, found.vcpus) == ("test", "web1", UUID, 64 * 1024, 2)


@pytest.mark.parametrize(
    ("unit", "kib"), [("", 64), (' unit="KiB"', 64), (' unit="G"', 64 * 1024**2), (' unit="bytes"', 0), (' unit="MB"', 62500)]
)
def test_memory_has_libvirts_units(unit: str, kib: int) -> None:
    """KiB where none is given."""
    assert identify(f"<domain><memory{unit}>64</memory></domain>").memory_kib == kib


def test_what_is_missing_is_filled_in_and_the_rest_left_as_it_is() -> None:
    """Comments, prefixes and encodings survive."""
    text = '<!-- ü --><domain xmlns:q="u" type="test">\n <memory>1</memory><q:commandline/></domain>'
    done = complete(text, name="a&b", uuid=UUID)
    filled = f"<uuid>{UUID}</uuid><name>a&amp;b</name><memory>1</memory>"
    assert done == f'<!-- ü --><domain xmlns:q="u" type="test">\n {filled}<q:commandline/></domain>'
    assert (identify(done).name, identify(done).uuid) == ("a&b", UUID)


def test_what_is_complete_stays_as_it_is() -> None:
    """Byte for byte, so a repeat has the same digest."""
    assert complete(WHOLE, name=None, uuid=UUID) == WHOLE
    assert complete(WHOLE, name="web1", uuid=UUID) == WHOLE


@pytest.mark.parametrize(
    ("document", "name", "why"),
    [
        (WHOLE, "web2", "name"),
        (WHOLE.replace(UUID.upper(), UUID[:-1] + "2"), None, "uuid"),
        ("<domain><memory>1</memory></domain>", None, "name"),
        ("<domain/>", "web1", "empty"),
    ],
)
def test_what_contradicts_or_lacks_is_invalid(document: str, name: str | None, why: str) -> None:
    """The message names the element."""
    with pytest.raises(Invalid, match=why):
        complete(document, name=name, uuid=UUID)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "not xml",
        "<domain>",
        "<network/>",
        "<!DOCTYPE domain><domain/>",
        '<!DOCTYPE d [<!ENTITY a "b">]><domain><name>&a;</name></domain>',
        "<domain><uuid>123</uuid></domain>",
        "<domain>" + "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH + "</domain>",
        "<domain><name>" + "x" * 600_000 + "</name></domain>",
        "<domain>\ud800</domain>",
    ],
)
def test_what_is_no_safe_domain_xml_is_invalid(document: str) -> None:
    """Malformed, of another kind, with a DOCTYPE, too deep, too large."""
    with pytest.raises(Invalid, match="xml"):
        identify(document)


def test_only_direct_children_of_the_domain_count() -> None:
    """A name inside metadata is none."""
    assert identify("<domain><metadata><name>x</name></metadata></domain>").name is None
