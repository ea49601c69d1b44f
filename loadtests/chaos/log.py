"""Core's event log read from outside, by connections that cannot write, row by row.

The projection's tables are read too: `core verify` compares them with the log.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2 as sqlite

ENDS = {
    "generation.succeeded": "succeeded",
    "generation.failed": "failed",
    "generation.cancelled": "cancelled",
    "generation.expired": "expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One generation's events in order: (version, type, at_ms)."""

    id: str
    events: list[tuple[int, str, int]]

    @property
    def types(self) -> list[str]:
        return [name for _, name, _ in self.events]

    @property
    def ends(self) -> list[str]:
        """Its terminal statuses: exactly one in a correct log of a quiet stack."""
        return [ENDS[name] for name in self.types if name in ENDS]


def connect(path: Path) -> Any:
    """A connection that cannot write, as a context manager that closes it."""
    return closing(sqlite.connect(f"file:{path}?mode=ro", uri=True, timeout=20))


def head(path: Path) -> tuple[int, bytes] | None:
    """Position and chain of the newest event; None if there is none, or if the log cannot be read just now."""
    try:
        with connect(path) as connection:
            row = connection.execute("SELECT position, chain FROM events ORDER BY position DESC LIMIT 1").fetchone()
    except sqlite.Error:
        return None
    return (int(row[0]), bytes(row[1])) if row else None


def chain_at(connection: Any, position: int) -> bytes | None:
    """The chain at a position, None where there is no such event."""
    row = connection.execute("SELECT chain FROM events WHERE position = ?", (position,)).fetchone()
    return bytes(row[0]) if row else None


def stories(connection: Any) -> Iterator[Story]:
    """All generations, one at a time."""
    rows = connection.execute("SELECT stream, version, type, at_ms FROM events ORDER BY stream, version")
    for stream, events in groupby(rows, key=itemgetter(0)):
        yield Story(id=stream, events=[(version, name, at_ms) for _, version, name, at_ms in events])


def images(connection: Any) -> dict[str, int]:
    """How many images each generation asked for."""
    return dict(connection.execute("SELECT id, n FROM generations"))


def published(connection: Any) -> Iterator[tuple[str, int]]:
    """Key and size of every image that is published."""
    return iter(connection.execute("SELECT public_key, size_bytes FROM images WHERE public_key <> ''"))


def unfinished(connection: Any) -> int:
    """Generations without an end."""
    marks = ", ".join("?" * len(ENDS))
    ended = f"SELECT count(*) FROM events WHERE type IN ({marks})"
    asked = "SELECT count(*) FROM events WHERE type = 'generation.requested'"
    return int(connection.execute(asked).fetchone()[0]) - int(connection.execute(ended, list(ENDS)).fetchone()[0])
