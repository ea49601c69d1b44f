"""The checks of a start before core uses an existing log. They block, and raise LogUnusable with the remedy."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

import core.log.connection
from core.domain.provenance import GO_ON, Provenance, refusal
from core.errors import LogUnusable
from core.log import head_note, identity, root_note
from core.log.append import LogWriter
from core.log.codec import BadEvent, LaterEvent, decode
from core.log.connection import READ_ERRORS, connect_read_only, sqlite3
from core.log.files import PUT_BACK, LogFiles
from core.log.hash_chain import CHAIN_START, follows, read_head
from core.log.head_note import HeadNote
from core.log.queries import EVENT_COLUMNS
from core.log.root_note import RootNote
from core.log.tables import assert_ours, create, read_meta

_log = structlog.get_logger()
CHECKED_PAGES_BYTES: Final = 256 * 1024 * 1024
"""Up to this size each start checks the form of every page (0.2 s per 100 MiB on one core).

A start must not take minutes; `python -m core verify` reads everything beside a running core.
"""

CHECKED_WHOLE_BYTES: Final = 128 * 1024 * 1024
"""Up to this size each start also compares the indexes with the tables and each event with the chain, so it finds a
flipped bit anywhere in the log (1.6 s per 100 MiB on one core, 0.9 of them for the chain).
"""

BEGUN_ADVICE: Final = (
    "neither the data folder nor the public bucket tells of an earlier log. If this stack has served before, both are "
    "missing: stop core, put them back, and remove this log's folder. docs/runbook.md, When the log's folder is gone"
)

RUNBOOK: Final = (
    "Keep the folder as it is, run `python -m core verify`, and put back a backup with "
    "`python -m core restore`: docs/runbook.md, When the log is damaged"
)

CHECKED_EVENTS: Final = 256
"""How many of the newest events each start checks (chain and digests), whatever the size: this finds a torn end."""

_NEEDS_WRITING: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN")
"""The errors of a read-only connection to a half-made log: only one that can write may roll its journal back."""


def set_pragmas(connection: "sqlite3.Connection", path: Path) -> None:
    """Set the pragmas, which are the first statements to read the file. Raises LogUnusable."""
    try:
        core.log.connection.set_pragmas(connection)
    except READ_ERRORS as error:
        raise LogUnusable(cannot_open(path, error)) from None


def has_tables(files: LogFiles) -> bool:
    """Whether the database has tables; a core killed early leaves a file without any. True if it cannot be read."""
    try:
        connection = connect_read_only(files.database)
        try:
            return bool(connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())
        finally:
            connection.close()
    except READ_ERRORS:
        return True


def inspect(files: LogFiles) -> bool:
    """Check a log before it is opened for writing, without changing a byte. Closing a connection that can write would
    checkpoint the write-ahead log, and what a damaged one still holds would be lost. True: the log is sound. False:
    there is no log yet, or a half made one that only a connection that can write can read.
    """
    if not files.database.exists() or not files.database.stat().st_size:
        return False
    try:
        connection = connect_read_only(files.database)
        try:
            return check(connection, files)
        finally:
            connection.close()
    except READ_ERRORS as error:
        if (getattr(error, "sqlite_errorname", None) or "").startswith(_NEEDS_WRITING):
            return False
        raise LogUnusable(cannot_open(files.database, error)) from None


def prepare(
    connection: "sqlite3.Connection",
    files: LogFiles,
    reach: Callable[[str], None],
    *,
    wal_limit_bytes: int,
    inspected: bool,
    notes: tuple[HeadNote, RootNote],
) -> LogWriter:
    """Create missing tables, check what `inspect` could not, and return a writer. Raises LogUnusable."""
    try:
        # Read before `create` gives an id to a log without one: only a log that had an id can have lost its note.
        known = not (not inspected and assert_not_lost(connection, files)) and identity.read(connection)
        if create(connection):
            _log.warning("log.begun", path=str(files.database), advice=BEGUN_ADVICE)
        if not inspected:
            check(connection, files)
        files.watch()
        writer = LogWriter(
            connection, reach, notes=notes, in_place=files.assert_in_place, wal_limit_bytes=wal_limit_bytes
        )
        files.mark_begun()
        if known and files.root_note is not None and root_note.read(files.root_note) is None:
            _log.warning("log.root_note_missing", path=str(files.root_note), log_id=known.log_id)
        notes[1].begin(identity.note(connection, provenance(connection)))
    except READ_ERRORS as error:
        raise LogUnusable(cannot_open(files.database, error)) from None
    return writer


def provenance(connection: "sqlite3.Connection") -> Provenance:
    """The provenance of a log that has been opened for writing."""
    found = identity.read(connection)
    assert found is not None  # noqa: S101  (`create` has written one)
    return found


def check(connection: "sqlite3.Connection", files: LogFiles) -> bool:
    """All checks of a start. False for an empty database where no log was begun. Raises LogUnusable."""
    if assert_not_lost(connection, files):
        return False
    assert_ours(connection)
    check_pages(connection, files.database)
    check_end(connection, files.database)
    check_head(connection, files)
    reason = misplaced(connection, files)
    if reason:
        raise LogUnusable(f"the event log {files.database} {reason}. {GO_ON}")
    return True


def assert_not_lost(connection: "sqlite3.Connection", files: LogFiles) -> bool:
    """Whether the database is empty. Raises LogUnusable when it is and a log was begun here."""
    empty = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    traces = [each for each in (files.root_note, files.marker) if each and each.exists()]
    if empty and traces:
        shown = ", ".join(map(str, traces))
        raise LogUnusable(f"the event log {files.database} is empty, but one was begun here ({shown}): {PUT_BACK}")
    return empty


def running_ms(connection: "sqlite3.Connection") -> int:
    """The latest running time in the log."""
    return max(read_meta(connection)["running_ms"], read_head(connection).running_ms)


def check_pages(connection: "sqlite3.Connection", path: Path) -> None:
    """Check the form of the pages, and the chain over all events, up to the sizes above."""
    size = connection.execute("PRAGMA page_count").fetchone()[0] * connection.execute("PRAGMA page_size").fetchone()[0]
    if size <= CHECKED_PAGES_BYTES:
        whole = size <= CHECKED_WHOLE_BYTES
        answer = connection.execute(f"PRAGMA {'integrity_check' if whole else 'quick_check'}(1)").fetchone()[0]
        if answer != "ok":
            raise LogUnusable(damaged(path, answer))
        if whole:
            check_chain(connection, path)


def check_chain(connection: "sqlite3.Connection", path: Path) -> None:
    """Compare each event with the chain, without decoding it. Raises LogUnusable."""
    chain = CHAIN_START
    events = connection.execute(f"SELECT {EVENT_COLUMNS}, chain FROM events ORDER BY position")  # noqa: S608
    for place, row in enumerate(events, 1):
        if row[0] != place or not follows(chain, row):
            raise LogUnusable(damaged(path, f"event {row[0]} does not follow the one before"))
        chain = row[7]


def check_head(connection: "sqlite3.Connection", files: LogFiles) -> None:
    """Raises LogUnusable when an acknowledged event is missing."""
    reason = lost(connection, files)
    if reason:
        raise LogUnusable(f"the event log {files.database} {reason}. {RUNBOOK}")


def lost(connection: "sqlite3.Connection", files: LogFiles) -> str:
    """Compare the log with the note of its head. Returns which acknowledged event is missing; empty for none."""
    noted = head_note.read(files.note)
    if noted is None:
        return ""
    row = connection.execute("SELECT chain FROM events WHERE position = ?", (noted.position,)).fetchone()
    if row is None:
        return (
            f"ends at {read_head(connection).position}, but event {noted.position} was acknowledged: "
            "its -wal file is lost or damaged, or an old copy lies in its place"
        )
    if row[0] != noted.chain:
        return f"is damaged (event {noted.position} is not the one that was acknowledged)"
    return ""


def misplaced(connection: "sqlite3.Connection", files: LogFiles) -> str:
    """Compare the log with the note in the data folder. Returns why it does not belong here; empty when it does."""
    noted = root_note.read(files.root_note) if files.root_note is not None else None
    if noted is None:
        return ""
    own, ends_at = identity.read(connection), read_head(connection).position
    return refusal(own, noted, ends_at, lambda position: identity.chain_at(connection, position))


def check_end(connection: "sqlite3.Connection", path: Path) -> None:
    """Check the positions, chain and digests of the newest events. Raises LogUnusable."""
    query = f"SELECT {EVENT_COLUMNS}, chain FROM events ORDER BY position DESC LIMIT ?"  # noqa: S608  (constant)
    # One row more than is checked, for the hash that the first checked row must follow.
    rows = connection.execute(query, (CHECKED_EVENTS + 1,)).fetchall()[::-1]
    if not rows:
        return
    before = CHAIN_START if rows[0][0] == 1 else None
    place = rows[0][0]
    for row in rows:
        if row[0] != place or (before is not None and not follows(before, row)):
            raise LogUnusable(damaged(path, f"event {row[0]} does not follow the one before"))
        try:
            if before is not None:
                decode(row[6])
        except LaterEvent as error:
            raise LogUnusable(f"the event log {path} cannot be read by this core: event {row[0]}: {error}") from None
        except BadEvent as error:
            raise LogUnusable(damaged(path, f"event {row[0]}: {error}")) from None
        before, place = row[7], place + 1


def cannot_open(path: Path, error: Exception) -> str:
    """The message, with the remedy, for an error of reading at the start."""
    if isinstance(error, UnicodeDecodeError):
        return damaged(path, "a text is not UTF-8")
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return damaged(path, str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"another process holds the event log {path}: stop it first"
    return (
        f"cannot open the event log {path} ({error}): make the folder and the file writable, free the disk, "
        "or name another data folder in DARKROOM_DATA_DIR"
    )


def require_place(path: Path) -> None:
    """Raises LogUnusable when the log's folder does not exist and cannot be made."""
    for there in path.parents:
        if there.is_dir():
            if not os.access(there, os.W_OK | os.X_OK):
                raise LogUnusable(cannot_open(path, PermissionError(f"{there} is not writable")))
            return
        if there.exists():
            raise LogUnusable(cannot_open(path, NotADirectoryError(f"{there} is no folder")))


def damaged(path: Path, detail: str) -> str:
    """The message, with the remedy, for a log that does not verify."""
    return f"the event log {path} is damaged ({detail}). {RUNBOOK}"
