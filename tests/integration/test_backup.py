"""`python -m core backup` and `restore`: beside a writing core, over a damaged log, and interrupted at any step."""

import asyncio
import contextlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import LogUnusable
from core.log.connection import connect, connect_read_only
from core.log.files import LogFiles
from core.log.offline import cli
from core.log.offline.backup import backup, restore
from core.log.offline.verify import check
from core.log.sqlite_log import SqliteLog
from tests.integration.test_core_offline import BEGUN, WHOLE, story, tamper, write

Run = Callable[..., tuple[int, str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "core" / "log.sqlite3"
    asyncio.run(write(path, story("gen_1", WHOLE), story("gen_2", [BEGUN])))
    return tmp_path / "data"


@pytest.fixture
def core(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: object) -> tuple[int, str]:
        code = cli.run([*map(str, argv), "--data-dir", str(data)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def log_of(data: Path) -> Path:
    return data / "core" / "log.sqlite3"


def head(path: Path) -> tuple[int, str]:
    connection = connect_read_only(path)
    try:
        report = check(connection)
    finally:
        connection.close()
    assert not report.problems
    return report.head.position, report.head.chain.hex()


async def opens(path: Path) -> None:
    async with SqliteLog(path):
        pass


def quiet(_done: int, _total: int) -> None:
    pass


def test_a_backup_beside_a_writing_core_is_one_moment_of_it(core: Run, data: Path, tmp_path: Path) -> None:
    """A commit of core between every two steps of the copy: it waits for none, and the copy holds none of them."""
    first, appended = head(log_of(data)), 0

    async def beside() -> None:
        nonlocal appended
        async with SqliteLog(log_of(data)) as log:
            for number in range(40):
                await log.append(story(f"gen_more_{number}", [BEGUN]))
            begun = head(log_of(data))
            loop = asyncio.get_running_loop()

            def between(_done: int, _total: int) -> None:
                nonlocal appended
                appended += 1
                append = log.append(story(f"gen_between_{appended}", [BEGUN]))
                asyncio.run_coroutine_threadsafe(append, loop).result(10)

            report = await asyncio.to_thread(backup, log_of(data), tmp_path / "copy", between)
            assert (report.head.position, report.head.chain.hex()) == begun

    monkey = pytest.MonkeyPatch()
    monkey.setattr("core.log.offline.backup.PAGES_PER_STEP", 2)
    try:
        asyncio.run(beside())
    finally:
        monkey.undo()
    assert appended > 5
    assert head(tmp_path / "copy")[0] == first[0] + 40
    assert head(log_of(data))[0] == first[0] + 40 + appended
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "data"], "one file and nothing beside it"


def test_a_backup_says_what_it_holds_and_overwrites_nothing(core: Run, data: Path, tmp_path: Path) -> None:
    code, text = core("backup", tmp_path / "copy")
    position, chain = head(log_of(data))
    assert (code, f"10 events of 2 generations (1 open); head {position}:{chain}" in text) == (0, True)
    before = (tmp_path / "copy").read_bytes()
    code, text = core("backup", tmp_path / "copy")
    assert (code, "never overwritten" in text) == (2, True)
    assert (tmp_path / "copy").read_bytes() == before
    code, text = core("backup", tmp_path / "nowhere" / "copy")
    assert (code, "cannot write the backup" in text) == (2, True)


def test_two_backups_to_one_file_at_a_time_spoil_neither(core: Run, data: Path, tmp_path: Path) -> None:
    """The second ends while the first still copies."""
    copy = tmp_path / "copy"
    begun = False

    def between(_done: int, _total: int) -> None:
        nonlocal begun
        if not begun:
            begun = True
            command = [sys.executable, "-m", "core", "backup", str(copy), "--data-dir", str(data)]
            assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0

    with pytest.raises(LogUnusable, match="never overwritten"):
        backup(log_of(data), copy, between)
    assert begun
    assert head(copy) == head(log_of(data))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "data"]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["restore", ".", "--replace"], "there is no backup .: name a file"),
        (["restore", "", "--replace"], "there is no backup .: name a file"),
        (["backup", "."], ". exists: name a new file"),
        (["backup", "/dev/null"], "/dev/null exists: name a new file"),
        (["history", "gen_nobody"], "no generation gen_nobody"),
    ],
    ids=" ".join,
)
def test_rubbish_is_answered_with_what_to_do(core: Run, data: Path, argv: list[str], complaint: str) -> None:
    before = head(log_of(data))
    code, text = core(*argv)
    assert code in {1, 2}
    assert complaint in text
    assert text.count("\n") == 1, "one line"
    assert head(log_of(data)) == before


@pytest.mark.parametrize("text", ["rubbish", "5:zz", "0:" + "00" * 32, "-1:" + "00" * 32, ":" + "00" * 32, "3:00"])
def test_an_expected_head_that_is_none_is_refused(core: Run, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        core("verify", f"--expect={text}")
    assert "is not what follows `head` in an earlier verify: POSITION:CHAIN" in capsys.readouterr().err


def test_a_damaged_log_gives_no_backup(core: Run, data: Path, tmp_path: Path) -> None:
    tamper(data, "UPDATE events SET at_ms = at_ms + 1 WHERE position = 3")
    code, text = core("backup", tmp_path / "copy")
    assert (code, "position 3, stream gen_1: the chain does not fit" in text) == (2, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data"]


def test_a_backup_restored_into_an_empty_folder_is_the_log(core: Run, data: Path, tmp_path: Path) -> None:
    core("backup", tmp_path / "copy")
    before = head(log_of(data))
    shutil.rmtree(data)
    code, text = core("restore", tmp_path / "copy")
    assert (code, "10 events" in text, "kept in" in text) == (0, True, False)
    assert head(log_of(data)) == before
    asyncio.run(write(log_of(data), story("gen_3", [BEGUN])))
    assert core("verify")[0] == 0


def test_the_log_that_is_there_is_kept_and_what_only_it_holds_is_counted(core: Run, data: Path, tmp_path: Path) -> None:
    core("backup", tmp_path / "copy")
    taken = head(log_of(data))
    asyncio.run(write(log_of(data), story("gen_3", WHOLE), story("gen_4", [BEGUN])))
    later = head(log_of(data))
    code, text = core("restore", tmp_path / "copy")
    assert (code, "--replace" in text) == (2, True)
    assert head(log_of(data)) == later
    code, text = core("restore", tmp_path / "copy", "--replace")
    assert (code, "10 later events, 2 new generations among them" in text) == (0, True), text
    assert head(log_of(data)) == taken
    assert head(data / "core" / "log.sqlite3.replaced-1" / "log.sqlite3") == later
    asyncio.run(opens(log_of(data)))


def test_the_runbook_of_a_damaged_log(core: Run, data: Path, tmp_path: Path) -> None:
    """Core refuses and says what to do; done so, it starts; the damaged log is kept (faults.md 24)."""
    core("backup", tmp_path / "copy")
    content = bytearray(log_of(data).read_bytes())
    content[content.rindex(b"generation.requested") + 3] ^= 4
    log_of(data).write_bytes(content)
    with pytest.raises(LogUnusable, match=r"(?s)is damaged.*core verify.*core restore.*When the log is damaged"):
        asyncio.run(opens(log_of(data)))
    assert core("verify")[0] == 1
    code, text = core("restore", tmp_path / "copy", "--replace")
    assert code == 0, text
    asyncio.run(opens(log_of(data)))
    assert core("verify")[0] == 0
    assert (data / "core" / "log.sqlite3.replaced-1" / "log.sqlite3").read_bytes() == bytes(content)


def test_nothing_is_restored_under_a_running_core(core: Run, data: Path, tmp_path: Path) -> None:
    core("backup", tmp_path / "copy")

    async def beside() -> None:
        async with SqliteLog(log_of(data)) as log:
            code, text = core("restore", tmp_path / "copy", "--replace")
            assert (code, "holds the event log" in text) == (2, True)
            await log.append(story("gen_3", [BEGUN]))

    asyncio.run(beside())
    assert core("verify")[0] == 0


@pytest.mark.parametrize("wrong", ["missing", "rubbish", "damaged", "foreign"])
def test_what_is_no_sound_backup_is_not_restored(core: Run, data: Path, tmp_path: Path, wrong: str) -> None:
    copy = tmp_path / "copy"
    before = head(log_of(data))
    core("backup", copy)
    match wrong:
        case "missing":
            copy.unlink()
        case "rubbish":
            copy.write_text("no database " * 1_000)
        case "foreign":
            copy.unlink()
            connection = connect(copy)
            connection.execute("CREATE TABLE things (name TEXT)")
            connection.close()
        case _:
            content = bytearray(copy.read_bytes())
            content[content.rindex(b"att_2") + 1] ^= 4
            copy.write_bytes(content)
    code, text = core("restore", copy, "--replace")
    assert (code, str(copy) in text) == (2, True), text
    assert head(log_of(data)) == before
    asyncio.run(opens(log_of(data)))
    assert not list((data / "core").glob("*restoring*"))


@pytest.mark.parametrize("step", range(7))
def test_a_restore_that_is_killed_at_any_step_leaves_a_log_or_a_refusal(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Either the old log, or the new one, or a folder core refuses to start on; and it can be done again."""
    backup(log_of(data), tmp_path / "copy", quiet)
    taken = head(log_of(data))
    asyncio.run(write(log_of(data), story("gen_3", WHOLE)))
    later, files = head(log_of(data)), LogFiles(log_of(data))
    done = 0

    def counted(rename: Callable[..., Path]) -> Callable[..., Path]:
        def replacement(*arguments: object) -> Path:
            nonlocal done
            done += 1
            if done > step:
                raise KeyboardInterrupt
            return rename(*arguments)

        return replacement

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        with contextlib.suppress(KeyboardInterrupt):
            restore(tmp_path / "copy", files, replace=True)
    try:
        asyncio.run(opens(log_of(data)))
    except LogUnusable as error:
        assert "put it back from a backup" in str(error)  # noqa: PT017
    else:
        assert head(log_of(data)) in {taken, later}
    restore(tmp_path / "copy", files, replace=True)
    assert head(log_of(data)) == taken
