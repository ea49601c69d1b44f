"""Opening the log on a real SQLite: refused for a second process, a lost, damaged or foreign file, an unsafe SQLite."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from core.errors import LogUnusable
from core.log import startup_checks
from core.log.connection import assert_version, connect
from core.log.sqlite_log import SqliteLog
from tests.core_events import submission
from tests.eventually import eventually
from tests.integration.sqlite_rig import acked, append_one, appender, positions

# ruff: noqa: ASYNC240  (the tests' own small files)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "core" / "log.sqlite3"


@pytest.mark.asyncio
async def test_a_second_process_is_refused_with_one_line(path: Path) -> None:
    async with SqliteLog(path):
        with pytest.raises(LogUnusable, match=rf"process \(id {os.getpid()}\) holds the event log"):
            async with SqliteLog(path):
                pass
    async with SqliteLog(path):
        pass


def test_a_killed_process_holds_no_lock(path: Path) -> None:
    with appender(path) as process:
        next(acked(process))
        with pytest.raises(LogUnusable, match=f"id {process.pid}"):
            asyncio.run(append_one(path))
        process.kill()
        process.wait()
    asyncio.run(append_one(path))


@pytest.mark.asyncio
async def test_a_lost_log_is_not_begun_anew(path: Path) -> None:
    await append_one(path)
    path.rename(path.with_suffix(".away"))
    for _ in range(2):
        with pytest.raises(LogUnusable, match="put it back from a backup"):
            await append_one(path)
    path.touch()
    with pytest.raises(LogUnusable, match=r"is empty.*put it back from a backup"):
        await append_one(path)
    path.with_suffix(".away").rename(path)
    async with SqliteLog(path) as log:
        assert len(await log.stream("gen_after")) == 1


@pytest.mark.asyncio
async def test_a_log_that_was_half_made_is_finished(path: Path) -> None:
    """Killed between creating the file and the first commit."""
    path.parent.mkdir(parents=True)
    path.touch()
    await append_one(path)
    assert positions(path) == [1]


@pytest.mark.parametrize("where", [b"CREATE TABLE", b"generation.requested"])
@pytest.mark.asyncio
async def test_a_damaged_log_is_refused_at_the_start(path: Path, where: bytes) -> None:
    await append_one(path)
    content = bytearray(path.read_bytes())
    content[content.rindex(where) + 4] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(LogUnusable, match=r"is damaged|cannot open"):
        await append_one(path)


@pytest.mark.asyncio
async def test_a_large_log_is_still_checked_at_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_checks, "CHECKED_WHOLE_BYTES", 0)
    async with SqliteLog(path) as log:
        for number in range(startup_checks.CHECKED_EVENTS + 3):
            await log.append(submission(f"gen_{number}"))
    await append_one(path)
    connection = connect(path)
    connection.execute("DROP TRIGGER events_never_change")
    connection.execute("UPDATE events SET at_ms = 1 WHERE position = 200")
    connection.close()
    with pytest.raises(LogUnusable, match="event 200 does not follow"):
        await append_one(path)


@pytest.mark.asyncio
async def test_a_foreign_database_and_a_later_log_are_refused(path: Path) -> None:
    path.parent.mkdir(parents=True)
    connection = connect(path)
    connection.execute("CREATE TABLE things (name TEXT)")
    connection.close()
    with pytest.raises(LogUnusable, match="not an event log of darkroom"):
        await append_one(path)
    path.unlink()
    await append_one(path)
    connection = connect(path)
    connection.execute("UPDATE meta SET value = 2 WHERE key = 'schema_version'")
    connection.close()
    with pytest.raises(LogUnusable, match="has version 2, this core reads 1"):
        await append_one(path)


@pytest.mark.asyncio
async def test_an_impossible_data_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnusable, match=r"file is no folder.* DARKROOM_DATA_DIR") as caught:
        await append_one(tmp_path / "file" / "core" / "log.sqlite3")
    assert "\n" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_failed_start_leaves_no_thread(path: Path) -> None:
    before = threading.active_count()
    path.parent.mkdir(parents=True)
    path.write_text("no database " * 1000)
    with pytest.raises(LogUnusable, match="is damaged"):
        await append_one(path)
    await eventually(lambda: threading.active_count() == before)


@pytest.mark.asyncio
async def test_a_folder_in_the_files_place_is_one_line_and_leaves_no_thread(path: Path) -> None:
    before = threading.active_count()
    path.mkdir(parents=True)
    with pytest.raises(LogUnusable, match="cannot open the event log"):
        await append_one(path)
    await eventually(lambda: threading.active_count() <= before + 1)


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 4), True),
    ],
)
def test_a_sqlite_that_can_lose_commits_is_refused(version: tuple[int, int, int], good: bool) -> None:
    if good:
        assert_version(version)
        return
    with pytest.raises(LogUnusable, match="install pysqlite3"):
        assert_version(version)
