"""Every Nth write and sync of a real core under load: killed there, failing there, or without room from there on.

One life of core takes one fault that ends it; the next life, on the same log and without the fault, is held against
what clients were told. Faults that core must survive come several to a life.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.eventually import until
from tests.process import module
from tests.storage import strace
from tests.storage.core_alone import CoreAlone
from tests.storage.late_core import WAITING

STEPS = 3
"""Submissions of one life, before core is told to stop: closing the log writes and syncs, too."""
MOST = 40
"""Submissions that one life may need to meet its fault."""


@dataclass(slots=True)
class Sweep:
    """What was done and found."""

    lives: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    in_doubt: int = 0
    refused: int = 0
    survived: int = 0
    """Faults of a life that ended in good order: they met the closing of the log."""


def points(every: int, last: int) -> Iterator[int]:
    """Each Nth, and the first one."""
    yield from sorted({1, *range(every, last + 1, every)})


def run(folder: Path, *, every: int, seen: Sweep | None = None) -> Sweep:
    """The whole sweep. `every` 10 takes a good minute, 1 takes some ten."""
    seen = seen or Sweep()
    core = CoreAlone(folder)
    core.start()
    try:
        for calls, reach in ((strace.WRITES, 400), (strace.SYNCS, 40)):
            step = every if calls == strace.WRITES else max(1, every // 3)
            for fault in ("signal=SIGKILL", "error=EIO"):
                for number in points(step, reach):
                    if not ended_by(core, folder, calls, f"{fault}:when={number}", seen):
                        break
        no_room(core, folder, every, seen)
        core.process.stop()
        core.check()
    finally:
        core.process.kill()
    return seen


def ended_by(core: CoreAlone, folder: Path, calls: str, fault: str, seen: Sweep) -> bool:
    """One life with one fault, and the next one's beginning. False: the load never came to the fault."""
    output = folder / "fault.strace"
    output.unlink(missing_ok=True)
    with strace.attached(core.process.pid, output, strace.injecting(calls, fault)):
        alive = asyncio.run(core.load(STEPS))
        if alive:
            core.process.signal(signal.SIGTERM)
        code = core.process.exit_code()
    met = strace.injected(output)
    seen.lives += 1
    seen.faults[f"{calls}:{fault.partition(':')[0]}"] += len(met)
    if not met:
        assert code == 0, f"no fault and exit code {code}\n{core.said()}"
    elif code == 0:
        seen.survived += 1
    elif "SIGKILL" in fault:
        assert code == -signal.SIGKILL, f"exit code {code}\n{core.said()}"
    else:
        ends = {1, -signal.SIGTERM} if alive else {1}  # the second: told to stop while it stopped by itself
        assert code in ends, f"exit code {code} after {met}\n{core.said()}"
        assert '"log.broken"' in core.said(), core.said()
    begin_again(core, seen)
    return bool(met)


def begin_again(core: CoreAlone, seen: Sweep) -> None:
    """Start without faults: all that was told is there, and what was in doubt is answered by its key."""
    core.start()
    core.check()
    seen.in_doubt += len(core.told.doubtful)
    asyncio.run(core.settle_doubts())
    seen.accepted = len(core.told.accepted)
    seen.refused = len(core.told.refused)


def births(folder: Path, every: int, seen: Sweep) -> None:
    """Each Nth write of a core that begins its log: killed or failing there, and begun again without a fault."""
    for fault in ("signal=SIGKILL", "error=EIO"):
        for number in points(every, 200):
            place = folder / f"birth-{fault[-3:]}-{number}"
            place.mkdir()
            if not born(place, f"{fault}:when={number}", seen):
                break


def born(folder: Path, fault: str, seen: Sweep) -> bool:
    """One beginning with one fault, and the next one's. False: the log was there before the fault came."""
    core, output = CoreAlone(folder, module("tests.storage.late_core")), folder / "fault.strace"
    core.launch()
    try:
        until(lambda: WAITING in core.process.output(), 40, what="core waits")
        with strace.attached(core.process.pid, output, strace.injecting(strace.WRITES, fault)):
            core.process.signal(signal.SIGUSR1)
            until(lambda: not core.process.alive or core.listens(), 60, what="core serves or ends")
        served = core.process.alive
        core.process.kill()
        if not served:
            assert core.process.exit_code() in {-signal.SIGKILL, 2}, core.said()
            assert strace.injected(output), core.said()
            seen.faults[f"beginning:{fault.partition(':')[0]}"] += 1
        core.process.argv = module("core", "serve")
        core.start()
        assert asyncio.run(core.load(1)), core.said()
        assert len(core.told.accepted) == 1, core.said()
        core.process.stop()
        core.check()
    finally:
        core.process.kill()
    return not served


def no_room(core: CoreAlone, folder: Path, every: int, seen: Sweep) -> None:
    """The disk is full for every Nth write, then from the 2Nth write on: refused, unready, and on again by itself."""
    output = folder / "full.strace"
    life = core.process.pid
    with strace.attached(life, output, strace.injecting(strace.WRITES, f"error=ENOSPC:when={every}+{every}")):
        assert asyncio.run(core.load(MOST))
    seen.faults["pwrite64:ENOSPC"] += len(strace.injected(output))
    for number in points(2 * every if every > 1 else 1, 40):
        output.unlink()
        with strace.attached(life, output, strace.injecting(strace.WRITES, f"error=ENOSPC:when={number}+")):
            asyncio.run(core.load(STEPS))
            until(core.log_trouble, what="core says that it is not ready")
        seen.faults["pwrite64:ENOSPC from there on"] += 1
        assert strace.injected(output)
        until(lambda: not core.log_trouble(), what="core is ready again by itself")
        accepted = len(core.told.accepted)
        assert asyncio.run(core.load(2))
        assert len(core.told.accepted) == accepted + 2
        core.check()
    assert core.process.pid == life
    seen.lives += 1
    seen.refused = len(core.told.refused)
    seen.accepted = len(core.told.accepted)
