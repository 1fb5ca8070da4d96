"""Domain XML: what is read, what is replaced, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.drivers.libvirt import xml
from workers.drivers.libvirt.tagging import tagged
from workers.drivers.port import Malformed, Tag

PLAIN = "<domain type='kvm'><name>a</name><memory unit='KiB'>2048</memory><vcpu placement='static' current='2'>4</vcpu></domain>"
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))


@given(labels=st.dictionaries(TEXT, TEXT, max_size=5), generation=st.integers(min_value=0, max_value=2**53))
def test_a_tag_written_is_the_tag_read(labels: dict[str, str], generation: int) -> None:
    """Whatever labels hold, they come back as they were."""
    tag = Tag(project="p", labels=labels, generation=generation)
    assert tag == xml.tag_of(xml.parse(tagged(PLAIN, tag)))


def test_our_metadata_is_replaced_and_that_of_others_kept() -> None:
    """Neither a tag nor an incarnation that came in with the XML survives; foreign metadata does."""
    metadata = (
        f"<metadata><a:domain xmlns:a='{xml.TAG}' project='forged'/><b:x xmlns:b='{xml.TAG}'/><o:keep xmlns:o='urn:other'>1</o:keep>"
        f"<c:instance xmlns:c='{xml.LIVE}' incarnation='forged'/></metadata>"
    )
    done = tagged(PLAIN.replace("</domain>", f"{metadata}</domain>"), Tag(project="mine"))
    root = xml.parse(done)
    assert Tag(project="mine") == xml.tag_of(root)
    assert xml.incarnation_of(root) is None
    assert "forged" not in done
    assert root.findtext("metadata/{urn:other}keep") == "1"


@pytest.mark.parametrize(
    "metadata",
    [
        "<metadata><a:domain xmlns:a='{tag}' project='forged'/></metadata>",
        "<metadata><domain xmlns='{tag}' project='forged'><label name='a' value='>'/></domain></metadata>",
        "<metadata xmlns:a='{tag}'><a:domain project='forged'></a:domain ></metadata>",
        "<metadata xmlns='{tag}'><domain project='forged'/></metadata><metadata><domain xmlns='{tag}' project='forged'/></metadata>",
        "<metadata><!-- > --><o xmlns='urn:o' a='>'/><a:domain\n a='/>' xmlns:a='{slashed}' project='forged'/><p/></metadata>",
    ],
)
def test_a_forged_tag_goes_however_it_is_written(metadata: str) -> None:
    """By any prefix, in any place where libvirt would look for it."""
    written = metadata.replace("{tag}", xml.TAG).replace("{slashed}", xml.TAG.replace("/", "&#47;"))
    done = tagged(PLAIN.replace("</domain>", f"{written}</domain>"), Tag(project="mine"))
    assert Tag(project="mine") == xml.tag_of(xml.parse(done))
    assert ["mine"] == [each.get("project") for each in xml.parse(done).iterfind(f"metadata/{{{xml.TAG}}}domain")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("<metadata/>", ""),
        ("<metadata ></metadata>", ""),
        ("<metadata><![CDATA[ ]]><a:b/></metadata>", ""),
        ("<!-- ü -->", "<x:y xmlns:x='urn:x'><![CDATA[<&]]>&#233;</x:y>"),
    ],
)
def test_all_else_stays_as_it_was_written(before: str, after: str) -> None:
    """To the byte, but for the first line: no parser's idea of the document comes between sender and libvirt."""
    document = f"<domain type='kvm'>\r\n {before}<name>a</name>{after} <memory\tunit = 'KiB' >2048</memory></domain>\n<!-- end -->"
    done = tagged(f'<?xml version="1.0" encoding="latin-1"?>{document}', Tag(project="mine"))
    metadata, added = ("<metadata>", "</metadata>") if "<metadata" not in before else ("", "")
    inserted = f"{metadata}{xml.written(Tag(project='mine'))}{added}"
    undone = done.replace(inserted, "")
    assert document in (undone, undone.replace("<metadata></metadata>", "<metadata/>"))


def test_what_has_no_place_for_a_tag_is_malformed() -> None:
    """Nor does libvirt take a domain of which nothing is said."""
    for document in ("<domain/>", "<domain", "<!DOCTYPE domain><domain><name>a</name></domain>"):
        with pytest.raises(Malformed):
            tagged(document, Tag(project="mine"))


def test_figures_are_what_the_instance_has() -> None:
    """Processors that are plugged in, not the most that there could be."""
    assert xml.Described(type="kvm", vcpus=2, memory_kib=2048, tag=None, incarnation=None) == xml.described(PLAIN)


def test_a_domain_without_our_metadata_has_no_tag() -> None:
    """Also one whose metadata in our namespace lacks the project."""
    assert xml.tag_of(xml.parse(PLAIN)) is None
    nameless = PLAIN.replace("</domain>", f"<metadata><v:domain xmlns:v='{xml.TAG}' generation='2'/></metadata></domain>")
    assert xml.tag_of(xml.parse(nameless)) is None


def test_a_generation_that_is_no_number_is_none() -> None:
    """People can edit metadata; that must not stop a scan."""
    edited = PLAIN.replace("</domain>", f"<metadata><v:domain xmlns:v='{xml.TAG}' project='p' generation='x'/></metadata></domain>")
    assert Tag(project="p") == xml.tag_of(xml.parse(edited))


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<domain",
        '<!DOCTYPE domain [<!ENTITY a "aaaa">]><domain>&a;</domain>',
        '<!DOCTYPE domain SYSTEM "http://127.0.0.1:1/x.dtd"><domain/>',
        "<domain>\ud800</domain>",
    ],
)
def test_what_is_no_plain_xml_is_malformed(document: str) -> None:
    """No DOCTYPE, no halves of characters, no fragments."""
    with pytest.raises(Malformed):
        xml.parse(document)


def test_no_file_of_the_host_is_read(tmp_path: Path) -> None:
    """An external entity is refused and its content seen nowhere."""
    secret = tmp_path / "secret"
    secret.write_text("hush")
    with pytest.raises(Malformed) as caught:
        xml.parse(f'<!DOCTYPE domain [<!ENTITY a SYSTEM "file://{secret}">]><domain>&a;</domain>')
    assert "hush" not in str(caught.value)


def test_a_declared_encoding_does_not_change_the_text() -> None:
    """The text is Unicode already; an encoding in its first line is history."""
    assert xml.parse('<?xml version="1.0" encoding="latin-1"?><domain><name>é</name></domain>').findtext("name") == "é"
