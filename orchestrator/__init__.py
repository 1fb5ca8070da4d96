"""The side that decides: protocol, bus, store, coordinator, client, command line."""
