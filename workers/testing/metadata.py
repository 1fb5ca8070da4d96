"""Laws of incarnations and questions."""
# ruff: noqa: S101, SIM300 - laws assert, and say first what is expected

from __future__ import annotations

import pytest

from workers.drivers.port import Impossible, Missing, Rejected
from workers.testing.stage import NOBODY, TAG, Laws, Stage


class MetadataLaws(Laws):
    """Incarnations and questions."""

    def test_an_incarnation_lives_as_long_as_the_instance(self, stage: Stage) -> None:
        """Written to the running instance, gone with it, absent from the next."""
        guest = stage.guest()
        guest.create()
        stage.driver.mark(guest.uuid, "01JABC")
        assert ("01JABC", TAG) == (guest.look().incarnation, guest.look().tag)
        guest.run("destroy")
        assert guest.look().incarnation is None
        guest.run("start")
        assert guest.look().incarnation is None

    def test_only_what_runs_can_be_marked(self, stage: Stage) -> None:
        """A stopped domain has no instance, an unknown one nothing."""
        guest = stage.guest()
        guest.define()
        with pytest.raises(Rejected):
            stage.driver.mark(guest.uuid, "01JABC")
        with pytest.raises(Missing):
            stage.driver.mark(NOBODY, "01JABC")

    def test_xml_and_stats_can_be_asked_for(self, stage: Stage) -> None:
        """And nothing else."""
        guest = stage.guest()
        guest.create()
        assert guest.name in stage.driver.ask("xml", guest.uuid)
        assert 1 == stage.driver.ask("stats", guest.uuid)["state.state"]
        with pytest.raises(Impossible):
            stage.driver.ask("future", guest.uuid)

    @pytest.mark.parametrize("query", ["xml", "stats"])
    def test_a_question_about_an_unknown_domain_is_missing(self, stage: Stage, query: str) -> None:
        """There is nothing to tell."""
        with pytest.raises(Missing):
            stage.driver.ask(query, NOBODY)
