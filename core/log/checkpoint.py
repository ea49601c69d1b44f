"""The write-ahead log's size, and its folding up into the database (a checkpoint), seen from the writing connection.

SQLite's automatic checkpoint keeps its errors to itself, so `append` has it off and calls this after each
commit. A reader that does not end keeps frames from being folded up, and the file grows without end: at a quarter of
the limit that is said once, loudly, and at the limit nothing more is written until the reader has gone.
"""

from typing import Final

import structlog

from core.log.connection import sqlite3

_log = structlog.get_logger()
FOLD_PAGES: Final = 1_000
"""As SQLite's own default: about 4 MiB."""
WAL_LIMIT_BYTES: Final = 1024 * 1024 * 1024


class Tail:
    """The frames that are not yet in the database. `look` costs some 3 µs."""

    def __init__(self, connection: "sqlite3.Connection", *, limit_bytes: int) -> None:
        self._connection = connection
        self._limit_bytes = limit_bytes
        self._page_bytes = int(connection.execute("PRAGMA page_size").fetchone()[0])
        self._frames = self._folded = 0
        self._alarmed = False

    @property
    def size_bytes(self) -> int:
        """What the file holds; folded frames count until the file is begun anew, which the next commit does."""
        return self._frames * self._page_bytes

    @property
    def due(self) -> bool:
        """Whether it is time to fold."""
        return self.held or self._frames - self._folded >= FOLD_PAGES

    @property
    def held(self) -> bool:
        """Whether the file is at its limit and would only grow."""
        return self.size_bytes >= self._limit_bytes and self._folded < self._frames

    def look(self) -> None:
        """See how much there is."""
        self._checkpoint("NOOP")

    def fold(self, *, whole: bool) -> None:
        """Copy into the database what no reader needs as it was; `whole`: all of it, and empty the file.

        Emptying also takes erased prompts out of the file system: until then the file holds them as they were.
        """
        self._checkpoint("TRUNCATE" if whole else "PASSIVE")

    def _checkpoint(self, mode: str) -> None:
        # fetchall: a statement that is not run to its end holds a lock
        [(_, self._frames, self._folded)] = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        if self.size_bytes < self._limit_bytes // 4:
            self._alarmed = False
        elif not self._alarmed:
            self._alarmed = True
            _log.error("log.wal_grown", size_bytes=self.size_bytes, limit_bytes=self._limit_bytes)
