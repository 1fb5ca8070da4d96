"""What tests do with logs: provision, fill, read back."""

from __future__ import annotations

from orchestrator.bus.port import Bus, LogConfig, Message, Outgoing, Reader, Start


async def provisioned(bus: Bus, config: LogConfig) -> LogConfig:
    """Provision one log."""
    await bus.provision([config])
    return config


async def filled(bus: Bus, *subjects: str) -> list[int]:
    """Append a message on each subject, its number as body; return the sequences."""
    return [await bus.append(Outgoing(subject, str(number).encode())) for number, subject in enumerate(subjects)]


async def read(bus: Bus, log: LogConfig, subjects: str = ">", start: Start | None = None) -> list[Message]:
    """Read all that a log holds."""
    reader = await bus.reader(log.name, "contents", subjects, start or Start())
    return await taken(reader)


async def taken(reader: Reader, portion: int = 100) -> list[Message]:
    """Take all that lies ahead."""
    messages: list[Message] = []
    while portion_taken := await reader.take(portion):
        messages += portion_taken
    return messages


def bodies(messages: list[Message]) -> list[bytes]:
    """Return the bodies."""
    return [message.body for message in messages]
