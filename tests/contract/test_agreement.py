"""The broker in memory and the real one are told the same, and say the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest

from orchestrator.bus.embedded import Embedded
from orchestrator.bus.port import Bus, Expect, LogConfig, Message, Outgoing, Refused, Start
from tests.contract.systems import MemorySystem, NatsSystem
from tests.contract.witness import taken

pytestmark = pytest.mark.anyio

Step = Callable[[Bus], Awaitable[object]]

_CONFIGS = {
    "plain": LogConfig(name="", subjects=()),
    "bucket": LogConfig(name="", subjects=(), max_per_subject=1, markers_s=60),
    "few": LogConfig(name="", subjects=(), max_per_subject=3, max_message=500),
    "refusing": LogConfig(name="", subjects=(), max_bytes=2000, discard_new=True),
    "forgetting": LogConfig(name="", subjects=(), max_bytes=2000, first_sequence=1000),
    "single": LogConfig(name="", subjects=(), atomic=False, max_per_subject=2),
}


class Steps:
    """Draws things to do with a log. Sequences are guessed near those that are in use."""

    def __init__(self, random: Random, config: LogConfig, word: str) -> None:
        self._random = random
        self._log = config.name
        self._word = word
        self._last = config.first_sequence
        self._bare = config.max_bytes > 0  # what the headers of fences and batches take is the adapter's own affair

    def draw(self) -> tuple[str, Step]:
        """Return one step and its description."""
        writes = [self._append] * 11 if self._bare else [self._append] * 8 + [self._batch] * 3
        return self._random.choice([*writes, self._purge, self._last_of, self._read])()

    def follow(self, answer: object) -> None:
        """Take note of a sequence that was given."""
        if isinstance(answer, int):
            self._last = max(self._last, answer)

    def _subject(self) -> str:
        return f"{self._word}.{self._random.choice('ab')}.{self._random.choice('xyz')}"

    def _filter(self) -> str:
        return self._random.choice([f"{self._word}.>", f"{self._word}.a.>", f"{self._word}.*.x", self._subject()])

    def _sequence(self) -> int:
        return max(self._last - self._random.choice([0, 0, 0, 0, 1, 2, 5, 20]), 0)

    def _message(self) -> Outgoing:
        headers: dict[str, str] = {}
        if self._random.random() < 0.2 and not self._bare:
            headers["Nats-Msg-Id"] = str(self._random.randrange(20))
        if self._random.random() < 0.1 and not self._bare:
            headers["Nats-Rollup"] = "sub"
        return Outgoing(self._subject(), self._random.randbytes(self._random.choice([0, 10, 20, 600])), headers)

    def _expect(self) -> Expect:
        return Expect(self._random.choice([self._sequence(), 0]), self._random.choice(["", self._filter()]))

    def _append(self) -> tuple[str, Step]:
        message, expect = self._message(), None if self._bare else self._random.choice([None, None, self._expect()])
        return f"append {message} {expect}", lambda bus: bus.append(message, expect)

    def _batch(self) -> tuple[str, Step]:
        messages = [self._message() for _ in range(self._random.choice([2, 3, 5]))]
        expect = self._expect()
        return f"batch {messages} {expect}", lambda bus: bus.append_all(messages, expect)

    def _purge(self) -> tuple[str, Step]:
        subjects, up_to = self._filter(), self._sequence()
        return f"purge {subjects} {up_to}", lambda bus: bus.purge(self._log, subjects, up_to)

    def _last_of(self) -> tuple[str, Step]:
        subjects = self._filter()
        return f"last {subjects}", lambda bus: bus.last(self._log, subjects)

    def _read(self) -> tuple[str, Step]:
        subjects = self._filter()
        start = self._random.choice([Start(), Start(sequence=self._sequence()), Start(last_per_subject=True), Start(new=True)])
        return f"read {subjects} {start}", lambda bus: contents(bus, self._log, subjects, start)


async def contents(bus: Bus, log: str, subjects: str, start: Start) -> object:
    """Return what a reader says is pending, and what it takes."""
    reader = await bus.reader(log, "agreement", subjects, start)
    return reader.pending, [plain(message) for message in await taken(reader)]


async def answered(bus: Bus, step: Step) -> object:
    """Return what a bus answers, as something that compares."""
    try:
        answer = await step(bus)
    except Refused as refusal:
        return type(refusal), refusal.code
    return plain(answer) if isinstance(answer, Message) else answer


def plain(message: Message) -> object:
    """Return what both must say of a message."""
    return message.subject, message.body, message.sequence, message.headers.get("Nats-Msg-Id"), message.headers.get("Nats-Rollup")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", _CONFIGS)
async def test_memory_and_the_real_broker_agree(broker: Embedded, kind: str, seed: int) -> None:
    """Over a few hundred steps drawn at random, each step has the same answer."""
    real = NatsSystem(broker)
    async with real.bus() as bus, MemorySystem().bus() as memory:
        base = _CONFIGS[kind]
        config = LogConfig(
            **{**{field: getattr(base, field) for field in base.__struct_fields__}, "name": real.word, "subjects": (f"{real.word}.>",)}
        )
        await bus.provision([config])
        await memory.provision([config])
        steps = Steps(Random(f"{kind} {seed}"), config, real.word)  # to be drawn again, not to be secret
        for number in range(300):
            told, step = steps.draw()
            answer = await answered(bus, step)
            assert (number, told, answer) == (number, told, await answered(memory, step))
            steps.follow(answer)
