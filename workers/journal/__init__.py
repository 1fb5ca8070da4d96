"""What a worker remembers through a crash: command ledger, event outbox, cursor, epochs."""
