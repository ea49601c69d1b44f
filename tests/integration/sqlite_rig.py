"""A log on a real SQLite, for tests: a process that appends to it, and what its file holds."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.log.connection import connect_read_only
from core.log.offline.verify import check
from core.log.sqlite_log import SqliteLog
from tests.core_events import submission

ROOT = Path(__file__).parents[2]


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


async def append_one(path: Path) -> None:
    async with SqliteLog(path) as log:
        await log.append(submission("gen_after"))
