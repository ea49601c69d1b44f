"""Signals, exit codes and last words, with real processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PREAMBLE = """
import asyncio, sys, time
from infra import telemetry
from infra.lifecycle import ConfigError, Shutdown, run
from infra.settings import Settings
telemetry.set_up("test", Settings())
"""
DRAINS = """
async def main(shutdown: Shutdown) -> None:
    print("running", flush=True)
    await shutdown.wait()
    print("drained", flush=True)
sys.exit(run(main))
"""
STUCK = """
async def main(shutdown: Shutdown) -> None:
    print("running", flush=True)
    await shutdown.wait()
    print("draining", flush=True)
    time.sleep(60)
sys.exit(run(main))
"""


@contextmanager
def child(code: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_a_service_writes_is_for_its_owner_alone(tmp_path: Path) -> None:
    code = f"""
async def main(shutdown: Shutdown) -> None:
    open({str(tmp_path / "log")!r}, "w").close()
sys.exit(run(main))
"""
    with child(code) as process:
        assert process.wait(timeout=20) == 0
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_ends_well(number: signal.Signals) -> None:
    with child(DRAINS) as process:
        assert line(process) == "running"
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    assert output == "drained\n"
    assert process.returncode == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_even_a_stuck_process_at_once(second: signal.Signals) -> None:
    with child(STUCK) as process:
        assert line(process) == "running"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "draining"
        process.send_signal(second)
        assert process.wait(10) == -second


def test_a_misconfiguration_is_one_line_and_exit_code_2() -> None:
    with child(
        "async def main(_):\n"
        "    async with asyncio.TaskGroup() as tasks:\n"
        "        async with asyncio.TaskGroup() as inner:\n"
        "            raise ConfigError('no keys:\\nrun this')\n"
        "sys.exit(run(main))"
    ) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert errors == "darkroom: no keys: run this\n"


def test_a_crash_is_logged_and_exit_code_1() -> None:
    with child("async def main(_):\n    raise RuntimeError('a bug')\nsys.exit(run(main))") as process:
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert output == ""
    assert "RuntimeError: a bug" in errors
    assert "process.crashed" in errors
