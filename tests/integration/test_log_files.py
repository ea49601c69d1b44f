"""The log's files: begun in private and said so, gone from under a core, written by another release, left unfolded."""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.errors import LogBroken, LogUnusable
from core.log.append import LogWriter
from core.log.codec import VERSION
from core.log.connection import connect, connect_read_only, sqlite3
from core.log.files import LogFiles
from core.log.hash_chain import link
from core.log.offline.verify import check
from core.log.sqlite_log import SqliteLog
from schema.envelope import Envelope, seal
from tests.core_events import submission
from tests.integration.test_core_offline import BEGUN, WHOLE, story


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "core" / "log.sqlite3"


async def opens(path: Path) -> None:
    async with SqliteLog(path):
        pass


async def append_one(path: Path) -> None:
    async with SqliteLog(path) as log:
        await log.append(story("gen_1", WHOLE))


def test_a_log_is_begun_once_with_a_warning_and_for_nobody_else_to_read(path: Path) -> None:
    """A data folder that is not mounted must not pass for a new installation."""
    with capture_logs() as said:
        asyncio.run(append_one(path))
    assert [(each["event"], each["log_level"], each["path"]) for each in said] == [("log.begun", "warning", str(path))]
    with capture_logs() as said:
        asyncio.run(opens(path))
    assert not said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replaced(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


@pytest.mark.parametrize(
    ("meddle", "refusal"),
    [
        (Path.unlink, "is missing, but one was begun here"),
        (lambda path: path.with_name(path.name + "-wal").unlink(), ""),
        (replaced, ""),
        (moved, ""),
    ],
    ids=["deleted", "its -wal deleted", "replaced", "folder moved"],
)
@pytest.mark.asyncio
async def test_a_log_gone_from_under_a_core_ends_it_before_it_acknowledges_more(
    path: Path, meddle: Callable[[Path], None], refusal: str
) -> None:
    async with SqliteLog(path) as log:
        await log.append(submission("gen_1"))
        meddle(path)
        for generation_id in ("gen_2", "gen_3"):
            with pytest.raises(LogBroken, match="was deleted, moved or replaced"):
                await log.append(submission(generation_id))
        with pytest.raises(LogBroken, match="was deleted, moved or replaced"):
            await log.save_running_ms(5)
    if refusal:
        with pytest.raises(LogUnusable, match=refusal):
            await opens(path)


def alter(path: Path, *statements: str, **values: object) -> None:
    connection = connect(path)
    try:
        for statement in statements:
            connection.execute(statement, values)
    finally:
        connection.close()


@pytest.mark.parametrize("version", [0, 2])
def test_a_log_of_another_version_is_refused_and_left_as_it_is(path: Path, version: int) -> None:
    asyncio.run(append_one(path))
    alter(path, f"UPDATE meta SET value = {version} WHERE key = 'schema_version'")
    before = path.read_bytes()
    with pytest.raises(LogUnusable, match=f"has version {version}, this core reads 1: install its release"):
        asyncio.run(opens(path))
    assert path.read_bytes() == before


def test_a_log_of_before_the_second_indexes_gets_them(path: Path) -> None:
    asyncio.run(append_one(path))
    alter(path, "DROP INDEX keys_whole", "DROP INDEX meta_whole", "CREATE INDEX keys_expiry ON keys (tenant)")
    asyncio.run(opens(path))
    connection = connect_read_only(path)
    with contextlib.closing(connection):
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert not check(connection).problems
    assert {"keys_whole", "meta_whole"} <= names
    assert "keys_expiry" not in names


@pytest.mark.parametrize(("kind", "version"), [("generation.requested", VERSION + 1), ("image.praised", VERSION)])
def test_an_event_of_a_later_release_is_no_damage(path: Path, kind: str, version: int) -> None:
    """The runbook of a damaged log would put an older one in its place."""
    asyncio.run(append_one(path))
    data = seal(Envelope(type=kind, version=version, payload=b"later"))
    connection = connect_read_only(path)
    with contextlib.closing(connection):
        position, chain = connection.execute("SELECT position, chain FROM events ORDER BY 1 DESC LIMIT 1").fetchone()
    row = (position + 1, "gen_9", 1, kind, 1, 1, data)
    connection = connect(path)
    with contextlib.closing(connection):
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, link(chain, row)))
    with pytest.raises(LogUnusable, match="a later release wrote it, install that one") as caught:
        asyncio.run(opens(path))
    assert "damaged" not in str(caught.value)


def test_what_hindered_the_folding_of_an_idle_log_only_delays_it(path: Path) -> None:
    """An erased prompt would else stay in the write-ahead log until the next submission."""
    asyncio.run(opens(path))
    wal = path.with_name(path.name + "-wal")
    connection = connect(path)
    connection.execute("PRAGMA busy_timeout = 0")
    with contextlib.closing(connection):
        writer = LogWriter(connection)
        writer.append(story("gen_1", [BEGUN]))
        reader = sqlite3.connect(path, isolation_level=None)
        with contextlib.closing(reader):
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchall()
            for running_ms in range(5):
                writer.save_running_ms(running_ms)
            assert wal.stat().st_size
        for running_ms in range(5, 8):
            writer.save_running_ms(running_ms)
        assert not wal.stat().st_size
        writer.save_running_ms(9)
        for running_ms in range(10, 40):
            writer.save_running_ms(running_ms)
            assert wal.stat().st_size, "once is enough: each emptying costs two syncs"


def test_a_disk_without_room_for_the_first_file_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LogFiles(path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    files.acquire()
    try:
        monkeypatch.setattr(os, "open", full)
        with pytest.raises(LogUnusable, match=r"No space left on device.*free the disk") as caught:
            files.make_private()
        assert "\n" not in str(caught.value)
    finally:
        monkeypatch.undo()
        files.release()
