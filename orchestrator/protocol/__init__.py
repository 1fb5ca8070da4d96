"""The wire, as values: subjects, verbs, commands, results, events, records.

No I/O, no clock, no logging in here; the standard library and msgspec only.
Everything that leaves or enters a process is built and parsed in this room.
"""
