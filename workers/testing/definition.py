"""Laws of defining, changing and removing."""
# ruff: noqa: S101, SIM300 - laws assert, and say first what is expected

from __future__ import annotations

import pytest

from orchestrator.protocol.verb import AutostartArgs
from workers.drivers.port import Exists, Malformed, Tag
from workers.testing.stage import NOBODY, TAG, Laws, Stage


class DefinitionLaws(Laws):
    """Defining, changing, removing."""

    def test_a_defined_domain_is_seen_as_defined(self, stage: Stage) -> None:
        """Everything that the XML and the tag say can be seen, and the domain is off."""
        guest = stage.guest()
        guest.define()
        seen = guest.look()
        assert (guest.uuid, guest.name, "shutoff", True, False) == (seen.uuid, seen.name, seen.state, seen.persistent, seen.autostart)
        assert (1, 65536, TAG, None, False) == (seen.vcpus, seen.memory_kib, seen.tag, seen.incarnation, seen.active)
        assert seen.type in stage.ability.types
        assert seen in stage.driver.scan()

    def test_an_unknown_domain_is_none_and_no_error(self, stage: Stage) -> None:
        """Absence is an answer."""
        assert stage.driver.look(NOBODY) is None

    def test_defining_tells_added_and_then_updated(self, stage: Stage) -> None:
        """A new definition and a changed one are told apart."""
        guest = stage.guest()
        guest.define()
        guest.define()
        recorder = stage.recorder
        if not stage.tells:
            pytest.skip("this hypervisor has no events")
        assert recorder.until(lambda: len(recorder.details(guest.uuid)) >= 2, stage.bench.patience_s)
        assert [("defined", "added"), ("defined", "updated")] == recorder.details(guest.uuid)

    def test_our_metadata_in_the_xml_is_replaced(self, stage: Stage) -> None:
        """Who writes the XML cannot choose the project."""
        guest = stage.guest()
        forged = (
            "<metadata><v:domain xmlns:v='https://virtbus.dev/xmlns/domain/1' project='forged' generation='9'/>"
            "<l:instance xmlns:l='https://virtbus.dev/xmlns/live/1' incarnation='forged'/></metadata></domain>"
        )
        guest.create(guest.xml.replace("</domain>", forged))
        seen = guest.look()
        assert (TAG, None) == (seen.tag, seen.incarnation)

    def test_a_redefinition_keeps_what_the_tag_leaves_open(self, stage: Stage) -> None:
        """Labels and generation stay where a tag gives none, and give way where it does."""
        guest = stage.guest()
        guest.define()
        guest.define(tag=Tag(project="laws"))
        assert guest.look().tag == TAG
        guest.define(tag=Tag(project="laws", labels={"role": "other"}, generation=4))
        assert guest.look().tag == Tag(project="laws", labels={"role": "other"}, generation=4)

    def test_a_running_domain_bears_a_new_tag_at_once(self, stage: Stage) -> None:
        """A redefinition takes effect at the next start, its tag now."""
        guest = stage.guest()
        guest.create()
        other = Tag(project="laws", labels={"role": "other"}, generation=4)
        guest.define(guest.xml.replace("65536", "131072"), other)
        seen = guest.look()
        assert ("running", 65536, other) == (seen.state, seen.memory_kib, seen.tag)

    def test_a_name_that_another_domain_has_exists(self, stage: Stage) -> None:
        """Two domains of one name cannot be; the second is refused and leaves nothing."""
        first, second = stage.guest(), stage.guest()
        first.define()
        with pytest.raises(Exists):
            second.define(second.xml.replace(second.name, first.name))
        assert stage.driver.look(second.uuid) is None

    def test_a_uuid_that_has_another_name_exists(self, stage: Stage) -> None:
        """A redefinition cannot rename."""
        guest = stage.guest()
        guest.define()
        with pytest.raises(Exists):
            guest.define(guest.xml.replace(guest.name, f"{guest.name}-b"))
        assert guest.look().name == guest.name

    @pytest.mark.parametrize("spoil", ["not xml", "<domain><name>", "<network/>", "doctype", "no memory"])
    def test_xml_that_no_parser_takes_is_malformed(self, stage: Stage, spoil: str) -> None:
        """Broken XML, another root, a DOCTYPE, a missing necessity: refused as the sender's fault, nothing defined."""
        guest = stage.guest()
        xml = {
            "doctype": '<!DOCTYPE domain [<!ENTITY x "y">]>' + guest.xml,
            "no memory": guest.xml.replace("<memory>65536</memory>", ""),
        }.get(spoil, spoil)
        with pytest.raises(Malformed):
            guest.define(xml)
        assert stage.driver.look(guest.uuid) is None

    def test_undefining_removes_a_domain_that_is_off(self, stage: Stage) -> None:
        """Gone is gone, and told."""
        guest = stage.guest()
        guest.define()
        guest.run("undefine")
        assert stage.driver.look(guest.uuid) is None
        assert guest.heard("undefined", "removed")

    def test_undefining_a_running_domain_makes_it_transient(self, stage: Stage) -> None:
        """It runs on, and is gone once it stops."""
        guest = stage.guest()
        guest.create()
        guest.run("undefine")
        seen = guest.look()
        assert ("running", False) == (seen.state, seen.persistent)
        guest.run("destroy")
        guest.told("stopped")
        assert stage.driver.look(guest.uuid) is None

    def test_autostart_is_set_and_seen(self, stage: Stage) -> None:
        """Both ways."""
        guest = stage.guest()
        guest.define()
        for enabled in (True, False):
            guest.run("set-autostart", AutostartArgs(enabled=enabled))
            assert enabled == guest.look().autostart
