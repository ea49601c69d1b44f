"""The log's files: the folder, the lock that lets one core in, the marker that a log was begun here, its head's note.

Nothing here opens the database file itself: closing any descriptor of it would drop SQLite's own locks
(https://sqlite.org/howtocorrupt.html, 2.2), so the lock lies in a file beside it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from core.errors import LogBroken, LogUnusable

PUT_BACK: Final = (
    "put its folder back or mount its volume; or put it back from a backup with `python -m core restore FILE`; "
    "or, to begin an empty history on purpose, run `python -m core init`. "
    "docs/runbook.md, When the log's folder is gone, older, or another one"
)


class LogFiles:
    """Where one log lies; `root_note` is the note of it outside its folder.

    `claim` before anything may write; `release` at the end, or the process's end does it.
    """

    def __init__(self, path: Path, root_note: Path | None = None) -> None:
        self.database = path
        self.root_note = root_note
        self.lock = path.with_name(path.name + ".lock")
        self.marker = path.with_name(path.name + ".begun")
        self.wal = path.with_name(path.name + "-wal")
        self.note = path.with_name(path.name + ".head")
        self._descriptor: int | None = None
        self._open: list[tuple[Path, int]] = []

    def claim(self) -> None:
        """Makes the folder and takes the lock. Raises LogUnusable when another process has it."""
        with self._writable():
            make_folder(self.database.parent)
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise LogUnusable(
                f"another process (id {holder}) holds the event log {self.database}: "
                "stop it first, or name another data folder in DARKROOM_DATA_DIR"
            ) from None
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: the next one's message names nobody
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets the next one in. The lock file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def absent(self) -> bool:
        """Whether there is no database, or one without a byte."""
        return not self.database.exists() or not self.database.stat().st_size

    def assert_present(self) -> None:
        """Raises LogUnusable when the database is gone although a log was begun here: no other is begun in its place.

        SQLite would delete a `-wal` file that it finds beside an empty database, and what that held with it.
        """
        wal = self.wal.exists() and self.wal.stat().st_size > 0
        traces = [each for each in (self.root_note, self.marker, self.note) if each and each.exists()]
        traces += [self.wal] * wal
        if traces and self.absent:
            raise LogUnusable(
                f"the event log {self.database} is {'empty' if self.database.exists() else 'missing'}, but one was "
                f"begun here ({', '.join(map(str, traces))}): {PUT_BACK}"
            )

    def make_private(self) -> None:
        """Begins the database's file, if it is not there, as one that nobody else may read: it will hold prompts."""
        with self._writable(), suppress(FileExistsError):
            os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def mark_begun(self) -> None:
        """Remembers, durably, that this log exists."""
        if self.marker.exists():
            return
        with self._writable():
            self.marker.write_text("A log was begun beside this file. Core refuses to begin another while it stands.\n")
            sync_folder(self.marker.parent)

    def watch(self) -> None:
        """Remembers which files are open now, for `assert_in_place`."""
        self._open = [(path, path.stat().st_ino) for path in (self.database, self.wal)]

    def assert_in_place(self) -> None:
        """Raises LogBroken when an open file was deleted, moved or replaced: what went into it would be found by
        nobody, and SQLite does not look. Asked before each commit; costs some 5 µs.
        """
        for path, inode in self._open:
            try:
                found = path.stat().st_ino
            except FileNotFoundError:
                found = 0
            if found != inode:
                raise LogBroken(f"{path} was deleted, moved or replaced while core had it open")

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LogUnusable(
                f"cannot write to the data folder {self.database.parent} ({error.strerror}): "
                "make it writable, free the disk, or name another one in DARKROOM_DATA_DIR"
            ) from None


def make_folder(folder: Path) -> None:
    """Makes it and those above it, durably: a power cut must not take the folder from around a synced log."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
