"""Checkpoints, which copy the write-ahead log into the database, and the limit on the size of that log.

SQLite's automatic checkpoint hides its errors, so it is off and `append` calls this after each commit. A reader that
never ends keeps frames from being copied, and the file would grow without bound. At a quarter of the limit an error is
logged once; at the limit nothing more is written until the reader has ended.
"""

from typing import Final

import structlog

from core.log.connection import sqlite3

_log = structlog.get_logger()
CHECKPOINT_PAGES: Final = 1_000
"""SQLite's own default: about 4 MiB."""
WAL_LIMIT_BYTES: Final = 1024 * 1024 * 1024


class WriteAheadLog:
    """The `-wal` file of the writing connection. `measure` takes about 3 µs."""

    def __init__(self, connection: "sqlite3.Connection", *, limit_bytes: int) -> None:
        self._connection = connection
        self._limit_bytes = limit_bytes
        self._page_bytes = int(connection.execute("PRAGMA page_size").fetchone()[0])
        self._frames = self._copied = 0
        self._alarmed = False

    @property
    def size_bytes(self) -> int:
        """The size of its frames. Copied ones count until the next commit, which overwrites them from the beginning."""
        return self._frames * self._page_bytes

    @property
    def due(self) -> bool:
        """Whether a checkpoint is due."""
        return self.full or self._frames - self._copied >= CHECKPOINT_PAGES

    @property
    def full(self) -> bool:
        """Whether the file has reached its limit and has uncopied frames: another commit would extend it."""
        return self.size_bytes >= self._limit_bytes and self._copied < self._frames

    def measure(self) -> None:
        """Update the sizes; copies nothing."""
        self._run("NOOP")

    def checkpoint(self, *, truncate: bool) -> None:
        """Copy the frames that no reader still needs into the database; `truncate`: all of them, and empty the file.

        Erased prompts are in the file, in older frames, until it is emptied.
        """
        self._run("TRUNCATE" if truncate else "PASSIVE")

    def _run(self, mode: str) -> None:
        # fetchall, since a statement keeps its lock until it has run to its end
        [(_, self._frames, self._copied)] = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        if self.size_bytes < self._limit_bytes // 4:
            self._alarmed = False
        elif not self._alarmed:
            self._alarmed = True
            _log.error("log.wal_grown", size_bytes=self.size_bytes, limit_bytes=self._limit_bytes)
