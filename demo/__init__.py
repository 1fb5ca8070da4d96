"""The main job on real hypervisors, to look at: `make demo`. Tooling, no part of the distribution."""
