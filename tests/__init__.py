"""Tests: unit (mirrors the rooms), contract (every adapter of a port), e2e (real broker, real hypervisors), bench."""
