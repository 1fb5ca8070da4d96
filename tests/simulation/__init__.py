"""The whole system in one process and in virtual time, under faults that a seed chooses: the same seed does the same again.

    python -m tests.simulation --seeds 1:200       # these seeds
    python -m tests.simulation --seconds 600       # as many as fit
    python -m tests.simulation --seed 42 --trace   # one again, with all that happened in it

`plan` says what a seed does, `world` lets it happen on `stage`, `witness` sees all of it, `laws` judge what was seen.
"""
