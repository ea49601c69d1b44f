"""What is looked at before an existing log is trusted, on the log's thread. Raises LogUnusable, with what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from core import sqlite_base
from core.codec import BadEvent, decode
from core.errors import LogUnusable
from core.sqlite_base import sqlite3
from core.sqlite_files import LogFiles
from core.sqlite_read import EVENT_COLUMNS
from core.sqlite_write import CHAIN_START, LogWriter, create, link, read_head, read_meta

CHECKED_WHOLE_BYTES: Final = 256 * 1024 * 1024
"""Up to this size every page is checked at each start (about 0.3 s per 100 MiB); beyond, only the log's end is.

A start must not take minutes, and `python -m core verify` reads everything beside a running core.
"""

CHECKED_EVENTS: Final = 256
"""Newest events whose chain and digests are checked at each start, whatever the size: a torn end is found here."""


def set_up(connection: "sqlite3.Connection", path: Path) -> None:
    """The pragmas; they are the first to read the file."""
    try:
        sqlite_base.set_up(connection)
    except sqlite3.Error as error:
        raise LogUnusable(cannot_open(path, error)) from None


def prepare(connection: "sqlite3.Connection", files: LogFiles, reach: Callable[[str], None]) -> LogWriter:
    """A writer on a database that has its tables and passed the checks."""
    path = files.database
    try:
        if files.marker.exists() and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise LogUnusable(
                f"the event log {path} is empty, but one was begun here: put it back from a backup, "
                f"or remove {files.marker} to begin an empty one"
            )
        create(connection)
        if path.stat().st_size <= CHECKED_WHOLE_BYTES:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if answer != "ok":
                raise LogUnusable(damaged(path, answer))
        check_end(connection, path)
        writer = LogWriter(connection, reach)
    except sqlite3.Error as error:
        raise LogUnusable(cannot_open(path, error)) from None
    files.mark_begun()
    return writer


def running_ms(connection: "sqlite3.Connection") -> int:
    """The latest running time that the log knows of."""
    return max(read_meta(connection)["running_ms"], read_head(connection).running_ms)


def check_end(connection: "sqlite3.Connection", path: Path) -> None:
    """Checks the newest events: places, chain, digests."""
    query = f"SELECT {EVENT_COLUMNS}, chain FROM events ORDER BY position DESC LIMIT ?"  # noqa: S608  (constant)
    rows = connection.execute(query, (CHECKED_EVENTS + 1,)).fetchall()[::-1]
    if not rows:
        return
    before = CHAIN_START if rows[0][0] == 1 else None
    place = rows[0][0]
    for row in rows:
        if row[0] != place or (before is not None and link(before, row[:7]) != row[7]):
            raise LogUnusable(damaged(path, f"event {row[0]} does not follow the one before"))
        try:
            decode(row[6])
        except BadEvent as error:
            raise LogUnusable(damaged(path, f"event {row[0]}: {error}")) from None
        before, place = row[7], place + 1


def cannot_open(path: Path, error: "sqlite3.Error") -> str:
    """What to do about an error of SQLite at the start."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return damaged(path, str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"another process holds the event log {path}: stop it first"
    return (
        f"cannot open the event log {path} ({error}): make the folder and the file writable, free the disk, "
        "or name another data folder in DARKROOM_DATA_DIR"
    )


def damaged(path: Path, detail: str) -> str:
    """What to do about a log that does not verify."""
    return f"the event log {path} is damaged ({detail}): run `python -m core verify`, and put back a backup"
