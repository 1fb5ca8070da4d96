"""Decisions of the coordinator as pure functions: a snapshot and a time in, values out. No I/O, no clock, no logging."""
