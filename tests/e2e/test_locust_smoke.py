"""`just load` in small: a stack of its own, five clients, every picture checked, nothing left running."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.stack import ROOT


@pytest.mark.slow
def test_five_users_for_a_quarter_of_a_minute_fail_at_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.load", "--users", "5", "--time", "15s"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--seed", "2026", "--keep"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, told
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["ok"] is True, told
    assert line["failures"] == 0, told
    assert line["accepted"] > 10, told
    assert line["pictures"] >= line["completed"] > 10, told
    (folder,) = tmp_path.iterdir()
    assert {"report.html", "locust_stats.csv", "figures.json"} <= {each.name for each in folder.iterdir()}
    assert not [pid for pid in _processes() if str(tmp_path) in _environment(pid)], "something was left running"


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]


def _environment(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:  # it has ended, or is not ours
        return ""
