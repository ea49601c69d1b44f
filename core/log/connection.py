"""The SQLite library of core, the connections to the log, and the meaning of their errors.

The interpreter's SQLite may have the WAL-reset bug (https://sqlite.org/wal.html#walresetbug), so the log is opened by
pysqlite3, which brings a fixed one. Other modules import `sqlite3` from here only: two copies of SQLite in one process
must not open the same file (https://sqlite.org/howtocorrupt.html, 2.2.1).
"""

import functools
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import LogBroken, LogFull, LogUnusable, VersionConflict
from infra.retry import Retryable

if TYPE_CHECKING:
    import sqlite3
else:
    import pysqlite3 as sqlite3

__all__ = [
    "READ_ERRORS",
    "assert_version",
    "connect",
    "connect_read_only",
    "open_file",
    "set_pragmas",
    "sqlite3",
    "statements",
    "translated",
]

READ_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""The errors that a read may raise; UnicodeDecodeError for damaged text, in a row or in SQLite's own error message."""

_FIXED_IN: Final = (3, 51, 3)
_BACK_PORTS: Final = ((3, 50, 7), (3, 44, 6))


def assert_version(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> None:
    """Raises LogUnusable for a release with the WAL-reset bug: it can lose committed transactions."""
    back_port = any(version[:2] == fixed[:2] and version >= fixed for fixed in _BACK_PORTS)
    if version < _FIXED_IN and not back_port:
        found = ".".join(str(part) for part in version)
        raise LogUnusable(f"SQLite {found} can lose commits; install pysqlite3==0.6.1, which brings 3.53.4")


def connect(path: Path) -> "sqlite3.Connection":
    """A connection that may write. Transactions are begun and ended by hand; any thread may use it, one at a time."""
    connection = open_file(path)
    set_pragmas(connection)
    return connection


def open_file(path: Path) -> "sqlite3.Connection":
    """The first half of `connect`, without the pragmas, which are the first statements to read the file."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def set_pragmas(connection: "sqlite3.Connection") -> None:
    """The second half of `connect`: the pragmas. Reads the file, so it finds a damaged or locked one."""
    for statement in statements("connection"):
        connection.execute(statement)


def connect_read_only(path: Path) -> "sqlite3.Connection":
    """A connection that cannot write; works beside a running core.

    Bytes that are not UTF-8 are replaced in texts, so that the checks report damaged text instead of failing on it.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.execute("PRAGMA busy_timeout = 2000")
    return connection


@functools.cache
def statements(name: str) -> tuple[str, ...]:
    """The statements of `core/sql/{name}.sql`, in order."""
    text = resources.files("core").joinpath("sql", f"{name}.sql").read_text("utf-8")
    return tuple(_split(text))


def _split(text: str) -> Iterator[str]:
    statement = ""
    for line in text.splitlines(keepends=True):
        code = line.split("--", 1)[0].rstrip()
        if not code and not statement:
            continue
        statement += line
        if code.endswith(";") and sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


_TAKEN: Final = "UNIQUE constraint failed"  # also of primary keys; pysqlite3 gives no extended codes
_HELD: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")


def translated(error: "sqlite3.Error") -> Retryable | LogBroken | VersionConflict:
    """Core's error for a failed statement. Only a full disk, another process's lock and a taken key are certain to have
    written nothing.

    Everything else is LogBroken: after a COMMIT that failed with an I/O error, the rows may be there after reopening.
    """
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if name == "SQLITE_FULL":
        return LogFull("the disk is full")
    if name.startswith(_HELD):
        return Retryable("another process holds the event log's database")
    if name.startswith("SQLITE_CONSTRAINT") and str(error).startswith(_TAKEN):
        return VersionConflict(str(error))
    return LogBroken(f"{name}: {error}")
