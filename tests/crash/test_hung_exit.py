"""A worker whose GPU thread is stuck inside torch ends with the exit code that it means, not by SIGABRT."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, sys, threading
from worker.__main__ import end
from worker.threads import WorkerThreads

inside = threading.Event()

def stuck():
    import torch
    torch.set_num_threads(1)
    matrix = torch.rand(600, 600)
    inside.set()
    while True:  # in C++ most of the time, and back for the interpreter's lock again and again
        matrix @ matrix

async def main():
    thread = WorkerThreads("gpu")
    work = asyncio.create_task(thread.run(stuck))
    await asyncio.to_thread(inside.wait, 60)
    thread.close()
    work.cancel()

asyncio.run(main())
sys.exit({leave}(1, lambda: print("flushed", flush=True)))
"""


@pytest.mark.timeout(240)
def test_the_exit_code_is_the_worker_s_own() -> None:
    done = run("end")
    assert (done.returncode, done.stdout.split(), done.stderr) == (1, ["flushed"], "")


def run(leave: str) -> "subprocess.CompletedProcess[str]":
    """`leave` is what the script calls at its end."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(leave=leave)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
