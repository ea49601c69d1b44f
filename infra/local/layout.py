"""The folders of a local stack, its ports, and the environment of its processes.

Opens nothing: it reads the environment, the current folder and the home folder. Tests use it to start single processes.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.lifecycle import ConfigError
from infra.local.addresses import LOOPBACK, netloc

HOST = LOOPBACK
_DEFAULT_PORTS = {
    "DARKROOM_GATEWAY_PORT": 8080,
    "DARKROOM_GATEWAY_ADMIN_PORT": 9101,
    "DARKROOM_CORE_PORT": 50051,
    "DARKROOM_CORE_ADMIN_PORT": 9102,
    "DARKROOM_WORKER_ADMIN_PORT": 9103,
    "DARKROOM_EMULATOR_PORT": 4566,
}
_DEFAULT_HOSTS = {
    "DARKROOM_GATEWAY_HOST": HOST,
    "DARKROOM_GATEWAY_ADMIN_HOST": HOST,
    "DARKROOM_CORE_HOST": HOST,
    "DARKROOM_CORE_ADMIN_HOST": HOST,
    "DARKROOM_WORKER_ADMIN_HOST": HOST,
}
_ACCESS_KEY_ID = "local"
VARIABLES = (
    *(*_DEFAULT_PORTS, *_DEFAULT_HOSTS),
    *("DARKROOM_LOCAL_WORKERS", "DARKROOM_LOCAL_GATEWAYS", "DARKROOM_LOCAL_DEVICES", "DARKROOM_LOCAL_PYTHON"),
    "DARKROOM_EMULATOR_HOSTS",
)
"""What the local stack reads itself."""
_COPY_STRIDE = 10  # the second copy's admin port is the first one's plus ten, and so on


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of a stack's first copies."""

    gateway: int
    gateway_admin: int
    core: int
    core_admin: int
    worker_admin: int
    emulator: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The addresses that a stack's services listen on, by the names of their ports. The emulator stays on loopback."""

    gateway: str = HOST
    gateway_admin: str = HOST
    core: str = HOST
    core_admin: str = HOST
    worker_admin: str = HOST
    emulator: str = HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process of the stack: `own` is what its environment adds to the stack's."""

    name: str
    module: tuple[str, ...]
    own: Mapping[str, str] = field(default_factory=dict)
    ready_url: str = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", *self.module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack, running or not."""

    data_dir: Path
    ports: Ports
    hosts: Hosts = Hosts()
    workers: int = 1
    gateways: int = 1
    worker_environments: tuple[Mapping[str, str], ...] = ()
    """Each worker's own variables (device, threads), once assigned; not known for a stack that was found running."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, data_dir: Path = Path("var")) -> "Stack":
        """The stack that `DARKROOM_DATA_DIR`, `DARKROOM_*_HOST`, `_PORT` and `DARKROOM_LOCAL_*` describe.

        Raises ConfigError.
        """
        hosts = {name: environ.get(name) or default for name, default in _DEFAULT_HOSTS.items()}
        ports = {name: _number(environ, name, default, 65_535) for name, default in _DEFAULT_PORTS.items()}
        return cls(
            data_dir=_absolute(Path(environ.get("DARKROOM_DATA_DIR") or data_dir)),
            ports=Ports(**{_field(name): port for name, port in ports.items()}),
            hosts=Hosts(**{_field(name): host for name, host in hosts.items()}),
            workers=_number(environ, "DARKROOM_LOCAL_WORKERS", 1, 64),
            gateways=_number(environ, "DARKROOM_LOCAL_GATEWAYS", 1, 64),
        )

    @property
    def url(self) -> str:
        """Where this machine reaches the gateway, whatever address it listens on."""
        return f"http://{netloc(self.hosts.gateway, self.ports.gateway)}"

    @property
    def emulator_url(self) -> str:
        return f"http://{HOST}:{self.ports.emulator}"

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    @property
    def api_key_file(self) -> Path:
        return self.data_dir / "api-key"

    @property
    def internal_token_file(self) -> Path:
        return self.data_dir / "internal-token"

    @property
    def emulator_secret_file(self) -> Path:
        """The one secret that the emulator answers to."""
        return self.data_dir / "emulator-secret"

    @property
    def state_file(self) -> Path:
        """How the stack was started: ports, hosts, settings, and the command of each program."""
        return self.data_dir / "local" / "stack.json"

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "local" / "supervisord.pid"

    @property
    def supervisor_file(self) -> Path:
        return self.data_dir / "local" / "supervisord.conf"

    def programs(self) -> list[Program]:
        """All processes, in the order of their start."""
        return [
            Program(
                name="emulator",
                module=("infra.local.emulator",),
                own=emulator_environment(self.data_dir, self.ports.emulator),
            ),
            Program(
                name="core", module=("core", "serve"), ready_url=_ready(self.hosts.core_admin, self.ports.core_admin)
            ),
            *(self._worker(number) for number in range(self.workers)),
            *(self._gateway(number) for number in range(self.gateways)),
        ]

    def used_ports(self) -> list[tuple[int, str]]:
        """Every port with the variable that moves it; `host_of` gives its address."""
        used = [(port, f"DARKROOM_{name.upper()}_PORT") for name, port in asdict(self.ports).items()]
        for program in self.programs():
            used += [(int(value), name) for name, value in program.own.items() if name in _DEFAULT_PORTS]
        return sorted(set(used))

    def host_of(self, variable: str) -> str:
        """The address on which the port of `variable`, such as DARKROOM_CORE_PORT, is bound."""
        host: str = getattr(self.hosts, _field(variable))
        return host

    def _worker(self, number: int) -> Program:
        admin = self.ports.worker_admin + number * _COPY_STRIDE
        own = {"DARKROOM_WORKER_ADMIN_PORT": str(admin)} if number else {}
        own |= self.worker_environments[number] if number < len(self.worker_environments) else {}
        return Program(
            name=_copy("worker", number), module=("worker",), own=own, ready_url=_ready(self.hosts.worker_admin, admin)
        )

    def _gateway(self, number: int) -> Program:
        port, admin = self.ports.gateway + number, self.ports.gateway_admin + number * _COPY_STRIDE
        own = {"DARKROOM_GATEWAY_PORT": str(port), "DARKROOM_GATEWAY_ADMIN_PORT": str(admin)} if number else {}
        return Program(
            name=_copy("gateway", number),
            module=("gateway",),
            own=own,
            ready_url=_ready(self.hosts.gateway_admin, admin),
        )


def service_environment(
    stack: Stack, *, emulator_secret: str, internal_token: str = "", inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of all processes: `inherited` (this process's by default), the stack's on top.

    No AWS_* variable of the caller passes: a local stack never touches a real account.
    """
    base = os.environ if inherited is None else inherited
    clean = {name: value for name, value in base.items() if not name.startswith("AWS_")}
    ports = {f"DARKROOM_{name.upper()}_PORT": str(port) for name, port in asdict(stack.ports).items()}
    hosts = {name: stack.host_of(name) for name in _DEFAULT_HOSTS}
    return {
        **clean,
        **ports,
        **hosts,
        **aws_environment(stack.emulator_url, emulator_secret),
        "DARKROOM_DATA_DIR": str(stack.data_dir),
        "DARKROOM_CORE_TARGET": netloc(stack.hosts.core, stack.ports.core),
        "DARKROOM_INTERNAL_TOKEN": internal_token,
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
        "PYTHONUNBUFFERED": "1",
    }


def aws_environment(endpoint_url: str, secret: str) -> dict[str, str]:
    """What points botocore at an emulator that answers to `secret`."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": _ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def emulator_environment(data_dir: Path, port: int) -> dict[str, str]:
    """What ministack needs to stay on loopback and keep its data on disk. Its key is in `aws_environment`."""
    home = data_dir / "emulator"
    return {
        "BIND_HOST": HOST,  # every interface otherwise
        "GATEWAY_PORT": str(port),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "TMPDIR": str(home / "tmp"),  # holds its pid file
        "DOCKER_HOST": f"unix://{home}/no-docker",  # it would remove containers of other copies of itself
        "LOG_LEVEL": "WARNING",
    }


def _field(variable: str) -> str:
    return variable.removeprefix("DARKROOM_").removesuffix("_PORT").removesuffix("_HOST").lower()


def _copy(name: str, number: int) -> str:
    return f"{name}-{number + 1}" if number else name


def _ready(host: str, port: int) -> str:
    return f"http://{netloc(host, port)}/readyz"


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ConfigError("DARKROOM_DATA_DIR begins with ~ and the name of a user that does not exist") from None


def _number(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ConfigError(f"{name} must be a number from 1 to {most}")
    return int(text)
