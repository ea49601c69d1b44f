"""The log's files: the folder, the lock that lets one core in, and the marker that a log was begun here.

Nothing here opens the database file itself: closing any descriptor of it would drop SQLite's own locks
(https://sqlite.org/howtocorrupt.html, 2.2), so the lock lies in a file beside it.
"""

import fcntl
import os
from pathlib import Path

from core.errors import LogUnusable


class LogFiles:
    """Where one log lies. `claim` before anything may write; `release` at the end, or the process's end does it."""

    def __init__(self, path: Path) -> None:
        self.database = path
        self.lock = path.with_name(path.name + ".lock")
        self.marker = path.with_name(path.name + ".begun")
        self._descriptor: int | None = None

    def claim(self) -> None:
        """Makes the folder and takes the lock. Raises LogUnusable when another process has it."""
        try:
            self.database.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogUnusable(
                f"cannot write to the data folder {self.database.parent} ({error.strerror}): "
                "make it writable, or name another one in DARKROOM_DATA_DIR"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise LogUnusable(
                f"another process (id {holder}) holds the event log {self.database}: "
                "stop it first, or name another data folder in DARKROOM_DATA_DIR"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets the next one in. The lock file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def assert_present(self) -> None:
        """Raises LogUnusable when the database is gone although a log was begun here: it is never begun anew."""
        if self.marker.exists() and not self.database.exists():
            raise LogUnusable(
                f"the event log {self.database} is missing, but one was begun here: put it back from a backup, "
                f"or remove {self.marker} to begin an empty one"
            )

    def mark_begun(self) -> None:
        """Remembers, durably, that this log exists."""
        if self.marker.exists():
            return
        self.marker.write_text("A log was begun beside this file. Core refuses to begin another while it stands.\n")
        folder = os.open(self.marker.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
