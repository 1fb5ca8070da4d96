"""The coordinator's loops: they join the ports of bus and store with the decisions of `control`."""
