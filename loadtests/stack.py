"""A whole darkroom on free loopback ports, for as long as a `with` block lasts.

Load tests, benchmarks and their tests start the services through this: real processes, the
emulated GPU, a data folder of their own. It must not know what is measured.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from gateway.access.keys import KeyFile
from infra.local import layout, secret_file
from infra.local.emulator_lock import ALIVE_PATH

ROOT = Path(__file__).resolve().parent.parent
HOST = layout.HOST
START_S = 60.0
STOP_S = 30.0


class StackError(RuntimeError):
    """A service did not start, or died; the text holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """The GPU that the workers pretend to have: see `emulated` in worker/engines/README.md for the batch curve."""

    step_ms: float = 4.0
    alpha: float = 0.3
    max_batch: int = 8
    steps: int = 8

    def models_toml(self) -> str:
        """A models file with this engine alone."""
        return (
            f'[[models]]\nname = "emulated"\nengine = "emulated"\nwidth = 256\nheight = 256\n'
            f"num_inference_steps = {self.steps}\nguidance_scale = 3.5\nmax_width = 1024\nmax_height = 1024\n"
            f"max_batch = {self.max_batch}\nstep_ms = {self.step_ms}\nalpha = {self.alpha}\n"
        )


@dataclass(slots=True, kw_only=True)
class Stack:
    """The processes that were started, in their order, and where to reach them."""

    folder: Path
    plan: layout.Stack
    environment: Mapping[str, str]
    own_sessions: bool = True
    """Whether each process gets a session: then Ctrl-C reaches us alone, and we stop the processes in order. Linux
    divides a busy core between sessions (autogroup), so processes that a benchmark compares must share one."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The gateway's address."""
        return self.plan.url

    @property
    def log_path(self) -> Path:
        """Core's event log."""
        return self.plan.data_dir / "core" / "log.sqlite3"

    def start(self, name: str, command: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        """Start one process; its output goes to `logs/{name}.log`."""
        with self.log_file(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=self.own_sessions,
            )

    def log_file(self, name: str) -> Path:
        """Where the output of a process lies."""
        return self.folder / "logs" / f"{name}.log"

    def until(self, name: str, ready: Callable[[], bool], what: str, within_s: float = START_S) -> None:
        """Wait for a condition that process `name` brings about. Raises StackError when it dies or takes too long."""
        deadline = time.monotonic() + within_s
        while not ready():
            code = self.processes[name].poll()
            if code is not None or time.monotonic() > deadline:
                why = f"ended with {code}" if code is not None else f"was not {what} after {within_s:g} s"
                raise StackError(f"{name} {why}; the end of its log:\n{self.tail(name)}")
            time.sleep(0.05)

    def tail(self, name: str) -> str:
        """The last lines that a process wrote."""
        return "\n".join(self.log_file(name).read_text(errors="replace").splitlines()[-20:])

    def create_key(self, tenant: str) -> str:
        """A new API key of `tenant`; the gateway sees it within a second, at its start at once."""
        return KeyFile(self.plan.data_dir / "gateway" / "keys.json").create(tenant, now_ms=time.time_ns() // 1_000_000)

    def verify(self) -> str:
        """What `core verify` says against the log, after core has stopped; empty when all is well."""
        command = [sys.executable, "-m", "core", "verify"]
        done = subprocess.run(
            command, cwd=ROOT, env=dict(self.environment), capture_output=True, text=True, check=False, timeout=300
        )
        return f"core verify: {done.stdout.strip()} {done.stderr.strip()}" if done.returncode else ""

    def end(self, name: str) -> None:
        """Ends one process; the others run on."""
        process = self.processes.pop(name)
        process.terminate()
        process.wait(STOP_S)

    def stop(self) -> list[str]:
        """Ends all processes, the last started first, and waits for each. Returns a line for each that ended badly."""
        troubles: list[str] = []
        for name, process in reversed(self.processes.items()):
            if process.poll() is not None:
                troubles.append(f"{name} had ended by itself with {process.returncode}")
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                troubles.append(f"{name} did not stop within {STOP_S:g} s and was killed")
        self.processes.clear()
        return troubles


def prepare(
    folder: Path,
    gpu: Emulated,
    extra: Mapping[str, str] | None = None,
    *,
    workers: int = 1,
    own_sessions: bool = True,
) -> Stack:
    """A stack with folders, ports, models file and environment chosen, nothing started."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    models = folder / "models.toml"
    models.write_text(gpu.models_toml())
    names = [each.name for each in fields(layout.Ports)]
    ports = layout.Ports(**dict(zip(names, free_ports(len(names)), strict=True)))
    plan = layout.Stack(data_dir=folder / "data", ports=ports, workers=workers)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "OTEL_"))}
    environment = {
        **layout.service_environment(
            plan, emulator_secret=secret_file.read_or_make(plan.emulator_secret_file), inherited=inherited
        ),
        "DARKROOM_MODELS_FILE": str(models),
        "DARKROOM_LOG_FORMAT": "json",
        **(extra or {}),
    }
    return Stack(folder=folder, plan=plan, environment=environment, own_sessions=own_sessions)


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """The whole stack, up and ready; all ended on leaving. Raises StackError also for what ended badly."""
    troubles: list[str] = []
    try:
        programs = stack.plan.programs()
        for program in programs:
            start_program(stack, program)
        for program in programs:
            until_ready(stack, program)
        yield stack
    finally:
        troubles = stack.stop()
    if troubles:
        raise StackError("; ".join(troubles))


def start_program(stack: Stack, program: layout.Program) -> None:
    """Starts one of the plan's processes."""
    stack.start(program.name, program.command, program.own)


def until_ready(stack: Stack, program: layout.Program) -> None:
    """Waits until the program reports that it is ready. Raises StackError."""
    url = urlsplit(program.ready_url or f"{stack.plan.emulator_url}{ALIVE_PATH}")
    port = url.port or 0
    stack.until(program.name, lambda: answers(port, url.path) == 200, "ready")


def answers(port: int, path: str) -> int | None:
    """The status of a GET on loopback, None when nothing answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def post(url_port: int, path: str, body: object, key: str) -> tuple[int, bytes]:
    """A JSON POST on loopback: status and body; (0, b"") when nothing answers."""
    connection = http.client.HTTPConnection(HOST, url_port, timeout=10)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        connection.request("POST", path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
