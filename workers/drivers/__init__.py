"""Hypervisors behind one port."""
