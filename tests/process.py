"""One real process under test: started, signalled, awaited, its output kept in a file."""

import fcntl
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.eventually import until
from tests.launcher import Forked, Launcher, can_start


class Process:
    """A command that can be started again after it ended. Each run appends to the same log file."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = dict(env)
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._running: subprocess.Popen[bytes] | Forked | None = None

    def start(self, **env: str) -> None:
        """Start it; `env` is added for this run only."""
        assert not self.alive, f"{self.name} runs already"
        whole_env = {**self.env, **env}
        if can_start(self.argv, whole_env):
            self._running = launcher().start(self.argv, env=whole_env, folder=self.folder, log=self.log)
            return
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self.argv,
                env=whole_env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    @property
    def pid(self) -> int:
        assert self._running is not None, f"{self.name} was never started"
        return self._running.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._running is not None, f"{self.name} was never started"
        self._running.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.alive:
            self.signal(signal.SIGKILL)
            self.exit_code()

    def exit_code(self, deadline_s: float = 20.0) -> int:
        """Wait for its end. Negative: ended by that signal."""
        running = self._running
        assert running is not None, f"{self.name} was never started"
        until(lambda: running.poll() is not None, deadline_s, what=f"{self.name} ends\n{self.tail()}")
        code = running.returncode
        assert code is not None
        return code

    def stop(self, deadline_s: float = 25.0) -> None:
        """SIGTERM and a clean end."""
        if self.alive:
            self.signal(signal.SIGTERM)
            code = self.exit_code(deadline_s)
            assert code == 0, f"{self.name} ended with {code} after SIGTERM\n{self.tail()}"

    def died_by_kill(self, deadline_s: float = 30.0) -> None:
        """Wait until a failpoint has killed it."""
        code = self.exit_code(deadline_s)
        assert code == -signal.SIGKILL, f"{self.name} ended with {code}, not by SIGKILL\n{self.tail()}"

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def tail(self, lines: int = 15) -> str:
        """The end of its log, for messages of failed tests."""
        return "\n".join([f"--- {self.log}", *self.output().splitlines()[-lines:]])


def module(name: str, *arguments: str) -> list[str]:
    """The command line of `python -m name`."""
    return [sys.executable, "-m", name, *arguments]


def run(
    name: str, *arguments: str, env: Mapping[str, str], folder: Path, deadline_s: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """`python -m name` of one of ours to its end, and what it said."""
    argv = module(name, *arguments)
    if not can_start(argv, env):
        return subprocess.run(
            argv, env=env, cwd=folder, capture_output=True, text=True, timeout=deadline_s, check=False
        )
    with tempfile.TemporaryDirectory() as outputs:
        stdout, stderr = Path(outputs, "stdout"), Path(outputs, "stderr")
        running = launcher().start(argv, env=env, folder=folder, log=stdout, errors=stderr)
        try:
            until(lambda: running.poll() is not None, deadline_s, what=f"{name} {arguments} ends", every_s=0.01)
        finally:
            running.send_signal(signal.SIGKILL)
        code = running.returncode or 0
        return subprocess.CompletedProcess(argv, code, stdout.read_text("utf-8"), stderr.read_text("utf-8"))


@functools.cache
def launcher() -> Launcher:
    """The launcher of this test process, started when it is first needed."""
    return Launcher()


def free_port() -> int:
    """A loopback port that is free now, below the range the kernel gives to outgoing connections, above that of chaos.

    It is reserved for this test process until that ends, also before a service binds it or while the service is down.
    """
    numbers = random.Random(os.urandom(8))
    for _ in range(100):
        port = numbers.randrange(14_000, 30_000)
        if port not in _TAKEN and _reserved(port) and _bindable(port):
            _TAKEN.add(port)
            return port
    raise AssertionError("no free port on 127.0.0.1")


_TAKEN: set[int] = set()


@functools.cache
def _reservations() -> int:
    """A file shared by all test processes, in which each locks the byte at offset `port` for each of its ports.

    It stays open, since closing it would release the locks.
    """
    return os.open(Path(tempfile.gettempdir()) / f"darkroom-test-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)


def _reserved(port: int) -> bool:
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
