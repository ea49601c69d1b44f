"""Starts services of this project quickly: one process imports them once, and each start is a fork of it.

An import of a service costs about a second of CPU time, and the tests start hundreds. What is forked goes on as
`python -m core` (or gateway, worker) does from there: its own process, session, environment, folder, output and
signals, the module run as `__main__`, the interpreter's own end. A command that needs more than that, such as a tracer
in front or a variable of the interpreter, is started by `exec` as usual (`can_start`).

The starting process forks with a single thread, and before any of ours has run: no lock, connection or random state
of one service is in another.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVICES = {"core": "core.app", "gateway": "gateway.app", "worker": "worker.app"}
"""The modules that can be started, each with the module that is imported before the fork."""

_OWN = frozenset({"PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"})
_ROOT = str(Path(__file__).parent.parent)


def can_start(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a fork does the same as the command: `python -m` one of ours, and no setting of the interpreter."""
    plain = len(argv) > 2 and argv[0] == sys.executable and argv[1] == "-m" and argv[2] in SERVICES
    odd = [name for name in env if name.startswith(("PYTHON", "LD_", "MALLOC_")) and name not in _OWN]
    return plain and not odd and env.get("PYTHONPATH", _ROOT) == _ROOT


class Forked:
    """One started service. What tests need of `subprocess.Popen`."""

    def __init__(self, launcher: "Launcher", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._launcher = launcher

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._launcher.ask({"poll": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Does nothing if the process has ended. Until it is polled the kernel cannot reuse its pid."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Launcher:
    """The other side of `serve`. Thread-safe."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.launcher", str(theirs.fileno())],
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._file = ours.makefile("rw", encoding="utf-8")
        ours.close()
        self._lock = threading.Lock()
        atexit.register(self.close)

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path, errors: Path | None = None
    ) -> Forked:
        """Start a command that `can_start` says yes to. Its output is appended to `log`, what it says on stderr to
        `errors` if that is given.
        """
        outputs = [str(log), str(errors or log)]
        return Forked(
            self, self.ask({"argv": list(argv[2:]), "env": dict(env), "folder": str(folder), "outputs": outputs})
        )

    def ask(self, message: object) -> Any:
        """The answer of the other side. Raises RuntimeError when it has gone."""
        with self._lock:
            self._file.write(json.dumps(message) + "\n")
            self._file.flush()
            line = self._file.readline()
        if not line:
            raise RuntimeError("the process that starts services has ended")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process behind `serve`, which kills the services that still run."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._process.wait(10)


def serve(connection: socket.socket) -> int:
    """Answer until the other side closes, and kill what still runs then. In a fork: the exit code of its service."""
    for name in SERVICES.values():
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "an import has started a thread: a fork would hold its locks"  # noqa: PTH208
    gc.collect()
    gc.freeze()
    file = connection.makefile("rw", encoding="utf-8")
    running: set[int] = set()
    for line in file:
        message = json.loads(line)
        if "poll" in message:
            pid, status = os.waitpid(message["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            running.discard(pid)
        else:
            become, became = os.pipe()
            answer = os.fork()
            if answer == 0:
                return _become(message)
            os.close(became)
            os.read(become, 1)  # its end is closed once the fork has its own session, output and folder
            os.close(become)
            running.add(answer)
        file.write(json.dumps(answer) + "\n")
        file.flush()
    for pid in running:  # the tests have ended, or were killed, without an end of these
        os.kill(pid, signal.SIGKILL)
    return 0


def _become(message: Mapping[str, Any]) -> int:
    """Run the module as `python -m` would, in this process."""
    os.setsid()
    for number, path in enumerate(message["outputs"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), number)
    os.chdir(message["folder"])
    os.environ.clear()
    os.environ.update(message["env"])
    name, *arguments = message["argv"]
    sys.argv = [name, *arguments]
    sys.path[0] = message["folder"]
    random.seed()
    if os.environ.get("PYTHONUNBUFFERED"):
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
