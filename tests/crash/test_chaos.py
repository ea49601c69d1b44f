"""`just chaos` for two minutes: processes killed, stopped and cut off from queue and store; then core killed in a loop.

Row 16 of the list of faults is the loop; every other row of processes and stores meets the rest by chance.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.chaos.plan import LOOP_EVERY_S, WEATHERS
from loadtests.stack import ROOT

SEED = 20261122
KILL_EVERY_S, LOOP_S = 4.0, 20.0
NOTHING = ("failed", "lost", "stuck", "double", "wrong")


def chaos(folder: Path, *options: str, timeout_s: float) -> dict[str, Any]:
    """Run it to its end; its figures, once it has left nothing running."""
    command = [sys.executable, "-m", "loadtests.chaos", "--folder", str(folder), "--keep", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout_s)
    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, told
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert not _left_running(folder), "something was left running"
    return figures


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_two_minutes_of_chaos_lose_nothing(tmp_path: Path) -> None:
    figures = chaos(
        tmp_path,
        *("--minutes", "2", "--kill-every", str(KILL_EVERY_S), "--loop", str(LOOP_S)),
        *("--rate", "3", "--visibility", "5", "--quiet", "300", "--seed", str(SEED)),
        timeout_s=460,
    )
    assert figures["accepted"] == figures["succeeded"] + figures["cancelled"] > 100
    assert {name: figures[name] for name in NOTHING} == dict.fromkeys(NOTHING, 0)
    assert figures["cancelled"] > 0
    assert figures["pictures"] >= figures["succeeded"]
    assert figures["kills"] >= 20
    assert {"core", "worker", "gateway", "emulator"} <= set(figures["killed"])
    assert figures["killed"]["core"] >= LOOP_S // LOOP_EVERY_S - 2
    assert figures["stops"] >= 2
    assert set(figures["weather"]) == set(WEATHERS)
    assert figures["faults"] >= len(WEATHERS)
    assert figures["recoveries"] > 0


def _left_running(folder: Path) -> list[str]:
    """Processes whose environment or command names this test's folder."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            told = (each / "environ").read_bytes() if each.name.isdecimal() else b""
        except OSError:
            continue
        if str(folder).encode() in told and each.name != "self":
            found.append(each.name)
    return found
