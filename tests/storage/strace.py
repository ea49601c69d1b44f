"""strace as the place where faults are put in: between a real process and its kernel.

`attached` watches a process that runs already. Counts in `when=` are of each thread by itself; core writes its log on
one thread.
"""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.eventually import Hopeless, until

SYNCS = "fdatasync,fsync"
WRITES = "pwrite64"


def program() -> str:
    """Where strace is. Fails, and never skips: a promise that nobody tests is none."""
    found = shutil.which("strace")
    assert found, "the storage faults need strace: apt-get install strace (.ci/run does, where it may)"
    return found


def injecting(calls: str, fault: str) -> list[str]:
    """The options that watch these system calls and put the fault in, such as `error=EIO:when=3`."""
    return ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]


@contextmanager
def attached(pid: int, output: Path, options: Sequence[str]) -> Iterator[None]:
    """The running process is watched from here to the end of the block, or to its own end."""
    command = [program(), "-f", "-p", str(pid), "-o", str(output), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
        try:
            until(lambda: _watched(tracer, pid), what="strace watches every thread", every_s=0.01)
            yield
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=20)


def _watched(tracer: "subprocess.Popen[bytes]", pid: int) -> bool:
    if tracer.poll() is not None:
        assert tracer.stderr is not None
        raise Hopeless(f"strace has ended: {tracer.stderr.read().decode('utf-8', 'replace')[-500:]}")
    threads = list(Path(f"/proc/{pid}/task").glob("*/status"))
    return bool(threads) and all(f"TracerPid:\t{tracer.pid}\n" in each.read_text() for each in threads)


_INJECTED = re.compile(r"^\d+ +(\w+)\((.*)\(INJECTED\)$", re.MULTILINE)
_KILLED = re.compile(r"killed by SIGKILL")


def injected(output: Path) -> list[str]:
    """The calls that a fault was put into, in order; a kill counts as one."""
    text = output.read_text("utf-8", "replace") if output.exists() else ""
    return [match[1] for match in _INJECTED.finditer(text)] or _KILLED.findall(text)[:1]
