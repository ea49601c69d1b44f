"""Counts what core's log holds, from outside, after core has ended."""

from pathlib import Path

from pysqlite3 import dbapi2 as sqlite3


def requested(log: Path) -> int:
    """How many generations the log at this path holds. Only for a log that no process has open."""
    connection = sqlite3.connect(f"file:{log}?mode=ro", uri=True)
    try:
        query = "SELECT count(*) FROM events WHERE type = 'generation.requested'"
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()
