"""A long, random and hostile run of the whole installation, and the audit of what it left: `python -m tests.torture`."""
