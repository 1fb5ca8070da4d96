"""The jobs of the hypervisor in memory: calls that last as long as a fault holds them up, tell how far they are, and can be given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from workers.drivers.port import Aborted, JobProgress, Rejected


class Held(Protocol):
    """What holds a call up."""

    def release(self) -> None:
        """Let it go on."""


class Job:
    """One call that lasts."""

    def __init__(self) -> None:
        self.progress = JobProgress()
        self._lock = threading.Lock()
        self._held: Held | None = None
        self._aborted = False

    def hold(self, held: Held) -> None:
        """Note what holds it up."""
        with self._lock:
            self._held = held
            aborted = self._aborted
        if aborted:
            held.release()

    def abort(self) -> None:
        """Have it given up."""
        with self._lock:
            self._aborted, held = True, self._held
        if held is not None:
            held.release()

    def go_on(self) -> None:
        """Raise `Aborted` if it was given up."""
        if self._aborted:
            raise Aborted("operation aborted: canceled by client", code=78, domain=10)


class Jobs:
    """The jobs under way, by UUID of the domain."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    @contextmanager
    def under_way(self, uuid: str) -> Iterator[Job]:
        """Run a job for as long as the context lasts."""
        job = self._jobs[uuid] = Job()
        try:
            yield job
        finally:
            del self._jobs[uuid]

    def tell(self, uuid: str, progress: JobProgress) -> None:
        """Say how far the job of a domain has come from now on."""
        self._running(uuid).progress = progress

    def progress(self, uuid: str) -> JobProgress | None:
        """Return how far it has come, None where none runs."""
        job = self._jobs.get(uuid)
        return None if job is None else job.progress

    def abort(self, uuid: str) -> None:
        """Have it given up. Raises `Rejected` where none runs."""
        self._running(uuid).abort()

    def _running(self, uuid: str) -> Job:
        job = self._jobs.get(uuid)
        if job is None:
            raise Rejected("Requested operation is not valid: no job is active on the domain", code=55, domain=10)
        return job
