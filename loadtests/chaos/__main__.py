"""`just chaos`: the whole stack on the emulated GPU under load, while its processes are killed and its stores fail.

The last line is JSON; the exit code is 1 when anything was lost, stuck, double, failed or wrong. Nothing is left
running, Ctrl-C included; the files of a run that went wrong are kept, and named.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtests.chaos import summary
from loadtests.chaos.plan import Asked
from loadtests.chaos.run import Order, Outcome, run
from loadtests.stack import StackError

_FILES = 8_192


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 if every invariant held, 1 if one did not or the stack did not start, 130 if interrupted."""
    options = _options(argv)
    order = _order(options)
    folder = _new_folder(Path(options.folder or Path(os.environ.get("DARKROOM_DATA_DIR", "var")) / "chaos"))
    _allow_files()
    try:
        outcome = asyncio.run(_until_signal(order, folder))
    except StackError as error:
        print(f"chaos: {error}\nchaos: files are in {folder}", file=sys.stderr)
        return 1
    if outcome is None:
        print(f"chaos: interrupted; everything is stopped, files are in {folder}", file=sys.stderr)
        return 130
    return _conclude(options, order, outcome, folder)


async def _until_signal(order: Order, folder: Path) -> Outcome | None:
    """The run; None when SIGINT or SIGTERM ended it early."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(run(order, folder, _Say()))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


class _Say:
    """Prints with the seconds since the start."""

    def __init__(self) -> None:
        self._begin_s = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._begin_s:8.1f} s  {text}", file=sys.stderr, flush=True)


def _conclude(options: argparse.Namespace, order: Order, outcome: Outcome, folder: Path) -> int:
    figures = summary.line(order, outcome)
    good = summary.passed(figures)
    for each in summary.text(outcome):
        print(each, file=sys.stderr)
    if good and not options.keep:
        shutil.rmtree(folder)
    else:
        (folder / "figures.json").write_text(json.dumps(figures))
        print(f"chaos: ledger, logs and data are in {folder}", file=sys.stderr)
    print(json.dumps(figures))
    return 0 if good else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just chaos", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=2.0, help="how long processes die")
    add("--kill-every", type=float, default=5.0, metavar="S", help="seconds from one kill to the next")
    add("--rate", type=float, default=8.0, help="generations a second")
    add("--seed", type=int, default=0, help="seed of plan and load; 0: another each time")
    add("--only", choices=("core", "worker", "gateway", "emulator"), help="kill these, and do nothing else")
    add("--loop", type=float, default=0.0, metavar="S", help="of the time, the last S s: core killed every 2 s")
    add("--visibility", type=int, default=5, metavar="S", help="visibility timeout of jobs and replies")
    add("--quiet", type=float, default=300.0, metavar="S", help="longest time to finish after the faults")
    add("--folder", default="", help="where the run's folder is made (default: DARKROOM_DATA_DIR/chaos)")
    add("--keep", action="store_true", help="keep its files after a good run, too")
    options = parser.parse_args(argv)
    if options.minutes <= 0 or options.kill_every <= 0 or options.rate <= 0 or options.visibility < 1:
        parser.error("--minutes, --kill-every, --rate and --visibility must be above 0")
    return options


def _order(options: argparse.Namespace) -> Order:
    asked = Asked(
        seconds=options.minutes * 60,
        kill_every_s=options.kill_every,
        visibility_s=options.visibility,
        only=options.only,
        loop_s=options.loop,
    )
    seed = options.seed or time.time_ns() % 1_000_000_007
    return Order(asked=asked, rate=options.rate, seed=seed, quiet_s=options.quiet)


def _allow_files() -> None:
    """Raises the limit of open files: a client may hold two connections, the proxy two for each of a service."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard) if hard >= 0 else _FILES, hard))


def _new_folder(parent: Path) -> Path:
    folder = parent.resolve() / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
