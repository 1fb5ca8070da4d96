"""The logs and buckets of one installation (PROTOCOL §2-3), as values to provision."""

from __future__ import annotations

from orchestrator.bus.port import LogConfig
from orchestrator.protocol.subject import Subjects

BUCKETS = ("nodes", "leases", "domains", "owners", "specs", "admin", "cursors")
"""The key-value buckets, by their short names."""

LEASE_S = 15.0
"""Seconds that a node's lease lives without being renewed."""

_MARKER_S = 60.0
_DUPLICATES_S = 0.1
_MIB = 1024 * 1024


def logs(
    subjects: Subjects,
    *,
    created: float,
    cmd_bytes: int = 64 * _MIB,
    run_bytes: int = 256 * _MIB,
    evt_bytes: int = 1024 * _MIB,
    evt_age_s: float = 48 * 3600.0,
) -> tuple[LogConfig, ...]:
    """Return the three logs.

    created: now, Unix seconds; sequences start at its microseconds, so that none ever comes back even if a log is lost.
    cmd_bytes, run_bytes: beyond that the log refuses. evt_bytes, evt_age_s: beyond that it forgets its oldest; at least a day.
    """
    first = int(created * 1_000_000)
    return (
        LogConfig(
            name=subjects.log_cmd,
            subjects=(subjects.cmds,),
            first_sequence=first,
            max_bytes=cmd_bytes,
            discard_new=True,
            duplicate_window_s=_DUPLICATES_S,
        ),
        LogConfig(
            name=subjects.log_run,
            subjects=(subjects.runs(),),
            first_sequence=first,
            max_bytes=run_bytes,
            discard_new=True,
            duplicate_window_s=_DUPLICATES_S,
            republish=(subjects.runs(), subjects.delivery(subjects.runs())),
        ),
        LogConfig(
            name=subjects.log_evt,
            subjects=(subjects.events,),
            first_sequence=first,
            max_age_s=evt_age_s,
            max_bytes=evt_bytes,
        ),
    )


def buckets(subjects: Subjects, *, lease_s: float = LEASE_S) -> tuple[LogConfig, ...]:
    """Return the buckets: logs that keep one message a key, as any NATS key-value client knows them (ADR-8)."""
    return tuple(bucket(subjects.bucket(name), max_age_s=lease_s if name == "leases" else 0.0) for name in BUCKETS)


def bucket(name: str, *, max_age_s: float = 0.0) -> LogConfig:
    """Return one bucket; `max_age_s` > 0: keys run out so long after they were last set."""
    return LogConfig(
        name=bucket_log(name),
        subjects=(f"$KV.{name}.>",),
        max_age_s=max_age_s,
        discard_new=True,
        duplicate_window_s=min(120.0, max_age_s or 120.0),
        max_per_subject=1,
        markers_s=_MARKER_S,
        atomic=False,
    )


def bucket_log(name: str) -> str:
    """Return the name of the log in which a bucket is kept."""
    return f"KV_{name}"
