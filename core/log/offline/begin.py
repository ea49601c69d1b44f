"""Beginning a history on purpose: an empty log (`python -m core init`), and the next epoch of one that is restored.

`core.log.offline.cli` and `backup` call this, under the log's lock. Both leave a log that takes over the public note.
"""

import os
from dataclasses import replace
from itertools import count
from pathlib import Path

from core.domain.provenance import Claim, Provenance
from core.errors import LogUnusable
from core.log import identity, root_note
from core.log.connection import connect, open_file, sqlite3
from core.log.files import LogFiles, make_folder, sync_folder
from core.log.root_note import RootNote
from core.log.startup_checks import has_tables
from core.log.tables import create


def init(files: LogFiles) -> tuple[Provenance, Path | None]:
    """An empty log where none is, whatever tells of an earlier one; what is left of that is moved into the folder
    that is returned. Raises LogUnusable when there is a log.
    """
    if not files.absent and has_tables(files):
        raise LogUnusable(
            f"there is an event log already ({files.database}): core starts with it. To begin an empty one in its "
            f"place, move the folder {files.database.parent} to where it is kept, and run this again"
        )
    aside = _put_leftovers_aside(files)
    files.make_private()
    connection = connect(files.database)
    try:
        create(connection, Claim.TAKES_OVER)
        files.mark_begun()
        note_root(connection, files)
        of = identity.read(connection)
    finally:
        connection.close()
    assert of is not None  # noqa: S101  (`create` gave it one)
    return of, aside


def begin_epoch(database: Path, files: LogFiles) -> None:
    """Give the copy `database`, which is about to become the log in `files`, the epoch after all that are known."""
    connection = open_file(database)
    try:
        own = identity.read(connection)
        if own is None:
            own = Provenance(log_id=identity.new_log_id(), epoch=0)
        noted = root_note.read(files.root_note) if files.root_note is not None else None
        known = noted.of.epoch if noted is not None and noted.of.log_id == own.log_id else 0
        connection.execute("BEGIN IMMEDIATE")
        identity.write(connection, replace(own, epoch=1 + max(own.epoch, known), claim=Claim.TAKES_OVER))
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise LogUnusable(f"cannot prepare the log {database} ({error})") from None
    finally:
        connection.close()
    descriptor = os.open(database, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def note_root(connection: "sqlite3.Connection", files: LogFiles) -> None:
    """Make the note in the data folder name this log."""
    of = identity.read(connection)
    assert of is not None  # noqa: S101  (of a log that was made or prepared here)
    note = RootNote(files.root_note)
    note.begin(identity.note(connection, of))
    note.close()


def _put_leftovers_aside(files: LogFiles) -> Path | None:
    left = [each for each in (files.database, files.wal, files.note, files.marker) if each.exists()]
    if not left:
        return None
    names = (files.database.with_name(f"{files.database.name}.replaced-{number}") for number in count(1))
    aside = next(each for each in names if not each.exists())
    make_folder(aside)
    for each in left:
        each.rename(aside / each.name)
    files.database.with_name(files.database.name + "-shm").unlink(missing_ok=True)
    sync_folder(aside)
    sync_folder(files.database.parent)
    return aside
