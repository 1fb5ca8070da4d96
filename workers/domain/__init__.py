"""Pure decisions about one domain: no I/O, no clock, no logging."""
