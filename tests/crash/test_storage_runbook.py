"""The procedures of docs/runbook.md, run as they stand there, on the log of a real core under load."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import emulators
from tests.eventually import until
from tests.storage.core_alone import CoreAlone, Told, streams, verify

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).parents[2]


def blocks(section: str) -> list[str]:
    """The shell commands of one section, in order."""
    text = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    [found] = [each for each in re.split(r"^## ", text, flags=re.MULTILINE) if each.startswith(section + "\n")]
    return re.findall(r"^```sh\n(.*?)^```$", found, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreAlone]:
    (tmp_path / "backups").mkdir()
    with emulators.ministack(tmp_path) as url:  # a log that was put back is held against the bucket's list of erasures
        core = CoreAlone(tmp_path, **emulators.aws_environment(url))
        core.start()
        try:
            yield core
            core.process.stop()
        finally:
            core.process.kill()


def as_written(core: CoreAlone, commands: str) -> str:
    """What the commands print. Nothing is changed but where backups lie."""
    env = core.process.env | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = commands.replace("/backups/", f"{core.data.parent}/backups/")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def damage(log_file: Path) -> None:
    """One bit of an event."""
    content = bytearray(log_file.read_bytes())
    content[content.rindex(b"generation.requested") + 3] ^= 4
    log_file.write_bytes(content)


def refused(core: CoreAlone) -> str:
    core.launch()
    assert core.process.exit_code() == 2, core.said()
    return core.process.output().splitlines()[-1]


async def backed_up_under_load(core: CoreAlone) -> None:
    load = asyncio.create_task(core.load(400), name="load")
    [command] = blocks("Backup")
    said = await asyncio.to_thread(as_written, core, command)
    assert re.search(r"head \d+:[0-9a-f]{64}$", said.strip()), said
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)


def test_row_24_the_runbook_of_a_damaged_log_works_as_written(core: CoreAlone) -> None:
    """Backed up under load, damaged, restored: all of before the backup is there, the rest is accepted anew."""
    assert asyncio.run(core.load(6))
    begun = time.time()
    asyncio.run(backed_up_under_load(core))
    assert asyncio.run(core.load(3))
    core.process.stop()
    damage(core.log_file)
    assert "docs/runbook.md, When the log is damaged" in refused(core)
    assert "When the log is damaged\n" in (ROOT / "docs/runbook.md").read_text("utf-8")

    look, _, restore = blocks("When the log is damaged")
    assert "the chain does not fit" in as_written(core, look)
    said = as_written(core, restore)
    assert "restored from" in said
    assert "ok: " in said.splitlines()[-1]
    verify(core.log_file, core.told, before=begun)
    lost = sorted(set(core.told.accepted) - set(streams(core.log_file)))
    assert lost, "nothing was accepted after the backup"
    kept = set(streams(core.log_file))
    core.start()
    core.told = Told(doubtful=set(lost))
    asyncio.run(core.settle_doubts())
    assert set(streams(core.log_file)) == kept | set(core.told.accepted)
    assert len(core.told.accepted) == len(lost), "each is accepted anew, and once"
    core.check()


def test_rows_23_24_a_log_whose_end_is_lost_can_be_gone_on_with(core: CoreAlone) -> None:
    """Core killed, its -wal file gone: `verify` tells what the refusal tells; what is left is restored, and goes on."""
    assert asyncio.run(core.load(3))
    until(lambda: not core.log_file.with_name("log.sqlite3-wal").stat().st_size, what="the idle log is folded up")
    kept = set(streams(core.log_file))
    assert asyncio.run(core.load(3))
    core.process.kill()
    core.log_file.with_name("log.sqlite3-wal").unlink()
    assert "was acknowledged: its -wal file is lost" in refused(core)
    look, keep, _ = blocks("When the log is damaged")
    said = as_written(core, look)
    [problem, _] = said.splitlines()
    assert re.match(r"the log ends at \d+, but event \d+ was acknowledged", problem), said
    as_written(core, keep)
    core.start()
    assert set(streams(core.log_file)) == kept
