"""A whole darkroom of real processes on loopback: emulator, core, gateways, workers, with files of its own.

    with Stack(tmp_path, workers=2) as stack:
        body = stack.client().submit(prompt="…")

Each process can be killed, stopped, continued and started again. Leaving the stack stops every process and
checks that it ended cleanly and logged neither a prompt nor a key.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.access.keys import KeyFile
from infra.local.emulator_lock import ALIVE_PATH
from tests.api import CANARY, Client, Memory, fetch
from tests.cloud import Cloud
from tests.emulators import SECRET, aws_environment, locked_environment
from tests.eventually import Hopeless, until
from tests.process import Process, free_port, module, run

READY_S = 120.0

EMULATED = """
[[models]]
name = "quick"
engine = "emulated"
width = 64
height = 64
num_inference_steps = 4
guidance_scale = 3.5
max_width = 512
max_height = 512
max_batch = 8
step_ms = 2.0
alpha = 0.3

[[models]]
name = "slow"
engine = "emulated"
width = 64
height = 64
num_inference_steps = 40
guidance_scale = 3.5
max_width = 512
max_height = 512
max_batch = 4
step_ms = 50.0
alpha = 0.3
"""
"""`quick` takes about 10 ms; `slow` takes 2 s and more, so that a test can act while it runs."""


class Stack:
    """`env` goes to every service, `models` is the text of the models file, `tenants` get a key each."""

    def __init__(
        self,
        folder: Path,
        *,
        gateways: int = 1,
        workers: int = 1,
        models: str = EMULATED,
        visibility_s: int = 3,
        env: Mapping[str, str] | None = None,
        gateway_env: Mapping[str, str] | None = None,
        tenants: Sequence[str] = ("alice", "bob"),
    ) -> None:
        self.folder = folder
        self.memory = Memory()
        self.checked: set[str] = set()
        """Ids of generations whose pictures the invariants have looked at."""
        self.log_before: Sequence[object] = []
        """The log as the invariants last saw it; a later log must begin with the same events."""
        self.emulated = {each["name"] for each in tomllib.loads(models)["models"] if each["engine"] == "emulated"}
        self.tenants = list(tenants)
        self.emulator_port, self.core_port, self.core_admin = free_port(), free_port(), free_port()
        self.cloud = Cloud(self.emulator_port)
        (folder / "models.toml").write_text(models, "utf-8")
        self._env = self._shared_env(visibility_s) | dict(env or {})
        core_ports = {"DARKROOM_CORE_PORT": str(self.core_port), "DARKROOM_CORE_ADMIN_PORT": str(self.core_admin)}
        self.emulator = Process("emulator", module("infra.local.emulator"), self._emulator_env(), folder)
        self.core = Process("core", module("core", "serve"), self._env | core_ports, folder)
        self.gateway_ports = [free_port() for _ in range(gateways)]
        self.gateway_admins = [free_port() for _ in range(gateways)]
        self.worker_admins = [free_port() for _ in range(workers)]
        self.gateways = [self._gateway(number, gateway_env or {}) for number in range(gateways)]
        self.workers = [self._worker(number) for number in range(workers)]
        self._keys: dict[str, str] = {}

    # Life

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill_everything()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self.stop()
        finally:
            self.kill_everything()
        if error is None:
            self.check_logs()

    def start(self) -> None:
        """Starts all processes concurrently and waits until all report that they are ready."""
        self.make_keys()
        for process in self.processes:
            process.start()
        self.ready()

    def stop(self) -> None:
        """SIGTERM to all; each must end cleanly. The emulator last: a service's drain needs it."""
        for process in [*self.workers, *self.gateways, self.core, self.emulator]:
            process.stop()

    def kill_everything(self) -> None:
        """SIGKILL to whatever still runs, stopped processes included."""
        self.cloud.close()
        for process in self.processes:
            process.kill()
        assert not any(process.alive for process in self.processes)

    @property
    def processes(self) -> list[Process]:
        return [self.emulator, self.core, *self.gateways, *self.workers]

    def ready(self, deadline_s: float = READY_S) -> None:
        """Wait until every process that runs says it is ready."""
        self.emulator_ready(deadline_s)
        ports = [self.core_admin, *self.gateway_admins, *self.worker_admins]
        for process, port in zip([self.core, *self.gateways, *self.workers], ports, strict=True):
            if process.alive:
                self.service_ready(process, port, deadline_s)

    def emulator_ready(self, deadline_s: float = READY_S) -> None:
        until(lambda: self._answers(self.emulator, self.emulator_port, ALIVE_PATH), deadline_s)

    def service_ready(self, process: Process, admin_port: int, deadline_s: float = READY_S) -> None:
        until(
            lambda: self._answers(process, admin_port, "/readyz"),
            deadline_s,
            what=f"{process.name} is ready\n{process.tail()}",
        )

    def restart_core(self, **env: str) -> None:
        self.core.start(**env)
        self.service_ready(self.core, self.core_admin)

    def restart_worker(self, number: int = 0, **env: str) -> None:
        self.workers[number].start(**env)
        self.service_ready(self.workers[number], self.worker_admins[number])

    def restart_gateway(self, number: int = 0, **env: str) -> None:
        self.gateways[number].start(**env)
        self.service_ready(self.gateways[number], self.gateway_admins[number])

    # Access

    def client(self, tenant: str = "", *, gateway: int = 0) -> Client:
        """A client of a tenant (the first one by default) at one of the gateways."""
        tenant = tenant or self.tenants[0]
        return Client(self.gateway_ports[gateway], tenant, self._keys[tenant], self.memory)

    def readiness(self, admin_port: int) -> tuple[int, str]:
        """Status and text of an admin port's /readyz; status 0 when nothing listens."""
        return self._get(admin_port, "/readyz")

    def metrics(self, admin_port: int) -> dict[str, float]:
        """What /metrics says, by sample name with labels."""
        _, text = self._get(admin_port, "/metrics")
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def command(self, name: str, *arguments: str, expect: int = 0, data: Path | None = None) -> str:
        """Run `python -m name …` with the stack's settings, or on another data folder, to its end; what it printed."""
        env = self._env | ({"DARKROOM_DATA_DIR": str(data)} if data else {})
        done = run(name, *arguments, env=env, folder=self.folder)
        assert done.returncode == expect, f"{name} {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if expect == 0 else done.stdout + done.stderr

    @property
    def log_file(self) -> Path:
        return self.folder / "data" / "core" / "log.sqlite3"

    def make_keys(self) -> None:
        """A key for each tenant that has none yet."""
        file = KeyFile(self.folder / "data" / "gateway" / "keys.json")
        for tenant in self.tenants:
            if tenant not in self._keys:
                self._keys[tenant] = file.create(tenant, now_ms=1)

    def check_logs(self) -> None:
        """No prompt, key or signed link in any line that any process logged."""
        secrets = [CANARY, SECRET, *(key.rsplit("_", 1)[1] for key in self._keys.values())]
        for process in self.processes:
            words = secrets if process is self.emulator else [*secrets, "X-Amz-Signature", "signature="]
            lines = process.output().splitlines()
            leaks = [line[:300] for line in lines for word in words if word in line]
            assert not leaks, f"{process.name} logged what nobody may read: {leaks[:3]}"

    # How it is built

    def _shared_env(self, visibility_s: int) -> dict[str, str]:
        return (
            _clean_env()
            | aws_environment(f"http://127.0.0.1:{self.emulator_port}")
            | {
                "PYTHONUNBUFFERED": "1",
                "DARKROOM_DATA_DIR": str(self.folder / "data"),
                "DARKROOM_LOG_FORMAT": "json",
                "DARKROOM_LOG_LEVEL": "debug",
                "DARKROOM_MODELS_FILE": str(self.folder / "models.toml"),
                "DARKROOM_CORE_TARGET": f"127.0.0.1:{self.core_port}",
                "DARKROOM_VISIBILITY_S": str(visibility_s),
                "DARKROOM_CORE_REPLY_VISIBILITY_S": str(visibility_s),
            }
        )

    def _emulator_env(self) -> dict[str, str]:
        return _clean_env() | locked_environment(self.folder, self.emulator_port)

    def _gateway(self, number: int, env: Mapping[str, str]) -> Process:
        ports = {
            "DARKROOM_GATEWAY_PORT": str(self.gateway_ports[number]),
            "DARKROOM_GATEWAY_ADMIN_PORT": str(self.gateway_admins[number]),
        }
        return Process(f"gateway-{number}", module("gateway"), self._env | ports | dict(env), self.folder)

    def _worker(self, number: int) -> Process:
        own = {
            "DARKROOM_WORKER_ID": f"worker-{number}",
            "DARKROOM_WORKER_ADMIN_PORT": str(self.worker_admins[number]),
        }
        return Process(f"worker-{number}", module("worker"), self._env | own, self.folder)

    def _answers(self, process: Process, port: int, path: str) -> bool:
        if not process.alive:
            raise Hopeless(f"{process.name} has ended\n{process.tail()}")
        status, text = self._get(port, path)
        assert status == 200, f"{process.name} {path}: {status} {text[:300]}\n{process.tail()}"
        return True

    def _get(self, port: int, path: str) -> tuple[int, str]:
        try:
            answer = fetch("127.0.0.1", port, "GET", path, None, {}, 5)
        except OSError as error:
            return 0, str(error)
        return answer.status, answer.body.decode("utf-8", "replace")


def _clean_env() -> dict[str, str]:
    """This process's environment without any setting of ours, the store's or the traces'."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("DARKROOM_", "AWS_", "OTEL_"))}
