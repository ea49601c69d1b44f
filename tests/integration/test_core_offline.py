"""`python -m core verify | rebuild | history` on real logs: sound ones, damaged ones, and beside a running core."""

import asyncio
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from core.domain import events as e
from core.domain.events import Event
from core.domain.records import Transaction
from core.log.connection import connect, sqlite3
from core.log.offline import cli
from core.log.sqlite_log import SqliteLog
from tests.core_events import (
    attempt_failed,
    dispatched,
    prompt_row,
    published,
    rendered,
    requested,
    spec,
    started,
    transaction,
)

PROMPT = "a large red circle"
PROMPT_HMAC = hmac.digest(bytes(16), f"{PROMPT}\0".encode(), sha256)
BEGUN = requested(spec=spec(n=1), prompt_hmac=PROMPT_HMAC)
WHOLE: tuple[Event, ...] = (
    BEGUN,
    dispatched(),
    started(),
    attempt_failed(),
    dispatched(dispatch=2, solo=True),
    started(attempt_id="att_2", dispatch=2, solo=True),
    rendered(attempt_id="att_2"),
    published(),
    e.GenerationSucceeded(),
)


def story(generation_id: str, events: Sequence[Event]) -> Transaction:
    return transaction(generation_id, events, prompts=[prompt_row(generation_id, PROMPT)])


async def write(path: Path, *transactions: Transaction) -> None:
    async with SqliteLog(path) as log:
        for each in transactions:
            await log.append(each)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "core" / "log.sqlite3"
    asyncio.run(write(path, story("gen_1", WHOLE), story("gen_2", [BEGUN, dispatched()])))
    return tmp_path


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def core(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str]:
        code = cli.run([*argv, "--data-dir", str(data)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def tamper(data: Path, *statements: str) -> None:
    """Changes the file as somebody with a SQLite shell could."""
    connection = connect(data / "core" / "log.sqlite3")
    connection.execute("DROP TRIGGER events_never_change")
    connection.execute("DROP TRIGGER events_never_go")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_sound_log_verifies_and_names_its_head(core: Run) -> None:
    code, text = core("verify")
    assert code == 0, text
    assert text.startswith("ok: 11 events of 2 generations (1 open); head 11:")


def test_a_log_that_grew_proves_that_it_kept_what_it_had(core: Run, data: Path) -> None:
    head = core("verify")[1].split("head ")[1].strip()
    asyncio.run(write(data / "core" / "log.sqlite3", story("gen_3", [BEGUN])))
    code, text = core("verify", "--expect", head)
    assert (code, "12 events" in text) == (0, True)
    code, text = core("verify", "--expect", "11:" + "00" * 32)
    assert (code, "did not only grow" in text) == (1, True)
    code, text = core("verify", "--expect", "99:" + "00" * 32)
    assert (code, "ends at 12" in text) == (1, True)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE events SET at_ms = at_ms + 1 WHERE position = 3", "position 3, stream gen_1: the chain does not fit"),
        ("UPDATE events SET data = CAST(data || x'00' AS BLOB) WHERE position = 3", "event 3 of gen_1: says"),
        ("UPDATE events SET type = 'image.started' WHERE position = 2", "event 2 of gen_1: says 'image.started'"),
        ("DELETE FROM events WHERE position = 5", "position 6, stream gen_1: follows position 4"),
        ("DELETE FROM events WHERE position = 5", "version 6 where 5 belongs"),
        ("UPDATE generations SET status = 1 WHERE id = 'gen_1'", "stream gen_1: the projection differs"),
        ("UPDATE images SET sha256 = x'00' WHERE generation_id = 'gen_1'", "stream gen_1: the projection differs"),
        ("UPDATE generations SET position = 77 WHERE id = 'gen_2'", "first event at 77 instead of 10"),
        ("DELETE FROM images WHERE generation_id = 'gen_2'", "stream gen_2: the projection differs"),
        ("DELETE FROM prompts WHERE generation_id = 'gen_2'", "stream gen_2: its prompt is missing"),
        ("UPDATE prompts SET prompt = 'another'", "stream gen_1: its prompt is not the one that was accepted"),
        ("INSERT INTO prompts VALUES ('gen_9', x'00', 'a', '')", "stream gen_9: has a row in prompts and no event"),
    ],
)
def test_tampering_is_found_and_placed(core: Run, data: Path, statement: str, complaint: str) -> None:
    tamper(data, statement)
    code, text = core("verify")
    assert code == 1
    assert complaint in text


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([dispatched()], "image.dispatched comes before generation.requested"),
        ([BEGUN, BEGUN], "generation.requested comes a second time"),
        ([BEGUN, dispatched(), started(), published()], "image.published comes without image.rendered before it"),
        ([*WHOLE[:8], published()], "image.published comes without image.rendered before it"),
        ([BEGUN, e.GenerationCancelled(), dispatched()], "image.dispatched comes after the end"),
        ([BEGUN, e.GenerationSucceeded()], "generation.succeeded comes while an image is not published"),
        ([BEGUN, e.GenerationFailed(detail="x")], "generation.failed comes while no image has failed"),
        ([*WHOLE[:7], e.GenerationCancelled()], "generation.cancelled comes although every image is decided"),
        ([BEGUN, e.GenerationErased()], "generation.erased comes before the end"),
        ([BEGUN, dispatched(index=3)], "image.dispatched is of image 3 of 1"),
    ],
)
def test_a_broken_story_is_found(core: Run, data: Path, events: list[Event], complaint: str) -> None:
    rows = story("gen_9", [BEGUN]).rows
    whole = transaction("gen_9", [BEGUN, *[dispatched()] * (len(events) - 1)], prompts=[prompt_row("gen_9", PROMPT)])
    entries = [replace(entry, event=event) for entry, event in zip(whole.entries, events, strict=True)]
    asyncio.run(write(data / "core" / "log.sqlite3", replace(whole, entries=entries, rows=rows)))
    code, text = core("verify")
    assert code == 1
    assert f"stream gen_9: {complaint}" in text


def test_a_flipped_bit_is_found(core: Run, data: Path) -> None:
    path = data / "core" / "log.sqlite3"
    content = bytearray(path.read_bytes())
    place = content.index(b"att_2")
    content[place] ^= 1
    path.write_bytes(content)
    code, text = core("verify")
    assert code == 1
    assert "gen_1" in text


def content(data: Path) -> list[tuple[object, ...]]:
    connection = connect(data / "core" / "log.sqlite3")
    try:
        tables = ("generations", "images")
        rows: list[tuple[object, ...]] = [
            row for table in tables for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
        ]
        return rows + connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    finally:
        connection.close()


def test_rebuilding_a_sound_projection_changes_no_byte(core: Run, data: Path) -> None:
    before = content(data)
    assert core("rebuild") == (0, "rebuilt 2 generations and 2 images from 11 events; 0 rows differed\n")
    assert content(data) == before
    assert core("verify")[0] == 0


def test_rebuilding_mends_a_projection(core: Run, data: Path) -> None:
    before = content(data)
    connection = connect(data / "core" / "log.sqlite3")
    connection.execute("UPDATE generations SET status = 1, detail = 'x' WHERE id = 'gen_1'")
    connection.execute("DELETE FROM images WHERE generation_id = 'gen_2'")
    connection.close()
    assert core("verify")[0] == 1
    assert core("rebuild") == (0, "rebuilt 2 generations and 2 images from 11 events; 3 rows differed\n")
    assert content(data) == before
    assert core("verify")[0] == 0


def test_a_damaged_log_is_not_rebuilt(core: Run, data: Path) -> None:
    tamper(data, "UPDATE events SET data = x'00' WHERE position = 4")
    before = content(data)
    code, text = core("rebuild")
    assert code == 1
    assert "event 4 of gen_1" in text
    assert content(data) == before


def test_beside_a_running_core_one_may_look_but_not_rebuild(core: Run, data: Path) -> None:
    async def beside() -> None:
        async with SqliteLog(data / "core" / "log.sqlite3") as log:
            await log.append(story("gen_3", [BEGUN]))
            assert core("verify")[1].startswith("ok: 12 events of 3 generations (2 open)")
            assert core("history", "gen_3")[0] == 0
            code, text = core("rebuild")
            assert (code, "holds the event log" in text) == (2, True)
            await log.append(story("gen_4", [BEGUN]))

    asyncio.run(beside())
    assert core("verify")[0] == 0


def test_a_history_tells_everything_but_the_prompt(core: Run) -> None:
    code, text = core("history", "gen_1")
    assert code == 0
    for expected in (
        "gen_1: succeeded after 0.009 s, 1 of 1 published",
        "spec      1 x demo 256x256, 8 steps, guidance 3.5, seed 7, png",
        "+0.001 s  [0]  image.dispatched      dispatch 1",
        "+0.002 s  [0]  image.started         att_1 on w1, dispatch 1, bat_1 of 2",
        "+0.003 s  [0]  image.attempt_failed  att_1 on w1, dispatch 1: model error (the model raised)",
        "+0.004 s  [0]  image.dispatched      dispatch 2, alone",
        "att_2 on w1, waited 12 ms (batch_running), gpu 100 of 200 ms",
        "decode 3, encode 4, upload 5 ms",
        "bat_1 with gen_other[1]",
        "k3J8sP0q/" + "ab" * 32 + ".png",
        "+0.008 s       generation.succeeded",
    ):
        assert expected in text
    assert PROMPT not in text


def test_a_history_shows_the_prompt_when_asked(core: Run) -> None:
    assert f"prompt    {PROMPT!r}" in core("history", "gen_1", "--prompt")[1]


def test_an_unknown_generation_has_no_history(core: Run, data: Path) -> None:
    assert core("history", "gen_0") == (1, f"no generation gen_0 in {data}/core/log.sqlite3\n")


def test_without_a_log_each_command_says_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["verify"], ["rebuild"], ["history", "gen_1"]):
        assert cli.run([*argv, "--data-dir", str(tmp_path / "empty")]) == 2
        assert "there is no event log" in capsys.readouterr().err
    assert not (tmp_path / "empty").exists()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "log.sqlite3").write_text("something else " * 100)
    assert cli.run(["history", "gen_1", "--data-dir", str(tmp_path)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert sqlite3.sqlite_version_info >= (3, 51, 3)
