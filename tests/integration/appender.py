"""A process that appends to a log until it is killed, and says after each append that it has returned.

`python -m tests.integration.appender PATH [FAILPOINT N]`: with a failpoint it kills itself when it is there for the
N-th time. Appends are of three events each; "acked K" means that append K has returned.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from core.domain.events import Event
from core.log.sqlite_log import SqliteLog
from tests.core_events import dispatched, prompt_row, requested, started, transaction

EVENTS: list[Event] = [requested(), dispatched(), started()]


async def main(path: Path, failpoint: str, times: int) -> None:
    reached = 0

    def reach(name: str) -> None:
        nonlocal reached
        reached += name == failpoint
        if name == failpoint and reached == times:
            os.kill(os.getpid(), signal.SIGKILL)

    async with SqliteLog(path, reach=reach) as log:
        print("open", flush=True)
        for number in range(1, 1_000_000):
            generation_id = f"gen_{number}"
            await log.append(transaction(generation_id, EVENTS, prompts=[prompt_row(generation_id)]))
            print(f"acked {number}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *((sys.argv[2], int(sys.argv[3])) if sys.argv[2:] else ("", 0))))
