"""`python -m tests.storage.full_disk SCENARIO FOLDER`: what becomes of a log on a disk without room, or not mounted.

`tests/crash/test_storage_faults.py` and `test_log_folder.py` run these through `tests/storage/disk.py`.
"""

import asyncio
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from core.errors import LogFull
from core.log.append import LogWriter
from core.log.checkpoint import CHECKPOINT_PAGES
from core.log.connection import connect, connect_read_only, sqlite3
from core.log.offline.verify import check
from core.log.sqlite_log import SqliteLog
from tests.eventually import until
from tests.integration.test_core_offline import BEGUN, story
from tests.storage.core_alone import CoreAlone
from tests.storage.disk import FAILED, NOT_MOUNTED, NotMounted, SmallDisk, mounted


def appends(disk: SmallDisk) -> None:
    """Refused and unready while there is no room; ready again by itself, without a call, once there is."""
    core = CoreAlone(disk.folder)
    core.start()
    try:
        assert asyncio.run(core.load(3))
        disk.fill()
        until(lambda: _refused(core), 30, what="core refuses")
        until(core.log_trouble, what="core says that it is not ready")
        core.check()
        disk.free()
        until(lambda: not core.log_trouble(), what="core is ready again by itself")
        assert asyncio.run(core.load(3))
        assert len(core.told.accepted) >= 6
        core.check()
        core.process.stop()
        core.check()
    finally:
        core.process.kill()


def _refused(core: CoreAlone) -> bool:
    """Full for a submission; a few pages may still be free before."""
    before = len(core.told.refused)
    assert asyncio.run(core.load(2))
    return len(core.told.refused) == before + 2


def starts(disk: SmallDisk) -> None:
    """A start without room ends with a line that says so, or serves and refuses; with room it is as it was."""
    core = CoreAlone(disk.folder)
    core.start()
    try:
        assert asyncio.run(core.load(3))
        core.process.stop()
        disk.fill()
        core.launch()
        until(lambda: not core.process.alive or core.get("/healthz")[0] == 200, 40, what="core starts or ends")
        if not core.process.alive:
            assert core.process.exit_code() == 2, core.said()
            assert "free the disk" in core.process.output().splitlines()[-1], core.said()
            assert "Traceback" not in core.process.output(), core.said()
        core.process.stop()
        disk.free()
        core.start()
        core.check()
        assert asyncio.run(core.load(1))
        assert len(core.told.accepted) == 4
        core.process.stop()
    finally:
        core.process.kill()


def checkpoints(disk: SmallDisk) -> None:
    """The write-ahead log has room from before, the database has none: what is acknowledged goes on and stays."""
    path = disk.folder / "log.sqlite3"
    asyncio.run(_begin(path))
    connection = connect(path)
    with closing(connection):
        writer = LogWriter(connection)
        while path.stat().st_size < CHECKPOINT_PAGES * 1024:
            _append(writer)  # until it has been folded up: the file is used again from its beginning
        size = path.stat().st_size
        disk.fill()
        while True:
            try:
                _append(writer)
            except LogFull:
                break
        assert writer.wal_bytes >= CHECKPOINT_PAGES * 4096, "nothing had to be folded up"
        assert path.stat().st_size == size
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.OperationalError as error:
            assert "full" in str(error), error  # noqa: PT017
        else:
            raise AssertionError("the disk had room for the database")
        _whole(path, writer.head.position)
        disk.free()
        before = writer.head.position
        _append(writer)
        assert path.stat().st_size > size, "folded up as soon as there is room"
        _whole(path, before + 1)


def unmounts(disk: SmallDisk) -> None:
    """The log's folder is a volume. Not mounted at a start, taken from under core, also without the note in the data
    folder: core begins nothing in the empty mount point, and goes on once the volume is back.
    """
    stack = disk.folder.parent / "stack"
    place = stack / "data" / "core"
    place.mkdir(parents=True)
    core = CoreAlone(stack)
    mount, unmount = ["mount", "--bind", str(disk.folder), str(place)], ["umount", "--lazy", str(place)]
    subprocess.run(mount, check=True)
    try:
        core.start()
        assert asyncio.run(core.load(3))
        core.process.stop()
        subprocess.run(unmount, check=True)
        _refuses(core, place, "but one was begun here")
        subprocess.run(mount, check=True)
        core.start()
        core.check()
        subprocess.run(unmount, check=True)
        assert core.process.exit_code() == 1, core.said()
        assert "was deleted, moved or replaced" in core.process.output(), core.said()
        _refuses(core, place, "but one was begun here")
        (stack / "data" / "core-log.note").unlink()
        _refuses(core, place, "but the public bucket notes log_")
        subprocess.run(mount, check=True)
        core.start()
        core.check()
        core.process.stop()
    finally:
        core.process.kill()
        subprocess.run(unmount, check=False)


def _refuses(core: CoreAlone, place: Path, why: str) -> None:
    core.launch()
    assert core.process.exit_code() == 2, core.said()
    assert why in core.process.output().splitlines()[-1], core.said()
    assert not list(place.iterdir()), "something was begun in the mount point"


async def _begin(path: Path) -> None:
    async with SqliteLog(path):
        pass


def _append(writer: LogWriter) -> None:
    writer.append(story(f"gen_{writer.head.position}", [BEGUN]))


def _whole(path: Path, position: int) -> None:
    connection = connect_read_only(path)
    with closing(connection):
        report = check(connection)
    assert (report.problems, report.head.position) == ([], position)


SCENARIOS: Mapping[str, Callable[[SmallDisk], None]] = {
    "appends": appends,
    "checkpoints": checkpoints,
    "starts": starts,
    "unmounts": unmounts,
}


def main(scenario: str, folder: Path) -> int:
    """Mounts the disk and runs the scenario on it."""
    try:
        with mounted(folder) as disk:
            SCENARIOS[scenario](disk)
    except NotMounted as error:
        print(error, file=sys.stderr)
        return NOT_MOUNTED
    except Exception:  # noqa: BLE001  (whatever it is, the test that runs this shows it)
        traceback.print_exc()
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
