"""Laws of saving, and of jobs: calls that last, tell how far they are, and can be given up."""
# ruff: noqa: S101, SIM300 - laws assert, and say first what is expected

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from workers.drivers.port import Aborted, Impossible, JobProgress, Missing, Rejected
from workers.testing.stage import NOBODY, Guest, Laws, Stage


class JobLaws(Laws):
    """Saving, progress, giving up."""

    def test_a_saved_domain_is_off_until_it_is_started_from_its_image(self, stage: Stage) -> None:
        """The image is used up by that."""
        guest = stage.guest()
        guest.create()
        guest.run("managed-save")
        seen = guest.look()
        assert ("shutoff", "saved", True, True) == (seen.state, seen.reason, seen.saved, seen.persistent)
        assert guest.heard("stopped", "saved")
        guest.run("start")
        seen = guest.look()
        assert ("running", False) == (seen.state, seen.saved)

    def test_what_was_saved_can_be_removed(self, stage: Stage) -> None:
        """Then it is off as any other."""
        guest = stage.guest()
        guest.create()
        guest.run("managed-save")
        guest.run("managed-save-remove")
        seen = guest.look()
        assert ("shutoff", False) == (seen.state, seen.saved)

    def test_a_paused_domain_is_saved_as_it_is(self, stage: Stage) -> None:
        """And stays paused when it is started again, where the hypervisor remembers."""
        guest = stage.guest()
        guest.create()
        guest.run("suspend")
        guest.run("managed-save")
        assert ("shutoff", True) == (guest.look().state, guest.look().saved)
        guest.run("start")
        assert guest.look().active

    def test_only_what_runs_and_is_defined_can_be_saved(self, stage: Stage) -> None:
        """What is off has no memory, and what is transient nothing that its image could stay with."""
        guest = stage.guest()
        guest.define()
        with pytest.raises(Rejected):
            guest.run("managed-save")
        guest.run("start")
        guest.run("undefine")
        with pytest.raises(Rejected):
            guest.run("managed-save")
        assert "running" == guest.look().state

    def test_without_a_job_there_is_no_progress_and_nothing_to_abort(self, stage: Stage) -> None:
        """A hypervisor without jobs says that it has none to abort."""
        guest = stage.guest()
        guest.define()
        assert stage.driver.progress(guest.uuid) is None
        guest.run("start")
        assert stage.driver.progress(guest.uuid) is None
        with pytest.raises((Rejected, Impossible)):
            stage.driver.abort(guest.uuid)
        assert "running" == guest.look().state

    def test_there_are_no_jobs_of_an_unknown_domain(self, stage: Stage) -> None:
        """Neither to be read nor to be given up."""
        with pytest.raises(Missing):
            stage.driver.progress(NOBODY)
        with pytest.raises((Missing, Impossible)):
            stage.driver.abort(NOBODY)

    def test_a_job_under_way_tells_its_progress_and_can_be_given_up(self, stage: Stage) -> None:
        """While its own call lasts. That call is told so, and the domain runs on as before."""
        if stage.bench.lasting is None:
            pytest.skip("no job of this bench lasts for long enough")
        guest = stage.guest()
        guest.create(stage.bench.lasting(guest.name, guest.uuid))
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(guest.run, "managed-save")
            progress = _under_way(guest, call)
            _give_up(guest, call)
            with pytest.raises(Aborted):
                call.result()
        assert (True, True) == (progress.remaining >= 0, progress.total >= progress.remaining)
        seen = guest.look()
        assert ("running", False) == (seen.state, seen.saved)
        assert stage.driver.progress(guest.uuid) is None


def _under_way(guest: Guest, call: Future[None]) -> JobProgress:
    """Wait until a job runs; return how far it is."""
    progress = None
    while progress is None and not call.done():
        time.sleep(0.02)  # a job's begin is told by nobody
        progress = guest.stage.driver.progress(guest.uuid)
    assert progress is not None, "the job was over before it could be seen"
    return progress


def _give_up(guest: Guest, call: Future[None]) -> None:
    """Ask for it until its call has returned: it may be asked before the hypervisor has begun."""
    deadline = time.monotonic() + guest.stage.bench.patience_s
    while not call.done() and time.monotonic() < deadline:
        try:
            guest.stage.driver.abort(guest.uuid)
        except Rejected:
            time.sleep(0.02)
        else:
            call.exception(guest.stage.bench.patience_s)
