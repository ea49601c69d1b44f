"""The log's files: its folder, the lock against a second core, the marker that a log was begun, the note of its head.

The lock is on a file of its own beside the database. Locking the database itself would mean opening it here, and
closing any descriptor of it drops SQLite's own locks (https://sqlite.org/howtocorrupt.html, 2.2).
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

from core.errors import LogBroken, LogUnusable

PUT_BACK: Final = (
    "put its folder back or mount its volume; or put it back from a backup with `python -m core restore FILE`; "
    "or, to begin an empty history on purpose, run `python -m core init`. "
    "docs/runbook.md, When the log's folder is gone, older, or another one"
)


class LogFiles:
    """The paths of one log; `root_note` is its note outside of the log's folder.

    Call `acquire` before any write, and `release` at the end; the end of the process releases the lock too.
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

    def acquire(self) -> None:
        """Make the folder, take the lock. Raises LogUnusable if another process has it or the folder cannot be used."""
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
        with suppress(OSError):  # a full disk: then the message of a second process names no id
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back. Its file stays: if it were removed, two processes could each lock a file of that name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """`acquire`, and `release` at the end of the block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def existing(self) -> list[Path]:
        """Those of the log's files that exist."""
        return [each for each in (self.database, self.wal, self.note, self.marker) if each.exists()]

    def unused_folder(self) -> Path:
        """A name for a folder of a replaced log: the first `NAME.replaced-K` that does not exist."""
        names = (self.database.with_name(f"{self.database.name}.replaced-{number}") for number in count(1))
        return next(each for each in names if not each.exists())

    def move_aside(self, moved: Iterable[Path], folder: Path) -> None:
        """Move files of the log into a new folder, durably. The `-wal` file must be moved before another database takes
        this one's place, since SQLite would apply it to that database.
        """
        make_folder(folder)
        for each in moved:
            each.rename(folder / each.name)
        self.database.with_name(self.database.name + "-shm").unlink(missing_ok=True)
        sync_folder(folder)
        sync_folder(self.database.parent)

    @property
    def absent(self) -> bool:
        """Whether the database does not exist, or is empty."""
        return not self.database.exists() or not self.database.stat().st_size

    def assert_present(self) -> None:
        """Raises LogUnusable when the database is gone although a log was begun here; a new one must not hide the loss.

        A `-wal` file counts as a trace, since SQLite deletes one that it finds beside an empty database.
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
        """Create the database's file, if there is none, readable by its owner only: it will hold prompts."""
        with self._writable(), suppress(FileExistsError):
            os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def mark_begun(self) -> None:
        """Write the marker, durably: a log was begun here."""
        if self.marker.exists():
            return
        with self._writable():
            self.marker.write_text("A log was begun beside this file. Core refuses to begin another while it stands.\n")
            sync_folder(self.marker.parent)

    def watch(self) -> None:
        """Remember the inodes of the open files, for `assert_in_place`."""
        self._open = [(path, path.stat().st_ino) for path in (self.database, self.wal)]

    def assert_in_place(self) -> None:
        """Raises LogBroken when an open file was deleted, moved or replaced. SQLite does not notice, and later commits
        would be lost with the file. Called before each commit; takes about 5 µs.
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
    """Make a folder and its parents, durably: otherwise a power cut could remove the folder of a synced log."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
