"""Others at a real core's log: a second core, a writer, a reader that does not end; and a loop that stands still."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from tests.eventually import until
from tests.process import module
from tests.storage.blocked_core import BLOCKED_S
from tests.storage.core_alone import CoreAlone

pytestmark = pytest.mark.timeout(120)


@contextmanager
def running(core: CoreAlone) -> Iterator[CoreAlone]:
    """Started; at the end stopped in good order, with all that was told in its log."""
    core.start()
    try:
        yield core
        core.process.stop()
        core.check()
    finally:
        core.process.kill()


def test_row_17_a_second_core_on_the_same_log_refuses(tmp_path: Path) -> None:
    with running(CoreAlone(tmp_path)) as core:
        second = CoreAlone(tmp_path)
        second.process.log = tmp_path / "second.log"
        for _ in range(2):
            assert asyncio.run(core.load(3))
            second.launch()
            assert second.process.exit_code() == 2
            assert f"process (id {core.process.pid}) holds the event log" in second.said()
        assert len(core.told.accepted) == 6


def test_row_18_an_event_loop_that_stands_still_loses_nothing(tmp_path: Path) -> None:
    """Health does not answer meanwhile; submissions under way are answered afterwards."""
    with running(CoreAlone(tmp_path, module("tests.storage.blocked_core"))) as core:
        assert asyncio.run(core.load(2))
        core.process.signal(signal.SIGUSR1)
        until(lambda: core.get("/healthz", timeout_s=0.5)[0] == 0, BLOCKED_S, what="health does not answer")
        begun = time.monotonic()
        assert asyncio.run(core.load(2))
        assert len(core.told.accepted) == 4, core.said()
        assert time.monotonic() - begun > 0.1, "it was not blocked"
        until(core.serves, what="health answers again")


def test_row_19_another_writer_costs_an_answer_that_may_be_repeated(tmp_path: Path) -> None:
    """Refused, unready, nothing written by halves; ready again by itself once the other has gone."""
    with running(CoreAlone(tmp_path)) as core:
        assert asyncio.run(core.load(2))
        holder = sqlite.connect(core.log_file, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert asyncio.run(core.load(2))
        assert len(core.told.refused) == 2
        until(core.log_trouble, what="core says that it is not ready")
        core.check()
        holder.execute("ROLLBACK")
        holder.close()
        until(lambda: not core.log_trouble(), what="core is ready again by itself")
        assert asyncio.run(core.load(2))
        assert len(core.told.accepted) == 4


def test_row_26_a_reader_that_does_not_end_is_named_and_cannot_fill_the_disk(tmp_path: Path) -> None:
    """The write-ahead log grows to its limit and no further; once the reader has gone it is folded up."""
    limit = 1024**2
    with running(CoreAlone(tmp_path, DARKROOM_CORE_WAL_LIMIT_BYTES=str(limit))) as core:
        assert asyncio.run(core.load(2))
        reader = sqlite.connect(f"file:{core.log_file}?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()
        wal = core.log_file.with_name(core.log_file.name + "-wal")
        while not core.told.refused:
            assert asyncio.run(core.load(5))
            assert wal.stat().st_size < 2 * limit, "it grows without end"
        assert wal.stat().st_size >= limit
        until(core.log_trouble, what="core says that it is not ready")
        assert "held by a reader" in core.get("/readyz")[1]
        assert '"log.wal_grown"' in core.process.output(), "nobody was warned"
        assert gauge(core, "darkroom_core_log_wal_bytes") >= limit
        reader.execute("ROLLBACK")
        reader.close()
        until(lambda: not core.log_trouble(), what="core is ready again by itself")
        assert asyncio.run(core.load(2))
        until(lambda: wal.stat().st_size == 0, what="it is folded up")


def gauge(core: CoreAlone, name: str) -> float:
    lines = [line.split() for line in core.get("/metrics")[1].splitlines()]
    return next(float(words[1]) for words in lines if words[0] == name)
