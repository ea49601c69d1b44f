"""Power cuts at many points of a recorded run of a real core: what is on disk is opened as core would open it."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import LogBroken, LogUnusable
from core.log.sqlite_log import SqliteLog
from tests.eventually import until
from tests.process import module
from tests.storage import recorded, strace
from tests.storage.core_alone import CoreAlone, Told, verify
from tests.storage.power import Disk, write
from tests.storage.recorded import Op

CLIENTS = 3
SUBMISSIONS = 8
"""Of each client, before the log is idle and is folded up, and after."""


@dataclass(frozen=True, slots=True)
class Run:
    """What core did to its disk, and what it told meanwhile."""

    ops: Sequence[Op]
    told: Told
    root: Path


@dataclass(slots=True)
class Replays:
    """What the replays showed."""

    count: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """Replays in which something acknowledged was missing, or the log could not be opened or was not whole."""


def record(folder: Path, *, synced: bool = True) -> Run:
    """A run of core from nothing: load, idle until the log is folded up, load again, a clean end.

    `synced=False` runs it with PRAGMA synchronous = NORMAL.
    """
    output = folder / "trace"
    core = CoreAlone(folder, module("core", "serve") if synced else module("tests.storage.unsynced_core"))
    prefix = [strace.program(), "-f", "--seccomp-bpf", "-o", str(output), *recorded.OPTIONS]
    core.start(prefix)
    try:
        _load(core)
        wal = core.log_file.with_name(core.log_file.name + "-wal")
        until(lambda: wal.stat().st_size == 0, 20, what="the idle log is folded up")
        _load(core)
        core.stop_traced()
    finally:
        core.kill_traced()
    core.check()
    return Run(recorded.read(output, core.data), core.told, core.data.parent)


def _load(core: CoreAlone) -> None:
    async def clients() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(core.load(SUBMISSIONS), name=f"client {number}")

    asyncio.run(clients())


def replay(run: Run, folder: Path, *, times: int, seed: int) -> Replays:
    """Cut the power at so many points, and look."""
    chance = random.Random(seed)
    quick = Path("/dev/shm")  # the replays are about what is on the disk, not about a real one's syncs
    with TemporaryDirectory(dir=quick if quick.is_dir() else folder) as name:
        return _replay(run, Path(name), times, seed, chance)


def _replay(run: Run, folder: Path, times: int, seed: int, chance: random.Random) -> Replays:
    cuts = sorted(chance.randrange(len(run.ops) + 1) for _ in range(times))
    seen, disk, done = Replays(), Disk(), 0
    for cut in cuts:
        while done < cut:
            disk.apply(run.ops[done])
            done += 1
        before = run.ops[cut].at if cut < len(run.ops) else float("inf")
        mode, image = disk.after_power_cut(run.root, chance)
        seen.count += 1
        seen.modes[mode] += 1
        wrong = _look(image, folder / "image", run.told, before)
        if wrong:
            seen.lost.append(f"seed {seed}, cut before operation {cut} of {len(run.ops)}, kept {mode}: {wrong}")
    return seen


def _look(image: dict[str, bytes], folder: Path, told: Told, before: float) -> str:
    """What is wrong with this disk; empty for nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write(image, folder)
    log_file = folder / "data" / "core" / "log.sqlite3"
    if not log_file.exists():
        lost = sum(at < before for at in told.accepted.values())
        return f"no log, and {lost} were acknowledged" if lost else ""
    try:
        asyncio.run(_open(log_file))
        verify(log_file, told, before)
    except (LogUnusable, LogBroken, AssertionError) as error:
        return str(error)
    return ""


async def _open(log_file: Path) -> None:
    async with SqliteLog(log_file) as log:
        async for _ in log.open_streams():
            pass
