"""Begins a history on purpose: an empty log (`python -m core init`), or the next epoch of a restored one.

`core.log.offline.cli` and `backup` call this, under the log's lock. Both leave a log that takes over the public note.
"""

from dataclasses import replace
from pathlib import Path

from core.domain.provenance import Claim, Provenance
from core.errors import LogUnusable
from core.log import identity, root_note
from core.log.connection import connect, open_file, sqlite3
from core.log.files import LogFiles, sync_file
from core.log.root_note import RootNote
from core.log.startup_checks import has_tables
from core.log.tables import create


def init(files: LogFiles) -> tuple[Provenance, Path | None]:
    """Begin an empty log where there is none, despite any traces of an earlier one. Returns its provenance and the
    folder into which the remains were moved (None: there were none). Raises LogUnusable when there is a log.
    """
    if not files.absent and has_tables(files):
        raise LogUnusable(
            f"there is an event log already ({files.database}): core starts with it. To begin an empty one in its "
            f"place, move the folder {files.database.parent} to where it is kept, and run this again"
        )
    left = files.existing()
    aside = files.unused_folder() if left else None
    if aside is not None:
        files.move_aside(left, aside)
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
    """Give `database`, which is about to become the log in `files`, an epoch after all known ones, and sync it."""
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
    sync_file(database)


def note_root(connection: "sqlite3.Connection", files: LogFiles) -> None:
    """Make the note in the data folder name this log."""
    of = identity.read(connection)
    assert of is not None  # noqa: S101  (the log was made or prepared here)
    note = RootNote(files.root_note)
    note.begin(identity.note(connection, of))
    note.close()
