"""Laws of opening, closing and losing."""
# ruff: noqa: S101, SIM300 - laws assert, and say first what is expected

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from orchestrator.protocol.verb import VERBS, NoArgs
from workers.drivers.port import DriverError, Impossible, Lost
from workers.testing.stage import NOBODY, TAG, Laws, Stage


class ConnectionLaws(Laws):
    """Opening, closing, losing."""

    def test_opening_tells_what_the_hypervisor_is(self, stage: Stage) -> None:
        """Types, figures, and verbs that the registry knows."""
        ability = stage.ability
        assert ability.types
        assert (True, True, True) == (ability.cpus > 0, ability.memory_kib > 0, bool(ability.arch))
        assert set() == set(ability.verbs) - {verb.name for verb in VERBS.values() if verb.kind == "verb"}
        assert set() == set(ability.verbs) & set(ability.lacks)
        assert stage.driver.free_memory_kib() > 0

    def test_an_invented_verb_is_impossible(self, stage: Stage) -> None:
        """Nothing is tried."""
        with pytest.raises(Impossible):
            stage.driver.run("fly", NOBODY, NoArgs(), TAG)

    def test_events_speak_of_their_domain(self, stage: Stage) -> None:
        """UUID, name, event and detail tokens are those of the data; a hypervisor that has no events tells none."""
        guest = stage.guest()
        guest.define()
        guest.told("defined")
        happenings = [one for one in stage.recorder.happenings if one.uuid == guest.uuid]
        assert int(stage.tells) == len(happenings)
        for happening in happenings:
            assert (guest.name, "lifecycle", "defined") == (happening.name, happening.event, happening.detail)
            assert {"event": "defined", "detail": "added"} == happening.data

    def test_a_closed_driver_is_lost_and_its_domains_stay(self, stage: Stage) -> None:
        """Every call says so; closing twice is closing; opened again it finds the domain as it was."""
        guest = stage.guest()
        guest.create()
        guest.told("started")
        before = guest.look()
        stage.driver.close()
        stage.driver.close()
        calls: list[Callable[[], object]] = [
            stage.driver.scan,
            stage.driver.free_memory_kib,
            lambda: stage.driver.look(guest.uuid),
            lambda: guest.run("destroy"),
            lambda: stage.driver.mark(guest.uuid, "01J"),
            lambda: stage.driver.ask("xml", guest.uuid),
        ]
        for call in calls:
            with pytest.raises(Lost):
                call()
        stage.reopen()
        assert before == guest.look()

    def test_who_closed_hears_nothing_more(self, stage: Stage) -> None:
        """A new opening tells its own listener only."""
        guest = stage.guest()
        former = stage.recorder
        stage.driver.close()
        stage.reopen()
        guest.define()
        guest.told("defined")
        assert ([], []) == (former.details(guest.uuid), former.losses)

    def test_a_lost_connection_is_told_once_and_opens_again(self, stage: Stage) -> None:
        """Calls fail as lost until then; domains are what they were (a daemon may forget the reason of their state)."""
        if stage.bench.sever is None:
            pytest.skip("nothing can break this bench's connection and leave its domains")
        guest = stage.guest()
        guest.create()
        stage.driver.mark(guest.uuid, "01JABC")
        before = guest.look()
        former = stage.recorder
        stage.bench.sever()
        assert former.until(lambda: bool(former.losses), stage.bench.patience_s)
        for _ in range(2):
            with pytest.raises(Lost):
                stage.driver.look(guest.uuid)
        stage.reopen()
        assert before == msgspec.structs.replace(guest.look(), reason=before.reason)
        guest.run("destroy")
        guest.told("stopped")
        assert 1 == len(former.losses)

    def test_calls_from_many_threads_get_their_own_answers(self, stage: Stage) -> None:
        """Nothing is mixed up between threads."""
        guests = [stage.guest() for _ in range(4)]
        for guest in guests:
            guest.define()

        def look(turn: int) -> tuple[str, str | None]:
            guest = guests[turn % len(guests)]
            seen = stage.driver.look(guest.uuid)
            return guest.name, None if seen is None else seen.name

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(look, range(80)))
        assert [(name, name) for name, _ in answers] == answers

    def test_errors_carry_the_hypervisors_numbers(self, stage: Stage) -> None:
        """Code and domain of the error travel to the client."""
        with pytest.raises(DriverError) as caught:
            stage.driver.run("start", NOBODY, NoArgs(), TAG)
        assert caught.value.code > 0
        assert caught.value.domain > 0
