"""One SQLite connection on its own thread, through private parts of aiosqlite; no other module imports aiosqlite.

Each use below says what it is for and why no public part will do. Tested with aiosqlite 0.22.1, which pyproject.toml
pins; `tests/integration/test_aiosqlite_private.py` fails when one of these parts changes.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Final, Self, TypeVar

from core.errors import LogBroken, LogUnusable
from core.log.connection import sqlite3, translated

# aiosqlite imports the module named sqlite3 and offers no way to choose another. During its import that name resolves
# to pysqlite3, and afterwards to the interpreter's module again, which other libraries may use.
_interpreters = sys.modules.get("sqlite3")
sys.modules["sqlite3"] = sqlite3
import aiosqlite  # noqa: E402

if _interpreters is None:
    del sys.modules["sqlite3"]
else:
    sys.modules["sqlite3"] = _interpreters

TESTED_AIOSQLITE: Final = "0.22.1"

T = TypeVar("T")


def assert_same_sqlite() -> None:
    """Raises LogUnusable when aiosqlite was imported before this module, and so uses the interpreter's SQLite."""
    if getattr(aiosqlite.core, "sqlite3", None) is not sqlite3:
        raise LogUnusable("aiosqlite was imported before core.log, with another SQLite: import core first")


class SqliteThread:
    """One open connection. `run` executes functions on its thread, one after another, each as a whole."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, connector: "Callable[[], sqlite3.Connection]") -> Self:
        """Start the thread, and connect on it. Raises the sqlite3.Error of `connector`, once the thread has ended."""
        connection = aiosqlite.Connection(connector, iter_chunk_size=64)
        try:
            await connection
        except sqlite3.Error:
            # aiosqlite has asked its thread to stop and does not wait for it. The thread ends by a call into the event
            # loop, so the loop must not be closed first; no public method waits for a connection that never opened.
            await asyncio.to_thread(connection._thread.join)  # noqa: SLF001
            raise
        return cls(connection)

    async def run(self, function: "Callable[[sqlite3.Connection], T]") -> T:
        """Return the result of `function`, which runs to its end even if the caller is cancelled. SQLite's errors are
        raised as `connection.translated` maps them, and LogBroken for a text that is not UTF-8.

        aiosqlite's public methods run one statement each: a caller cancelled between two of them would leave a
        transaction open. `_execute` takes any function, and `_conn` is the connection that the function needs.
        """

        def whole() -> T:
            try:
                return function(self._connection._conn)  # noqa: SLF001
            except sqlite3.Error as error:
                raise translated(error) from error
            except UnicodeDecodeError as error:
                raise LogBroken(f"a text of the log is not UTF-8: {error.reason}") from None

        result: T = await self._connection._execute(whole)  # type: ignore[no-untyped-call]  # noqa: SLF001
        return result

    async def close(self) -> None:
        """Wait for the functions already passed to `run`, close the connection, and end the thread."""
        await self._connection.close()
