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
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_S = 60.0
STOP_S = 30.0


class StackError(RuntimeError):
    """A service did not start, or died; the text holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """The GPU that the workers pretend to have: see `emulated` in ARCHITECTURE.md for the batch curve."""

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
    environment: Mapping[str, str]
    ports: Mapping[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://{HOST}:{self.ports['gateway']}"

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
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop things in order
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
        """A new API key of `tenant`, made by the gateway's own command."""
        command = [sys.executable, "-m", "gateway", "keys", "create", tenant]
        done = subprocess.run(
            command, cwd=ROOT, env=dict(self.environment), capture_output=True, text=True, check=False, timeout=60
        )
        keys = [word for word in done.stdout.split() if word.startswith("dk_")]
        if done.returncode or not keys:
            raise StackError(f"`gateway keys create` ended with {done.returncode}: {done.stderr.strip()}")
        return keys[0]

    def stop(self) -> list[str]:
        """End everything in reverse order and wait for it. Returns what did not end well, in words."""
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


def prepare(folder: Path, gpu: Emulated, extra: Mapping[str, str] | None = None) -> Stack:
    """A stack with folders, ports, models file and environment chosen, nothing started."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    models = folder / "models.toml"
    models.write_text(gpu.models_toml())
    names = ("gateway", "gateway_admin", "core", "core_admin", "worker_admin", "aws")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("DARKROOM_", "OTEL_", "AWS_"))},
        "PYTHONUNBUFFERED": "1",
        "DARKROOM_DATA_DIR": str(folder / "data"),
        "DARKROOM_MODELS_FILE": str(models),
        "DARKROOM_LOG_FORMAT": "json",
        "DARKROOM_CORE_PORT": str(ports["core"]),
        "DARKROOM_CORE_ADMIN_PORT": str(ports["core_admin"]),
        "DARKROOM_CORE_TARGET": f"{HOST}:{ports['core']}",
        "DARKROOM_GATEWAY_PORT": str(ports["gateway"]),
        "DARKROOM_GATEWAY_ADMIN_PORT": str(ports["gateway_admin"]),
        "DARKROOM_WORKER_ADMIN_PORT": str(ports["worker_admin"]),
        "AWS_ENDPOINT_URL": f"http://{HOST}:{ports['aws']}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **(extra or {}),
    }
    return Stack(folder=folder, environment=environment, ports=ports)


@contextmanager
def running(stack: Stack, *, workers: int = 1) -> Iterator[Stack]:
    """The emulator, core, `workers` workers and the gateway, up and ready; all ended on leaving."""
    try:
        start_aws(stack)
        start_service(stack, "core", stack.ports["core_admin"])
        for number in range(workers):
            admin = stack.ports["worker_admin"] if number == 0 else free_ports(1)[0]
            start_service(stack, "worker", admin, name=f"worker-{number}")
        start_service(stack, "gateway", stack.ports["gateway_admin"])
        yield stack
    finally:
        stack.stop()


def start_aws(stack: Stack) -> None:
    """The local SQS and S3, with its data in the stack's folder."""
    state = stack.folder / "aws"
    settings = {
        "BIND_HOST": HOST,
        "SERVICES": "s3,sqs",
        "GATEWAY_PORT": str(stack.ports["aws"]),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
    }
    stack.start("aws", [sys.executable, "-m", "ministack"], settings)
    stack.until("aws", lambda: answers(stack.ports["aws"], "/") is not None, "listening")


def start_service(stack: Stack, module: str, admin_port: int, *, name: str = "") -> None:
    """One service, waited for until its `/readyz` says 200."""
    name = name or module
    extra = {"DARKROOM_WORKER_ADMIN_PORT": str(admin_port)} if module == "worker" else {}
    command = [sys.executable, "-m", module, *(["serve"] if module == "core" else [])]
    stack.start(name, command, extra)
    stack.until(name, lambda: answers(admin_port, "/readyz") == 200, "ready")


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
    """Ports of loopback that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
