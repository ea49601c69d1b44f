"""The log on a real SQLite: what survives a kill, a cancelled caller, a full disk, a second process, a lost file."""

import asyncio
import importlib.metadata
import os
import signal
import sqlite3 as interpreters_sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import events as e
from core import sqlite_open
from core.errors import LogBroken, LogFull, LogUnusable, VersionConflict
from core.events import Event
from core.sqlite_base import assert_version, connect, connect_read_only, sqlite3, translated
from core.sqlite_check import check
from core.sqlite_log import SqliteLog, _run
from infra.retry import Retryable
from tests.core_events import dispatched, prompt_row, requested, submission, transaction
from tests.eventually import eventually

# ruff: noqa: ASYNC240  (the tests' own small files)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "core" / "log.sqlite3"


def positions(path: Path) -> list[int]:
    connection = connect_read_only(path)
    try:
        return [position for (position,) in connection.execute("SELECT position FROM events ORDER BY position")]
    finally:
        connection.close()


def problems(path: Path) -> list[str]:
    """What verify finds, save that these tests' prompts are not those of their HMACs."""
    connection = connect_read_only(path)
    try:
        return [line for line in check(connection).problems if "prompt" not in line]
    finally:
        connection.close()


@contextmanager
def appender(path: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.integration.appender", str(path), *argv]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def acked(process: subprocess.Popen[str]) -> Iterator[int]:
    assert process.stdout is not None
    for line in process.stdout:
        word, *number = line.split()
        if word == "acked":
            yield int(number[0])


@pytest.mark.parametrize("kill_after", [1, 7, 60])
def test_what_was_acknowledged_survives_a_kill(path: Path, kill_after: int) -> None:
    with appender(path) as process:
        last = 0
        for last in acked(process):
            if last == kill_after:
                process.kill()
        assert process.wait() == -signal.SIGKILL
    found = positions(path)
    assert found == list(range(1, len(found) + 1))
    assert last * 3 <= len(found) <= (last + 2) * 3, "the one under way may be there too; its line may be lost"
    assert len(found) % 3 == 0, "half a transaction"
    assert problems(path) == []
    asyncio.run(append_one(path))
    assert len(positions(path)) == len(found) + 1


@pytest.mark.parametrize(("failpoint", "stored"), [("core.before_commit", 4), ("core.after_commit", 5)])
def test_a_kill_around_the_fifth_commit(path: Path, failpoint: str, stored: int) -> None:
    with appender(path, failpoint, "5") as process:
        assert list(acked(process))[-1] == 4
        assert process.wait() == -signal.SIGKILL
    assert len(positions(path)) == stored * 3
    assert problems(path) == []


async def append_one(path: Path) -> None:
    async with SqliteLog(path) as log:
        await log.append(submission("gen_after"))


@pytest.mark.asyncio
async def test_a_cancelled_caller_leaves_nothing_half_done(path: Path) -> None:
    there, go_on = threading.Event(), threading.Event()

    def reach(name: str) -> None:
        if name == "core.before_commit":
            there.set()
            assert go_on.wait(10)

    async with SqliteLog(path, reach=reach) as log:
        task = asyncio.create_task(log.append(submission("gen_1")), name="append")
        await eventually(there.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await log.append(submission("gen_2"))
        assert [len(await log.stream(each)) for each in ("gen_1", "gen_2")] == [1, 1]
    assert problems(path) == []


@pytest.mark.asyncio
async def test_a_full_disk_writes_nothing_and_heals_by_itself(path: Path) -> None:
    async with SqliteLog(path) as log:
        await log.append(submission("gen_0"))
        await _run(log._writing, lambda c: c.execute("PRAGMA max_page_count = 40"))
        number, full = 0, False
        while not full:
            number += 1
            assert number < 1_000
            try:
                await log.append(submission(f"gen_{number}", key=f"k{number}"))
            except LogFull:
                full = True
        assert await log.stream(f"gen_{number}") == []
        assert await log.prompts([f"gen_{number}"]) == {}
        assert len(await log.stream(f"gen_{number - 1}")) == 1
        with pytest.raises(LogFull):
            await log.append(submission(f"gen_{number}", key=f"k{number}"))
        await _run(log._writing, lambda c: c.execute("PRAGMA max_page_count = 100000"))
        await log.append(submission(f"gen_{number}", key=f"k{number}"))
    assert len(positions(path)) == number + 1
    assert problems(path) == []


@pytest.mark.asyncio
async def test_a_foreign_write_lock_is_retryable_and_nothing_is_written(path: Path) -> None:
    async with SqliteLog(path) as log:
        await _run(log._writing, lambda c: c.execute("PRAGMA busy_timeout = 50"))
        holder = connect(path)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Retryable, match="another process"):
            await log.append(submission("gen_1"))
        assert await log.stream("gen_1") == []
        holder.execute("ROLLBACK")
        holder.close()
        await log.append(submission("gen_1"))
        assert len(await log.stream("gen_1")) == 1


@pytest.mark.asyncio
async def test_an_event_by_another_hand_stops_the_writer(path: Path) -> None:
    async with SqliteLog(path) as log:
        await log.append(submission("gen_1"))
        other = connect(path)
        other.execute("INSERT INTO events SELECT 2, 'gen_x', 1, type, 1, 1, data, chain FROM events")
        other.close()
        with pytest.raises(VersionConflict):
            await log.append(submission("gen_2"))
        assert await log.rows(["gen_2"]) == {}


@pytest.mark.asyncio
async def test_after_a_commit_of_unknown_outcome_nothing_more_is_written(path: Path) -> None:
    fail = False

    def reach(name: str) -> None:
        if fail and name == "core.before_commit":
            raise sqlite3.OperationalError("disk I/O error")

    async with SqliteLog(path, reach=reach) as log:
        await log.append(submission("gen_1"))
        fail = True
        with pytest.raises(LogBroken, match="disk I/O error"):
            await log.append(submission("gen_2"))
        fail = False
        with pytest.raises(LogBroken, match="disk I/O error"):
            await log.append(submission("gen_2"))
        with pytest.raises(LogBroken):
            await log.save_running_ms(1)
    assert positions(path) == [1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_FULL", LogFull),
        ("SQLITE_BUSY", Retryable),
        ("SQLITE_BUSY_SNAPSHOT", Retryable),
        ("SQLITE_LOCKED", Retryable),
        ("SQLITE_IOERR", LogBroken),
        ("SQLITE_IOERR_FSYNC", LogBroken),
        ("SQLITE_CORRUPT", LogBroken),
        ("SQLITE_READONLY", LogBroken),
        ("SQLITE_CONSTRAINT", LogBroken),
        (None, LogBroken),
    ],
)
def test_what_an_error_of_sqlite_means(name: str | None, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("something")
    if name is not None:
        error.sqlite_errorname = name
    assert type(translated(error)) is kind


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
    monkeypatch.setattr(sqlite_open, "CHECKED_WHOLE_BYTES", 0)
    async with SqliteLog(path) as log:
        for number in range(sqlite_open.CHECKED_EVENTS + 3):
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
    with pytest.raises(LogUnusable, match=r"cannot write to the data folder .* DARKROOM_DATA_DIR") as caught:
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
    "statement",
    [
        "UPDATE events SET at_ms = 0",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT 1, 'gen_x', 1, type, 1, 1, data, chain FROM events",
    ],
)
@pytest.mark.asyncio
async def test_events_never_change_or_go(path: Path, statement: str) -> None:
    async with SqliteLog(path) as log:
        await log.append(submission("gen_1"))
        with pytest.raises(LogBroken, match="events are never"):
            await _run(log._writing, lambda connection: connection.execute(statement))


def setting(name: str) -> Callable[["sqlite3.Connection"], object]:
    return lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.asyncio
async def test_the_settings_that_durability_rests_on_are_in_force(path: Path) -> None:
    async with SqliteLog(path) as log:
        wanted = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "recursive_triggers": 1}
        for name, value in wanted.items():
            assert await _run(log._writing, setting(name)) == value, name
        with pytest.raises(LogBroken, match="readonly"):
            await _run(log._reading, lambda connection: connection.execute("DELETE FROM keys"))


@pytest.mark.asyncio
async def test_an_erased_prompt_is_in_no_file_any_more(path: Path) -> None:
    words = "a secret wish of somebody"

    def found() -> bool:
        return any(words.encode() in each.read_bytes() for each in path.parent.iterdir())

    events: list[Event] = [requested(), e.GenerationCancelled(), e.GenerationErased()]
    async with SqliteLog(path) as log:
        await log.append(transaction("gen_1", events[:2], prompts=[prompt_row("gen_1", words)]))
        assert found()
        await log.append(transaction("gen_1", events, after=2, erased=["gen_1"]))
        await log.save_running_ms(1_000)
        await log.save_running_ms(2_000)
        assert not found()


@pytest.mark.asyncio
async def test_running_time_goes_on_where_it_was_known_last(path: Path) -> None:
    async with SqliteLog(path) as log:
        assert log.running_ms == 0
        await log.save_running_ms(500)
    async with SqliteLog(path) as log:
        assert log.running_ms == 500
        await log.append(transaction("gen_1", [requested(), dispatched()]))
    async with SqliteLog(path) as log:
        assert log.running_ms == 1_000, "the newest event knows better than the last saving"


@pytest.mark.asyncio
async def test_reads_do_not_wait_for_an_append(path: Path) -> None:
    there, go_on = threading.Event(), threading.Event()

    def reach(name: str) -> None:
        if name == "core.before_commit":
            there.set()
            assert go_on.wait(10)

    async with SqliteLog(path, reach=reach) as log:
        append = asyncio.create_task(log.append(submission("gen_1")), name="append")
        await eventually(there.is_set)
        async with asyncio.timeout(5):
            assert await log.rows(["gen_1"]) == {}
        go_on.set()
        await append
        assert len(await log.rows(["gen_1"])) == 1


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


def test_the_pinned_place_where_a_whole_transaction_runs_on_aiosqlites_thread() -> None:
    assert importlib.metadata.version("aiosqlite") == "0.22.1", "read _run in core/sqlite_log.py again"
    assert vars(sys.modules["aiosqlite.core"])["sqlite3"] is sqlite3
    assert sys.modules["sqlite3"] is interpreters_sqlite3
    assert interpreters_sqlite3 is not sqlite3
