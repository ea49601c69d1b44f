"""A log as a killed core leaves it, with much in its write-ahead log, and what becomes of altered copies of it."""

import asyncio
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.errors import LogBroken, LogUnusable
from core.log.connection import connect_read_only, sqlite3
from core.log.hash_chain import Head, read_head
from core.log.offline.verify import check
from core.log.sqlite_log import SqliteLog
from infra.retry import Retryable
from tests.storage import strace
from tests.storage.core_alone import CoreAlone, Told

NAME = "log.sqlite3"
WAL_HEADER, FRAME = 32, 24 + 4096
_TABLES = ("events", "prompts", "keys", "generations", "images", "meta")


@dataclass(frozen=True, slots=True)
class Left:
    """The files, and what clients had been told."""

    folder: Path
    told: Told
    content: dict[str, list[Any]]

    @property
    def wal(self) -> bytes:
        return (self.folder / f"{NAME}-wal").read_bytes()


def leave(folder: Path) -> Left:
    """Some work folded up in the database, more in the write-ahead log, and core killed in mid-transaction."""
    core = CoreAlone(folder)
    core.start()
    try:
        asyncio.run(core.load(30))
        core.process.stop()
        core.start()
        asyncio.run(core.load(6))
        with strace.attached(
            core.process.pid, folder / "kill", strace.injecting(strace.WRITES, "signal=SIGKILL:when=5")
        ):
            asyncio.run(core.load(20))
            core.process.died_by_kill()
    finally:
        core.process.kill()
    left = folder / "left"
    left.mkdir()
    for each in core.log_file.parent.iterdir():
        if not each.name.endswith(("-shm", ".lock")):
            shutil.copyfile(each, left / each.name)
    with altered(left, {}) as copy:
        outcome = look(copy)
    assert outcome.content is not None, outcome.refusal
    assert {row[1] for row in outcome.content["events"]} >= set(core.told.accepted)
    return Left(left, core.told, outcome.content)


class altered:  # noqa: N801  (reads as a verb)
    """A copy of the log with other bytes in some files; None: without the file."""

    def __init__(self, left: Path, changes: dict[str, bytes | None]) -> None:
        self._left, self._changes = left, changes
        quick = Path("/dev/shm")
        self._place = TemporaryDirectory(dir=quick if quick.is_dir() else None)

    def __enter__(self) -> Path:
        folder = Path(self._place.name)
        for each in self._left.iterdir():
            content = self._changes.get(each.name, each.read_bytes())
            if content is not None:
                (folder / each.name).write_bytes(content)
        return folder / NAME

    def __exit__(self, *_: object) -> None:
        self._place.cleanup()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Refused with a text; or started, with its content and what `core verify` then finds."""

    refusal: str = ""
    content: dict[str, list[Any]] | None = None
    problems: tuple[str, ...] = ()


def look(path: Path, expected: dict[str, list[Any]] | None = None) -> Outcome:
    """Open the log as core does at a start, and verify it unless its content is as expected."""
    try:
        asyncio.run(_start(path))
    except (LogUnusable, LogBroken, Retryable) as error:
        return Outcome(refusal=str(error))
    connection = connect_read_only(path)
    try:
        content = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in _TABLES}
        problems = () if content == expected else tuple(check(connection).problems)
    except sqlite3.DatabaseError as error:
        return Outcome(problems=(f"cannot be read: {error}",))
    finally:
        connection.close()
    return Outcome(content=content, problems=problems)


async def _start(path: Path) -> None:
    async with SqliteLog(path) as log:
        async for _ in log.open_streams():
            pass


def heads_of_torn_ends(left: Left, synced: int) -> Iterator[tuple[int, Head]]:
    """The log's head as SQLite recovers it, for each size of the write-ahead log from all of it down to `synced`."""
    with altered(left.folder, {}) as path:
        wal, index = path.with_name(f"{NAME}-wal"), path.with_name(f"{NAME}-shm")
        for size in range(len(left.wal), synced - 1, -1):
            os.truncate(wal, size)
            connection = connect_read_only(path)
            head = read_head(connection)
            connection.close()
            index.unlink()  # what was recovered before must not be believed
            yield size, head


def commits(wal: bytes) -> Iterator[int]:
    """Where each whole transaction ends: frames of this file's salt whose page count is set."""
    salt = wal[16:24]
    for start in range(WAL_HEADER, len(wal) - FRAME + 1, FRAME):
        _, pages = struct.unpack(">II", wal[start : start + 8])
        if wal[start + 8 : start + 16] != salt:
            return
        if pages:
            yield start + FRAME
