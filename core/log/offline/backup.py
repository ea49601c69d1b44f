"""Back up the log beside a running core, and restore a backup. `cli` calls this.

A backup is one complete, verified and synced file, or it does not exist. A restore keeps the log that it replaces.
Killed at any moment, it leaves the old log, the new one, or a state in which core refuses to start.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import LogUnusable
from core.log.connection import READ_ERRORS, connect, connect_read_only, open_file
from core.log.erased_file import ErasedFile
from core.log.files import LogFiles, sync_file, sync_folder
from core.log.head_note import HeadNote
from core.log.offline import verify
from core.log.offline.begin import begin_epoch, note_root
from core.log.offline.erase import erase_listed
from core.log.offline.verify import Report
from core.log.startup_checks import check

PAGES_PER_STEP: Final = 1_024
"""4 MiB: a step of the copy takes a few ms. Core's appends are never blocked; the write-ahead log grows meanwhile."""

CopyProgress = Callable[[int, int], None]
"""Called after each step with the number of pages copied and the number of all pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did. `aside`: the folder of the replaced log, None if there was none. `events_left` and
    `generations_left`: how many only that log holds, None if it cannot be read.

    `erased`: how many generations the backup still held in full although they had been erased since.
    """

    report: Report
    aside: Path | None
    erased: int = 0
    events_left: int | None = 0
    generations_left: int | None = 0


def backup(source: Path, to: Path, progress: CopyProgress) -> Report:
    """Copy the log, as it is at this moment, to the new file `to`; the copy gets that name once it is verified.

    Raises LogUnusable when `to` exists or cannot be written, or when the log does not verify.
    """
    _assert_new(to)
    # The name has the process's id, so that two backups at a time do not write to the same file.
    partial = to.with_name(f"{to.name}.{os.getpid()}.partial")
    try:
        report = _copied(source, partial, progress)
        _assert_new(to)
        partial.rename(to)
        sync_folder(to.parent)
    except OSError as error:
        raise LogUnusable(f"cannot write the backup {to} ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)
    return report


def _assert_new(to: Path) -> None:
    if to.exists():
        raise LogUnusable(f"{to} exists: name a new file, backups are never overwritten")


def restore(source: Path, files: LogFiles, *, replace: bool, erased: ErasedFile | None = None) -> Restored:
    """Put a copy of the backup `source` in the log's place. The caller holds the log's lock. The generations in
    `erased` are erased in the copy before; core's next start erases those that only the public bucket's list has.

    With `replace` an existing log is moved into a folder beside it; without, it is an error. Raises LogUnusable.
    """
    if not source.is_file():
        raise LogUnusable(f"there is no backup {source}: name a file that `python -m core backup` has made")
    there = files.existing()
    if there and not replace:
        raise LogUnusable(f"there is an event log already ({there[0]}): --replace puts it aside and keeps it")
    incoming = files.database.with_name(files.database.name + ".restoring")
    aside = files.unused_folder() if there else None
    try:
        report, again = _copied(source, incoming, _no_progress), 0
        then = report
        if erased is not None:
            again = erase_listed(incoming, erased.pieces())
            then = _verified(incoming, source) if again else report
            sync_file(incoming)
            erased.doubt()
        begin_epoch(incoming, files)
        # From here to the rename, a kill may leave the marker without a database; then core refuses to start.
        files.mark_begun()
        if aside is not None:
            files.move_aside([each for each in files.existing() if each != files.marker], aside)
        incoming.rename(files.database)
        sync_folder(files.database.parent)
    except OSError as error:
        raise LogUnusable(f"cannot put the backup in its place ({error.strerror}: {error.filename})") from None
    finally:
        incoming.unlink(missing_ok=True)
    _check_in_place(files, then)
    events, generations = _only_in(aside / files.database.name, report) if aside is not None else (0, 0)
    return Restored(report=then, aside=aside, erased=again, events_left=events, generations_left=generations)


def _no_progress(_done: int, _total: int) -> None:
    pass


def _copied(source: Path, to: Path, progress: CopyProgress) -> Report:
    """A copy that is verified and synced."""
    to.unlink(missing_ok=True)
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # prompts are in it
    _copy(source, to, progress)
    report = _verified(to, source)
    sync_file(to)
    return report


def _copy(source: Path, to: Path, progress: CopyProgress) -> None:
    reading, writing = connect_read_only(source), open_file(to)
    try:
        reading.execute("BEGIN")  # a snapshot: without it each commit of core would restart the copy
        reading.execute("SELECT 1 FROM events LIMIT 1").fetchall()
        reading.backup(writing, pages=PAGES_PER_STEP, progress=lambda _, left, total: progress(total - left, total))
        reading.execute("ROLLBACK")
        writing.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, complete in itself
    except READ_ERRORS as error:
        raise LogUnusable(f"cannot copy the event log {source} ({error})") from None
    finally:
        reading.close()
        writing.close()


def _verified(path: Path, source: Path) -> Report:
    """All checks of `core verify` on a copy of `source`. Raises LogUnusable with the first problem."""
    try:
        connection = connect_read_only(path)
        try:
            report = verify.check(connection)
        finally:
            connection.close()
    except READ_ERRORS as error:
        raise LogUnusable(f"{source} cannot be read as an event log ({error})") from None
    if report.problems:
        number = len(report.problems) + report.more_problems
        raise LogUnusable(f"{source} does not verify ({number} problems): {report.problems[0]}")
    return report


def _check_in_place(files: LogFiles, report: Report) -> None:
    """Write the note of the head, and check the log in its place as a start does."""
    note = HeadNote(files.note)
    note.write(report.head.position, report.head.chain)
    note.close()
    connection = connect(files.database)
    try:
        check(connection, files)
        note_root(connection, files)
    finally:
        connection.close()


def _only_in(old: Path, report: Report) -> tuple[int | None, int | None]:
    """The number of events and generations that only the replaced log holds."""
    if not old.exists():
        return None, None
    query = "SELECT count(*), count(DISTINCT stream) FILTER (WHERE version = 1) FROM events WHERE position > ?"
    try:
        connection = connect_read_only(old)
        try:
            events, generations = connection.execute(query, (report.head.position,)).fetchone()
        finally:
            connection.close()
    except READ_ERRORS:
        return None, None
    return int(events), int(generations)
