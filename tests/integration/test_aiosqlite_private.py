"""Each private part of aiosqlite that `core.log.aiosqlite_private` uses is still there, and does what it is for."""

import asyncio
import importlib.metadata
import sqlite3 as interpreters_sqlite3
import sys
import threading
from pathlib import Path

import pytest

from core.errors import LogBroken
from core.log import aiosqlite_private
from core.log.aiosqlite_private import SqliteThread
from core.log.connection import open_file, sqlite3


def test_the_version_that_was_tested() -> None:
    assert importlib.metadata.version("aiosqlite") == aiosqlite_private.TESTED_AIOSQLITE


def test_aiosqlite_has_the_logs_sqlite_and_all_others_have_the_interpreters() -> None:
    assert vars(sys.modules["aiosqlite.core"])["sqlite3"] is sqlite3
    assert sys.modules["sqlite3"] is interpreters_sqlite3
    assert interpreters_sqlite3 is not sqlite3
    aiosqlite_private.assert_same_sqlite()


@pytest.mark.asyncio
async def test_a_function_runs_as_a_whole_on_one_thread_though_its_caller_is_cancelled(tmp_path: Path) -> None:
    thread = await SqliteThread.open(lambda: open_file(tmp_path / "a.sqlite3"))
    begun, go_on, names = threading.Event(), threading.Event(), set[str]()

    def two_statements(connection: "sqlite3.Connection") -> None:
        names.add(threading.current_thread().name)
        connection.execute("CREATE TABLE a (b INTEGER)")
        begun.set()
        assert go_on.wait(10)
        connection.execute("INSERT INTO a VALUES (1)")

    caller = asyncio.create_task(thread.run(two_statements), name="caller")
    await asyncio.to_thread(begun.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    assert await thread.run(lambda connection: connection.execute("SELECT b FROM a").fetchall()) == [(1,)]
    await thread.run(lambda _: names.add(threading.current_thread().name))
    await thread.close()
    assert len(names) == 1
    assert threading.current_thread().name not in names


@pytest.mark.asyncio
async def test_errors_of_a_function_come_translated_and_the_thread_goes_on(tmp_path: Path) -> None:
    thread = await SqliteThread.open(lambda: open_file(tmp_path / "a.sqlite3"))
    with pytest.raises(LogBroken, match="no such table"):
        await thread.run(lambda connection: connection.execute("SELECT * FROM missing"))
    with pytest.raises(LogBroken, match="not UTF-8"):
        await thread.run(lambda _: b"\xff".decode())
    assert await thread.run(lambda connection: isinstance(connection, sqlite3.Connection))
    await thread.close()


@pytest.mark.asyncio
async def test_a_connection_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(sqlite3.OperationalError):
        await SqliteThread.open(lambda: open_file(tmp_path / "no folder" / "a.sqlite3"))
    left = [each for each in threading.enumerate() if each not in before and not each.name.startswith("asyncio_")]
    assert left == []
