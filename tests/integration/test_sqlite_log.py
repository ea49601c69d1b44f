"""The log on a real SQLite: what survives a kill, a cancelled caller, a full disk; what no statement may change."""

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.domain import events as e
from core.domain.events import Event
from core.errors import LogBroken, LogFull, VersionConflict
from core.log.connection import connect, sqlite3, translated
from core.log.sqlite_log import SqliteLog
from infra.retry import Retryable
from tests.core_events import dispatched, prompt_row, requested, submission, transaction
from tests.eventually import eventually
from tests.integration.sqlite_rig import acked, append_one, appender, positions, problems


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "core" / "log.sqlite3"


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
        await log._writing.run(lambda c: c.execute("PRAGMA max_page_count = 40"))
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
        await log._writing.run(lambda c: c.execute("PRAGMA max_page_count = 100000"))
        await log.append(submission(f"gen_{number}", key=f"k{number}"))
    assert len(positions(path)) == number + 1
    assert problems(path) == []


@pytest.mark.asyncio
async def test_a_foreign_write_lock_is_retryable_and_nothing_is_written(path: Path) -> None:
    async with SqliteLog(path) as log:
        await log._writing.run(lambda c: c.execute("PRAGMA busy_timeout = 50"))
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
            await log._writing.run(lambda connection: connection.execute(statement))


def setting(name: str) -> Callable[["sqlite3.Connection"], object]:
    return lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.asyncio
async def test_the_settings_that_durability_rests_on_are_in_force(path: Path) -> None:
    async with SqliteLog(path) as log:
        wanted = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "recursive_triggers": 1}
        for name, value in wanted.items():
            assert await log._writing.run(setting(name)) == value, name
        with pytest.raises(LogBroken, match="readonly"):
            await log._reading.run(lambda connection: connection.execute("DELETE FROM keys"))


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
async def test_an_erased_prompt_leaves_the_files_of_a_log_that_is_never_idle(path: Path) -> None:
    words = "a secret wish of somebody"

    def found() -> bool:
        return any(words.encode() in each.read_bytes() for each in path.parent.iterdir())

    events: list[Event] = [requested(), e.GenerationCancelled(), e.GenerationErased()]
    async with SqliteLog(path) as log:
        await log.append(transaction("gen_1", events[:2], prompts=[prompt_row("gen_1", words)]))
        await log.append(transaction("gen_1", events, after=2, erased=["gen_1"]))
        assert found()
        for number in range(4):
            await log.append(submission(f"gen_more_{number}"))
            await log.save_running_ms(1_000 * number)
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


@pytest.mark.asyncio
async def test_what_the_writer_asks_does_not_wait_for_what_others_ask(path: Path) -> None:
    there, go_on = threading.Event(), threading.Event()

    def long_question(_: "sqlite3.Connection") -> None:
        there.set()
        assert go_on.wait(10)

    async with SqliteLog(path) as log:
        await log.append(submission("gen_1", key="k"))
        other = asyncio.create_task(log._reading.run(long_question), name="other")
        await eventually(there.is_set)
        async with asyncio.timeout(5):
            assert set(await log.keys([("acme", "k")], 0)) == {("acme", "k")}
            assert list(await log.known(["gen_1", "gen_2"])) == ["gen_1"]
            assert len(await log.stream("gen_1")) == 1
        assert not other.done()
        go_on.set()
        await other


@pytest.mark.asyncio
async def test_questions_that_wait_are_bounded_also_when_nobody_waits_for_their_answers(path: Path) -> None:
    there, go_on = threading.Event(), threading.Event()

    def long_question(_: "sqlite3.Connection") -> None:
        there.set()
        assert go_on.wait(10)

    async with SqliteLog(path, max_questions=3, max_pages=2) as log:
        await log.append(submission("gen_1"))
        first = asyncio.create_task(log._reading.run(long_question), name="first")
        await eventually(there.is_set)
        asked = [asyncio.create_task(log.rows(["gen_1"]), name=f"{number}") for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Retryable, match="too many questions"):
            await log.rows(["gen_1"])
        for each in asked[:2]:
            each.cancel()
        await asyncio.wait(asked[:2])
        with pytest.raises(Retryable, match="too many questions"):
            await log.rows(["gen_1"])
        words = asyncio.create_task(log.prompts(["gen_1"]), name="words")
        page = asyncio.create_task(log.page("acme", before=0, limit=1, status=0, looks=1), name="page")
        go_on.set()
        await first
        assert list(await asked[2]) == ["gen_1"]
        assert len((await page)[0]) == 1
        assert list(await words) == ["gen_1"]


@pytest.mark.asyncio
async def test_one_tenants_crowd_of_questions_is_neither_in_front_of_anothers_nor_instead_of_it(path: Path) -> None:
    there, go_on = threading.Event(), threading.Event()

    def long_question(_: "sqlite3.Connection") -> None:
        there.set()
        assert go_on.wait(10)

    order: list[str] = []

    async def ask(asker: str, *, page: bool) -> None:
        try:
            if page:
                await log.page(asker, before=0, limit=1, status=0, looks=1)
            else:
                await log.rows(["gen_1"], asker=asker)
        except Retryable:
            asker = f"{asker} is refused"
        order.append(asker)

    async with SqliteLog(path, max_questions=20, max_pages=20) as log:
        await log.append(submission("gen_1"))
        for page in (False, True):
            there.clear()
            go_on.clear()
            first = asyncio.create_task(log._reading.run(long_question), name="first")
            await eventually(there.is_set)
            crowd = [asyncio.create_task(ask("ann", page=page), name=f"{number}") for number in range(20)]
            await asyncio.sleep(0)
            late = [asyncio.create_task(ask("bob", page=page), name=f"b{number}") for number in range(3)]
            await eventually(lambda: order.count("ann is refused") == 3)
            go_on.set()
            await asyncio.wait({first, *crowd, *late})
            served = [each for each in order if each in ("ann", "bob")]
            assert [len(served), served.count("bob")] == [20, 3]
            assert served[:9].count("bob") == 3, served
            order.clear()
