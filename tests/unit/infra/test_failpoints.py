"""Failpoints: what the text means, and that an unarmed one does nothing."""

import signal
import subprocess
import sys

import pytest

from infra.failpoints import FailpointReached, Failpoints
from infra.lifecycle import ConfigError


@pytest.mark.asyncio
async def test_unarmed_points_do_nothing() -> None:
    points = Failpoints.from_env("")
    await points.reach("core.before_commit")
    points.reach_now("core.before_commit")


@pytest.mark.asyncio
async def test_raise_acts_at_every_arrival_at_that_name_only() -> None:
    points = Failpoints.from_env(" worker.encoded=raise ;")
    await points.reach("worker.decoded")
    for _ in range(2):
        with pytest.raises(FailpointReached, match=r"worker\.encoded"):
            await points.reach("worker.encoded")
        with pytest.raises(FailpointReached):
            points.reach_now("worker.encoded")


def test_a_number_acts_at_that_arrival_only() -> None:
    points = Failpoints.from_env("worker.gpu_mid=raise@2;worker.gpu_mid=sleep:0")
    points.reach_now("worker.gpu_mid")
    with pytest.raises(FailpointReached):
        points.reach_now("worker.gpu_mid")
    points.reach_now("worker.gpu_mid")


def test_kill_leaves_no_time_for_anything() -> None:
    code = "from infra.failpoints import Failpoints\nFailpoints.from_env('a.b=kill').reach_now('a.b')\nprint('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""


@pytest.mark.parametrize(
    "text", ["core.x", "core.x=explode", "core.x=kill@0", "core.x=sleep", "=kill", "a=kill b=kill"]
)
def test_nonsense_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError, match="DARKROOM_FAILPOINTS"):
        Failpoints.from_env(text)
