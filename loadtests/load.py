"""`just load`: Locust, headless, against a stack of its own with an emulated GPU, or against a given one.

Writes an HTML report, CSV files and logs into `{DARKROOM_DATA_DIR}/load/{time}/`, prints a summary whose
last line is JSON, and ends with 0 only if nothing failed. Everything that it started is stopped.
"""

import argparse
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from loadtests import log_rows
from loadtests import stack as stacks
from loadtests.summary import Summary

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
STOP_TIMEOUT_S = 120
SETTLE_S = 30.0
TAGS = ("poll", "wait", "retry", "cancel")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load; 0 when every call, picture and clean-up was right."""
    options = _options(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))
    folder = _new_folder(Path(options.out) if options.out else _data_dir() / "load")
    try:
        code, troubles = _given(options, folder) if options.host else _own(options, folder)
    except stacks.StackError as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    return _conclude(options, folder, code, troubles)


def _given(options: argparse.Namespace, folder: Path) -> tuple[int, list[str]]:
    """Loads an existing stack, of which nothing but the API is checked."""
    return _locust(options, folder, host=options.host, key=options.key, emulated=options.emulated), []


def _own(options: argparse.Namespace, folder: Path) -> tuple[int, list[str]]:
    """Loads a stack of its own; every generation must end, and the log be whole once the stack has stopped.

    Returns Locust's exit code and what else is wrong.
    """
    gpu = stacks.Emulated(step_ms=options.step_ms, alpha=options.alpha, max_batch=options.max_batch)
    stack = stacks.prepare(folder, gpu, workers=options.workers)
    key = stack.create_key("load")
    with stacks.running(stack):
        code = _locust(options, folder, host=stack.url, key=key, emulated=True)
        left = _unfinished(stack.log_path)
    return code, [text for text in (stack.verify(), f"{left} generations have no end" if left else "") if text]


def _unfinished(log: Path) -> int:
    """Generations without an end, after SETTLE_S at most for those whose clients were cut off at the end."""
    deadline = time.monotonic() + SETTLE_S
    while (left := log_rows.unfinished(log)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.load", description=__doc__)
    add = parser.add_argument
    key = os.environ.get("DARKROOM_LOAD_KEY", "")
    add("--users", type=_positive, default=10, help="concurrent clients")
    add("--time", type=_span, default="30s", help="how long they go on: 45s, 5m, 1h")
    add("--rate", type=float, default=0.0, help="generations a second over all users; 0: as they come")
    add("--host", default="", help="URL of an existing gateway (default: a stack of its own)")
    add("--key", default=key, help="the API key for --host (or DARKROOM_LOAD_KEY)")
    add("--allow-remote", action="store_true", help="the host may be on another machine")
    add("--emulated", action="store_true", help="with --host: its GPU is emulated, so read its marks in the pictures")
    add("--tags", nargs="+", choices=TAGS, help="only these kinds of client")
    add("--seed", type=int, default=0, help="seed of the clients' choices; 0: another each time")
    add("--workers", type=_positive, default=1, help="own stack: worker processes")
    add("--step-ms", type=float, default=4.0, help="own stack: one step of a batch of one, ms")
    add("--alpha", type=float, default=0.3, help="own stack: t(b) = t(1)·(1−α+αb)")
    add("--max-batch", type=_positive, default=8, help="own stack: images per batch")
    add("--out", default="", help="folder for the reports (default: DARKROOM_DATA_DIR/load)")
    add("--keep", action="store_true", help="own stack: keep its data after a clean run")
    options = parser.parse_args(argv)
    if options.host and not (options.allow_remote or _is_loopback(options.host)):
        parser.error(f"{options.host} is not on this machine; a load test of it needs --allow-remote")
    if options.host and not options.key:
        parser.error("--host needs --key or DARKROOM_LOAD_KEY; `python -m gateway keys create TENANT` makes one")
    return options


def _locust(options: argparse.Namespace, folder: Path, *, host: str, key: str, emulated: bool) -> int:
    """Run Locust as a process of its own (it patches the interpreter) and return its exit code."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--host", host, "--users", str(options.users), "--run-time", options.time]
    command += ["--spawn-rate", str(max(1, options.users / 2)), "--stop-timeout", str(STOP_TIMEOUT_S)]
    command += ["--exit-code-on-error", "1", "--logfile", str(folder / "locust.log")]
    command += ["--html", str(folder / "report.html"), "--csv", str(folder / "locust")]
    command += ["--summary", str(folder / "figures.json")]
    command += ["--rate", str(options.rate), "--load-seed", str(options.seed)]
    command += ["--emulated"] if emulated else []
    command += ["--tags", *options.tags] if options.tags else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    with (folder / "locust.out").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=stacks.ROOT,
            env={**environment, "DARKROOM_LOAD_KEY": key},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _conclude(options: argparse.Namespace, folder: Path, code: int, troubles: Sequence[str]) -> int:
    """Print what came of it, and clean up after a good run."""
    figures = folder / "figures.json"
    if not figures.exists():
        out = (folder / "locust.out").read_text(errors="replace")
        print(f"load: Locust ended with {code} and left no figures:\n{out[-2000:]}", file=sys.stderr)
        return 1
    summary = Summary.read(figures)
    failed = code != 0 or summary.failures > 0 or summary.accepted == 0 or bool(troubles)
    print(summary.text(users=options.users, report=folder / "report.html"))
    for trouble in troubles:
        print(f"afterwards: {trouble}")
    if not failed and not options.keep:
        for name in ("data",):
            shutil.rmtree(folder / name, ignore_errors=True)
    print(json.dumps({**summary.line(), "ok": not failed}))
    return 1 if failed else 0


def _new_folder(parent: Path) -> Path:
    folder = parent / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    folder.mkdir(parents=True)
    return folder


def _data_dir() -> Path:
    return Path(os.environ.get("DARKROOM_DATA_DIR", "var")).resolve()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _span(text: str) -> str:
    if not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s?)?", text) or not text:
        raise argparse.ArgumentTypeError("is a span like 45s, 5m or 1h30m")
    return text


if __name__ == "__main__":
    sys.exit(main())
