"""Processes of tests that run beside each other never get the same port, bound or not."""

import os
import subprocess
import sys

from tests.engine_processes import ROOT

TAKE = "from tests.process import free_port; ports = {free_port() for _ in range(1000)}"
BESIDE = f"""
import subprocess, sys
{TAKE}
told = subprocess.run([sys.executable, "-c", "{TAKE}; print(*ports)"], capture_output=True, text=True, check=True)
theirs = set(map(int, told.stdout.split()))
assert len(ports) == len(theirs) == 1000, (len(ports), len(theirs))
assert not ports & theirs, ports & theirs
"""


def test_no_port_is_given_to_two_processes() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", BESIDE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
