"""What is started by a fork behaves as the same command started by `exec`."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.launcher import can_start
from tests.process import Process, module, run

ENV = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}


@pytest.mark.parametrize(
    ("argv", "env", "verdict"),
    [
        (module("core", "serve"), {}, True),
        (module("gateway"), {"PYTHONUNBUFFERED": "1"}, True),
        (module("infra.local.emulator"), {}, False),
        (["strace", *module("core", "serve")], {}, False),
        ([sys.executable, "-X", "dev", "-m", "core"], {}, False),
        (module("core"), {"PYTHONHASHSEED": "1"}, False),
        (module("core"), {"LD_PRELOAD": "x.so"}, False),
        (module("core"), {"PYTHONPATH": "/elsewhere"}, False),
        ([sys.executable, "-m"], {}, False),
    ],
)
def test_whatever_asks_for_more_is_started_by_exec(argv: list[str], env: Mapping[str, str], verdict: bool) -> None:
    assert can_start(argv, env) is verdict


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("core", ("serve", "more"), 2),
        ("core", ("history",), 2),
        ("core", ("no-such-command",), 2),
        ("gateway", ("keys", "--help"), 0),
        ("worker", ("--mode", "none"), 2),
    ],
)
def test_exit_code_and_output_are_those_of_the_command(
    tmp_path: Path, name: str, arguments: tuple[str, ...], code: int
) -> None:
    forked = run(name, *arguments, env=ENV, folder=tmp_path)
    executed = subprocess.run(
        module(name, *arguments), env=ENV, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (executed.returncode, executed.stdout, executed.stderr)
    assert forked.returncode == code


def test_it_has_a_session_an_environment_and_signals_of_its_own(tmp_path: Path) -> None:
    env = ENV | {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DARKROOM_CORE_TARGET": "",
    }
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "DARKROOM_DATA_DIR": str(tmp_path)}
    process = Process("core", module("core", "serve"), env | keys, tmp_path)
    process.start()
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
        assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
        process.signal(signal.SIGKILL)
        process.died_by_kill()
        assert not process.alive
        process.start()
        assert process.alive
    finally:
        process.kill()
