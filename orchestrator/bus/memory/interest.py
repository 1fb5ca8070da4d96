"""Who listens to what: the broker's index of subscriptions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import count

from orchestrator.bus.memory.pattern import head, heads, takes
from orchestrator.bus.memory.wire import MemoryLink
from orchestrator.bus.port import Message


class Interest:
    """One subscription of one bus; of those with the same `queue` only one gets a message."""

    def __init__(self, number: int, link: MemoryLink, subjects: str, queue: str, deliver: Callable[[Message], None]) -> None:
        self.number = number
        self.link = link
        self.subjects = subjects
        self.queue = queue
        self._deliver = deliver

    def tell(self, message: Message) -> None:
        """Send a message to the subscriber, if it is connected."""
        if self.link.wire is not None:
            self.link.wire.bring(message, self._deliver)


class Interests:
    """All subscriptions, found by the literal beginning of their filters."""

    def __init__(self) -> None:
        self._numbers = count()
        self._by_head: defaultdict[str, list[Interest]] = defaultdict(list)
        self._turns: defaultdict[str, int] = defaultdict(int)

    def add(self, link: MemoryLink, subjects: str, queue: str, deliver: Callable[[Message], None]) -> Interest:
        """Take in a subscription."""
        interest = Interest(next(self._numbers), link, subjects, queue, deliver)
        self._by_head[head(subjects)].append(interest)
        return interest

    def remove(self, interest: Interest) -> None:
        """Forget a subscription."""
        place = head(interest.subjects)
        self._by_head[place].remove(interest)
        if not self._by_head[place]:
            del self._by_head[place]

    def tell(self, message: Message) -> bool:
        """Send a message to all who listen and are connected, queue groups in turn; tell whether there was anybody."""
        found = [
            interest
            for place in heads(message.subject)
            for interest in self._by_head.get(place, ())
            if interest.link.connected and takes(interest.subjects, message.subject)
        ]
        groups: defaultdict[str, list[Interest]] = defaultdict(list)
        for interest in sorted(found, key=lambda each: each.number):
            if interest.queue:
                groups[interest.queue].append(interest)
            else:
                interest.tell(message)
        for queue, members in groups.items():
            members[self._turns[queue] % len(members)].tell(message)
            self._turns[queue] += 1
        return bool(found)
