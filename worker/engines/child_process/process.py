"""One run of the engine server as a child of this process: start, connect, end, and explain how it ended.

The socket lies in a folder of its own that only this user can enter, and is removed once the connection is open. The
kernel kills the child when the thread that started it ends, so `open` belongs on the GPU thread.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from schema import fast
from schema.pb import EngineFrameKind
from worker.engines.child_process import environment
from worker.engines.child_process.frames import Closed, Connection, Garbage, peer_pid
from worker.engines.child_process.messages import exception_of
from worker.engines.errors import EngineDied, LoadFailed, ModelAway, OutOfMemory

_LOOK_EVERY_S: Final = 0.02
_FAREWELL_S: Final = 5.0


class EngineProcess:
    """`command` is given `--uds PATH --parent PID` and must serve there. One instance is one run."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The connection to the server. Raises Closed before `open` and after `end`."""
        if self._connection is None:
            raise Closed("not connected")
        return self._connection

    @property
    def alive(self) -> bool:
        """Whether it runs and is connected. Any thread."""
        child = self._child
        return self._connection is not None and child is not None and child.poll() is None

    @property
    def pid(self) -> int:
        """The child's process id; 0 before `open`."""
        return self._child.pid if self._child else 0

    def open(self, deadline_s: float) -> fast.EngineHello:
        """Start, connect, and wait until the model is loaded, `deadline_s` seconds at most.

        Raises ModelAway when the process does not start, is killed, misses the deadline, or reports that its device is
        lost or out of memory; LoadFailed when it reports another error or exits by itself. No process is left then.
        """
        end_s = time.perf_counter() + deadline_s
        try:
            with _own_folder() as folder:
                path = Path(f"/proc/self/fd/{folder}/engine.sock")
                self._start(path, folder)
                self._connection = Connection(self._connect(path, end_s))
            return self._greeted(end_s)
        except (OSError, Closed, Garbage) as error:
            ended = self.end(at_once=not isinstance(error, Closed))
            kind = LoadFailed if ended.startswith("exited") else ModelAway
            raise kind(f"the engine's process {ended} before it was ready ({error})") from None
        except LoadFailed:
            self.end()
            raise

    def kill(self) -> None:
        """SIGKILL. Any thread; calls that wait for the process fail at once."""
        if self._child is not None:
            self._child.kill()

    def end(self, *, at_once: bool = False) -> str:
        """Make sure that it has ended. Returns how: "ended by SIGSEGV", "exited with code 3"."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        child = self._child
        if child is None:
            return "did not start"
        if at_once:
            child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return _how(child.wait(_FAREWELL_S))
        child.kill()
        child.wait()
        return "hung and was killed"

    def _start(self, path: Path, folder: int) -> None:
        self._child = subprocess.Popen(  # noqa: S603  (our own command line)
            [*self._command, "--uds", str(path), "--parent", str(os.getpid())],
            env=environment.of_a_model(os.environ),
            pass_fds=(folder,),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # both are logs; a model library that prints must not reach the worker's stdout
            process_group=0,  # a Ctrl-C or a SIGTERM to the worker's group drains the worker, and needs the engine
        )

    def _connect(self, path: Path, end_s: float) -> socket.socket:
        assert self._child is not None  # noqa: S101
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            while sock.connect_ex(str(path)):  # not there yet, or not listening yet
                self._still_waiting(end_s)
                time.sleep(_LOOK_EVERY_S)
            if peer_pid(sock, os.geteuid()) != self._child.pid:
                raise Garbage("another process answers")
        except BaseException:
            sock.close()
            raise
        return sock

    def _greeted(self, end_s: float) -> fast.EngineHello:
        while not self.connection.waiting(_LOOK_EVERY_S):
            self._still_waiting(end_s)
        first = self.connection.receive()
        if first.kind == EngineFrameKind.ERROR:
            error = exception_of(first.error)
            if isinstance(error, LoadFailed):
                raise error
            kind = ModelAway if isinstance(error, OutOfMemory | EngineDied) else LoadFailed
            raise kind(f"{type(error).__name__} while loading")
        if first.kind != EngineFrameKind.HELLO:
            raise Garbage("no greeting")
        return first.hello

    def _still_waiting(self, end_s: float) -> None:
        assert self._child is not None  # noqa: S101
        if self._child.poll() is not None:
            raise Closed("it ended")
        if time.perf_counter() > end_s:
            raise TimeoutError("its time was up")


@contextlib.contextmanager
def _own_folder() -> Iterator[int]:
    """The descriptor of a temporary folder: a socket's path is limited to 107 bytes, and TMPDIR may be longer."""
    with tempfile.TemporaryDirectory(prefix="darkroom-engine-") as folder:  # mode 0700
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _how(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"
