"""The offline commands know what was erased: restore brings nothing back, verify tells what has come back, rebuild
deletes what should be gone, and history tells who asked.
"""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from core.domain import events as e
from core.log.connection import connect_read_only
from core.log.erased_file import ErasedFile
from core.log.offline import cli
from core.log.queries import not_erased, prompts
from core.log.sqlite_log import SqliteLog
from tests.core_events import dispatched, rendered, started, transaction
from tests.integration.test_core_offline import BEGUN, PROMPT, WHOLE, Run, story, tamper, write

DECIDED = (BEGUN, dispatched(), started(), rendered())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    stories = [("gen_ended", WHOLE), ("gen_open", (BEGUN, dispatched())), ("gen_decided", DECIDED), ("gen_kept", WHOLE)]
    asyncio.run(write(folder / "core" / "log.sqlite3", *(story(name, events) for name, events in stories)))
    return folder


@pytest.fixture
def core(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: object) -> tuple[int, str]:
        code = cli.run([*map(str, argv), "--data-dir", str(data)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


GONE = ("gen_ended", "gen_open", "gen_decided")


def test_a_restored_log_holds_no_prompt_that_was_erased_and_verifies(core: Run, data: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.sqlite3"
    assert core("backup", backup)[0] == 0
    assert PROMPT.encode() in backup.read_bytes()
    tamper(data, "UPDATE generations SET model = 'x'")  # as good as lost
    ErasedFile(data).add(["gen_nobodys", *GONE])
    ErasedFile(data).set_whole()
    code, text = core("restore", backup, "--replace")
    assert code == 0, text
    assert "3 generations that were erased after the backup are erased in it again" in text
    assert not ErasedFile(data).whole, "the next start asks the bucket"
    assert core("verify")[0] == 0
    log = data / "core" / "log.sqlite3"
    assert not [*log.parent.glob("*.restoring*")]
    with closing(connect_read_only(log)) as connection:
        assert list(prompts(connection, [*GONE, "gen_kept"])) == ["gen_kept"]
        assert not_erased(connection, [*GONE, "gen_kept"]) == ["gen_kept"]
    asyncio.run(owes_their_objects(log))
    tamper(data, "DELETE FROM prompts")
    assert PROMPT.encode() not in log.read_bytes(), "only the kept one was left"
    for name in GONE:
        assert "again, by the list of erasures" in core("history", name)[1]


async def owes_their_objects(log: Path) -> None:
    async with SqliteLog(log) as opened:
        assert {each.generation_id for each in await opened.deletions(2**50, 10)} == set(GONE)


def test_verify_tells_what_has_come_back(core: Run, data: Path) -> None:
    ErasedFile(data).add(["gen_ended", "gen_nobodys"])
    code, text = core("verify")
    assert code == 1
    assert text.startswith(
        "stream gen_ended: is on the list of erasures and not erased: core does it at its next start"
    )


def test_rebuild_deletes_a_prompt_that_should_be_gone(core: Run, data: Path) -> None:
    events = (*WHOLE, e.GenerationErased(cause=e.Cause.OPERATOR))
    log = data / "core" / "log.sqlite3"
    asyncio.run(append(log, transaction("gen_ended", events, after=len(WHOLE))))  # without erasing its row
    assert "gen_ended: is erased, but its prompt is still there" in core("verify")[1]
    code, text = core("rebuild")
    assert (code, text.rstrip().endswith("0 rows differed, 1 prompts of erased ones deleted")) == (0, True), text
    assert core("verify")[0] == 0
    story_told = core("history", "gen_ended", "--prompt")[1]
    assert "asked for by an operator" in story_told
    assert story_told.rstrip().endswith("its prompt was erased")


async def append(log: Path, more: object) -> None:
    async with SqliteLog(log) as opened:
        await opened.append(more)  # type: ignore[arg-type]
