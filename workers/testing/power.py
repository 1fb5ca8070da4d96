"""Laws of starting, stopping and pausing."""
# ruff: noqa: S101, SIM300 - laws assert, and say first what is expected

from __future__ import annotations

import pytest

from orchestrator.protocol.verb import VERBS, AutostartArgs, NoArgs
from workers.drivers.port import Exists, Impossible, Missing, Rejected
from workers.testing.stage import NOBODY, TAG, Laws, Stage


class PowerLaws(Laws):
    """Starting, stopping, pausing."""

    def test_creating_defines_and_starts(self, stage: Stage) -> None:
        """`defined` comes first and `started` ends it; whatever lies between is `resumed`."""
        guest = stage.guest()
        guest.create()
        told = guest.told("started")
        seen = guest.look()
        assert ("running", True, True, TAG) == (seen.state, seen.active, seen.persistent, seen.tag)
        if stage.tells:
            assert [("defined", "added"), ("started", "booted")] == [one for one in told if one != ("resumed", "unpaused")]

    def test_creating_what_exists_changes_nothing(self, stage: Stage) -> None:
        """It is refused, and neither started nor removed."""
        guest = stage.guest()
        guest.define()
        with pytest.raises(Exists):
            guest.create()
        assert "shutoff" == guest.look().state

    def test_a_create_that_cannot_start_leaves_no_definition(self, stage: Stage) -> None:
        """Half a create is none."""
        if stage.bench.unstartable is None:
            pytest.skip("whatever this hypervisor defines it can start")
        guest = stage.guest()
        with pytest.raises(Rejected):
            guest.create(stage.bench.unstartable(guest.name, guest.uuid))
        assert stage.driver.look(guest.uuid) is None

    def test_a_start_that_fails_leaves_the_definition(self, stage: Stage) -> None:
        """What was defined before stays defined."""
        if stage.bench.unstartable is None:
            pytest.skip("whatever this hypervisor defines it can start")
        guest = stage.guest()
        guest.define(stage.bench.unstartable(guest.name, guest.uuid))
        with pytest.raises(Rejected):
            guest.run("start")
        assert "shutoff" == guest.look().state

    def test_a_running_domain_cannot_be_started_nor_a_stopped_one_destroyed(self, stage: Stage) -> None:
        """The driver refuses what has no effect; that the wish is met already is for the engine to say."""
        guest = stage.guest()
        guest.define()
        with pytest.raises(Rejected):
            guest.run("destroy")
        guest.run("start")
        with pytest.raises(Rejected):
            guest.run("start")
        assert "running" == guest.look().state

    def test_destroying_ends_with_stopped(self, stage: Stage) -> None:
        """Whatever comes before it, `stopped` is last, and the domain is off when the call has returned."""
        guest = stage.guest()
        guest.create()
        guest.run("destroy")
        seen = guest.look()
        assert ("shutoff", "destroyed", True) == (seen.state, seen.reason, seen.persistent)
        assert guest.heard("stopped", "destroyed")

    def test_suspending_and_resuming_are_seen_and_told(self, stage: Stage) -> None:
        """Paused and back."""
        guest = stage.guest()
        guest.create()
        guest.told("started")
        before = len(stage.recorder.details(guest.uuid))
        guest.run("suspend")
        assert ("paused", "user", True) == (guest.look().state, guest.look().reason, guest.look().active)
        guest.told("suspended")
        guest.run("resume")
        assert "running" == guest.look().state
        if not stage.tells:
            return
        assert stage.recorder.until(lambda: len(stage.recorder.details(guest.uuid)) >= before + 2, stage.bench.patience_s)
        assert [("suspended", "paused"), ("resumed", "unpaused")] == stage.recorder.details(guest.uuid)[before:]

    def test_shutdown_only_asks(self, stage: Stage) -> None:
        """The call returns whatever the guest does; if it is off then, `stopped` says so."""
        guest = stage.guest()
        guest.create()
        guest.request("shutdown")
        if not guest.look().active:
            assert guest.heard("stopped", "shutdown")

    @pytest.mark.parametrize("verb", ["reboot", "reset"])
    def test_a_restart_leaves_the_domain_running(self, stage: Stage, verb: str) -> None:
        """A reboot or reset is no stop."""
        guest = stage.guest()
        guest.create()
        guest.request(verb)
        assert "running" == guest.look().state

    @pytest.mark.parametrize("verb", [verb.name for verb in VERBS.values() if verb.kind == "verb" and not verb.creates])
    def test_a_verb_on_an_unknown_domain_is_missing(self, stage: Stage, verb: str) -> None:
        """Every verb that does not create needs its domain; one that the hypervisor lacks may say that instead."""
        args = AutostartArgs() if VERBS[verb].args is AutostartArgs else NoArgs()
        with pytest.raises(Missing if verb in stage.ability.verbs else (Missing, Impossible)):
            stage.driver.run(verb, NOBODY, args, TAG)
