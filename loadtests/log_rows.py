"""Counts generations in core's log from outside, over a read-only connection, also while core runs."""

from pathlib import Path

from pysqlite3 import dbapi2 as sqlite3


def requested(log: Path) -> int:
    """How many generations the log at this path holds."""
    return _count(log, "SELECT count(*) FROM events WHERE type = 'generation.requested'")


def unfinished(log: Path) -> int:
    """How many of them have no terminal event."""
    ends = "'generation.succeeded', 'generation.failed', 'generation.cancelled', 'generation.expired'"
    return requested(log) - _count(log, f"SELECT count(*) FROM events WHERE type IN ({ends})")


def _count(log: Path, query: str) -> int:
    connection = sqlite3.connect(f"file:{log}?mode=ro", uri=True)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()
