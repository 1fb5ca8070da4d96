"""A broker and its buses in memory: what tests and simulations run on, under the laws of the real one."""

from orchestrator.bus.memory.broker import MemoryBroker
from orchestrator.bus.memory.bus import MemoryBus

__all__ = ["MemoryBroker", "MemoryBus"]
