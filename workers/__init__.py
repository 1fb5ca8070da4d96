"""The side that does: a worker runs commands against its hypervisors and tells what happens there."""
