"""Others at a real core's log: a second core, a writer, a reader that does not end; and a loop that stands still."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from gateway.access.keys import KeyFile
from tests.api import Answer, fetch
from tests.eventually import Hopeless, until
from tests.process import Process, free_port, module
from tests.stack import EMULATED
from tests.storage.blocked_core import BLOCKED_S
from tests.storage.core_alone import TENANT, CoreAlone, streams

pytestmark = pytest.mark.timeout(400)


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
    """503 with the time to come again, unready, nothing written by halves; ready again by itself once the other has
    gone, and the same request is then accepted once.
    """
    with running(CoreAlone(tmp_path)) as core, gateway(core, tmp_path) as ask:
        assert asyncio.run(core.load(2))
        before = streams(core.log_file)
        holder = sqlite.connect(core.log_file, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert asyncio.run(core.load(1))
        assert len(core.told.refused) == 1
        until(core.log_trouble, what="core says that it is not ready")
        answer = ask()
        answer.problem(503)
        assert int(answer.headers["retry-after"]) >= 1
        core.check()
        assert streams(core.log_file) == before
        holder.execute("ROLLBACK")
        holder.close()
        until(lambda: not core.log_trouble(), what="core is ready again by itself")
        assert asyncio.run(core.load(2))
        assert len(core.told.accepted) == 4
        ids = {ask().json()["id"] for _ in range(2)}
        assert set(streams(core.log_file)) == ids | set(core.told.accepted)


@contextmanager
def gateway(core: CoreAlone, folder: Path) -> Iterator[Callable[[], Answer]]:
    """A real gateway before the core; what is yielded posts one submission, always with the same key."""
    (folder / "models.toml").write_text(EMULATED)
    port, admin_port = free_port(), free_port()
    env = core.process.env | {
        "DARKROOM_MODELS_FILE": str(folder / "models.toml"),
        "DARKROOM_GATEWAY_PORT": str(port),
        "DARKROOM_GATEWAY_ADMIN_PORT": str(admin_port),
        "DARKROOM_CORE_TARGET": f"127.0.0.1:{core.port}",
    }
    key = KeyFile(core.data / "gateway" / "keys.json").create(TENANT, now_ms=1)
    process = Process("gateway", module("gateway"), env, folder)
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "once", "Content-Type": "application/json"}
    body = b'{"prompt": "a red circle", "model": "quick"}'

    def answers() -> bool:
        if not process.alive:
            raise Hopeless(process.tail())
        with suppress(OSError):
            return fetch("127.0.0.1", port, "GET", "/readyz", None, {}, 5).status == 200
        return False

    process.start()
    try:
        until(answers, 40, what=f"the gateway is ready\n{process.tail()}")
        yield lambda: fetch("127.0.0.1", port, "POST", "/v1/generations", body, headers, 30)
        process.stop()
    finally:
        process.kill()


READER = """
import signal, sys
from pysqlite3 import dbapi2 as sqlite
connection = sqlite.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM events").fetchall()
print("reads", flush=True)
signal.pause()
"""


def test_row_26_a_reader_that_does_not_end_is_named_and_cannot_fill_the_disk(tmp_path: Path) -> None:
    """The write-ahead log grows to its limit and no further; once the reader has gone it is folded up."""
    limit = 1024**2
    with running(CoreAlone(tmp_path, DARKROOM_CORE_WAL_LIMIT_BYTES=str(limit))) as core:
        assert asyncio.run(core.load(2))
        reader = Process("reader", [sys.executable, "-c", READER, str(core.log_file)], {}, tmp_path)
        reader.start()
        until(lambda: "reads" in reader.output(), what=f"it reads\n{reader.tail()}")
        wal = core.log_file.with_name(core.log_file.name + "-wal")
        while not core.told.refused:
            assert asyncio.run(core.load(5))
            assert wal.stat().st_size < 2 * limit, "it grows without end"
        assert wal.stat().st_size >= limit
        until(core.log_trouble, what="core says that it is not ready")
        assert "held by a reader" in core.get("/readyz")[1]
        assert '"log.wal_grown"' in core.process.output(), "nobody was warned"
        assert gauge(core, "darkroom_core_log_wal_bytes") >= limit
        reader.kill()
        until(lambda: not core.log_trouble(), what="core is ready again by itself")
        assert asyncio.run(core.load(2))
        until(lambda: wal.stat().st_size == 0, what="it is folded up")


def gauge(core: CoreAlone, name: str) -> float:
    lines = [line.split() for line in core.get("/metrics")[1].splitlines()]
    return next(float(words[1]) for words in lines if words[0] == name)
