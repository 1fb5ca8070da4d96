"""What was found and what it took, kept for the end of the show."""

from __future__ import annotations

from collections.abc import Sequence

from demo.screen import Screen


class Score:
    """Verdicts and timings; each is printed when it comes, and again at the end."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._verdicts: list[tuple[str, list[str]]] = []
        self._timings: list[tuple[str, float, float | None]] = []

    @property
    def held(self) -> bool:
        """Whether there was something to judge, and nothing contradicted it."""
        return bool(self._verdicts) and not any(faults for _, faults in self._verdicts)

    def judge(self, sentence: str, faults: Sequence[str]) -> None:
        """Keep what shall hold, with what contradicts it."""
        self._verdicts.append((sentence, list(faults)))
        self._screen.done(f"{'it is not so that ' if faults else ''}{sentence}", good=not faults)

    def took(self, step: str, seconds: float, node_ms: float | None = None) -> None:
        """Keep a step's time: seconds as the client saw them, and the milliseconds of it that the node tells."""
        self._timings.append((step, seconds, node_ms))
        self._screen.done(f"{step}: {seconds * 1000:,.0f} ms")

    def finale(self) -> None:
        """Print all of it."""
        self._screen.timings(self._timings)
        for sentence, faults in self._verdicts:
            self._screen.verdict(sentence, faults)
        held = sum(not faults for _, faults in self._verdicts)
        self._screen.note(f"{held} of {len(self._verdicts)} checks held, {self._screen.elapsed:.1f} s")
