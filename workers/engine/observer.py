"""What is seen of a driver's domains, with what virtbus adds: an incarnation to what runs, and a tag where none can be kept."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from orchestrator.log import get_logger
from workers.domain.scope import Scope
from workers.drivers.port import Ability, Driver, Impossible, Missing, Rejected, Sighting, Tag

log = get_logger()


class Observer:
    """Looks at the domains of one driver. Its looks block, in threads."""

    def __init__(self, driver: Driver, incarnation: Callable[[], str], scope: Scope) -> None:
        """`incarnation` makes a new ULID. What is not in `scope` is left as it is."""
        self.driver = driver
        self.ability: Ability | None = None
        self._incarnation = incarnation
        self._scope = scope
        self._tags: Callable[[str], Tag | None] = lambda _: None

    @property
    def keeps(self) -> bool:
        """Whether domains bear what virtbus keeps in their metadata."""
        return self.ability is None or self.ability.metadata

    def recall(self, tags: Callable[[str], Tag | None]) -> None:
        """Take where the tags of domains are kept, for a hypervisor that keeps none."""
        self._tags = tags

    def look(self, uuid: str) -> Sighting | None:
        """Look at a domain. Blocks; raises `DriverError`."""
        return self._tagged(self.driver.look(uuid))

    def scan(self) -> list[Sighting]:
        """Look at all domains. Blocks; raises `DriverError`."""
        tagged = (self._tagged(sighting) for sighting in self.driver.scan())
        return [sighting for sighting in tagged if sighting is not None]

    def sight(self, uuid: str) -> Sighting | None:
        """Look at a domain, and mark a new running instance. Blocks; raises `DriverError`."""
        sighting = self.look(uuid)
        return self.marked(sighting) if sighting is not None and self.unmarked(sighting) else sighting

    def unmarked(self, sighting: Sighting) -> bool:
        """Tell whether what was seen is a running instance that bears no incarnation and can be given one."""
        return sighting.active and sighting.incarnation is None and self.keeps and self._scope.serves(sighting)

    def marked(self, sighting: Sighting) -> Sighting:
        """Give a running instance an incarnation. Blocks, as a guest that hangs does; raises `Lost`."""
        incarnation = self._incarnation()
        try:
            self.driver.mark(sighting.uuid, incarnation)
        except (Missing, Impossible, Rejected) as error:
            # It stopped meanwhile, or hangs: seen all the same, the next look tries again.
            log.info("running domain not marked", uuid=sighting.uuid, reason=str(error))
            return sighting
        return msgspec.structs.replace(sighting, incarnation=incarnation)

    def _tagged(self, sighting: Sighting | None) -> Sighting | None:
        if sighting is None or sighting.tag is not None or self.keeps:
            return sighting
        return msgspec.structs.replace(sighting, tag=self._tags(sighting.uuid))
