"""Starting, finding and stopping a stack's processes. supervisord keeps them alive; marks tell which are a stack's.

supervisord gets no control socket: it is stopped by SIGTERM, and stops gateways, workers, core and emulator in turn.
Where it has died, they are found by their marks and stopped here in the same order.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.lifecycle import EXIT_MISCONFIGURED, ConfigError
from infra.local import addresses, folder, marks, secret_file, settings_seen
from infra.local.layout import HOST, Hosts, Ports, Stack, service_environment
from infra.local.marks import SUPERVISOR, Marked
from infra.local.tail import Tail
from infra.settings import is_loopback

STOP_WAIT_S = 30
_POLL_S = 0.1
_ORDER = ("gateway", "worker", "core", "emulator")


class StackError(Exception):
    """The stack did not start or stop. The text is for the person at the terminal."""


@dataclass(slots=True, kw_only=True)
class Started:
    """A stack that this process started, and its logs from then on."""

    stack: Stack
    process: "subprocess.Popen[bytes]"
    tails: Mapping[str, Tail]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The living processes of a stack. `stack` has the ports it was started with if its state file is readable."""

    stack: Stack
    supervisor: Marked | None
    programs: tuple[Marked, ...]
    state: Mapping[str, object]

    @property
    def nothing(self) -> bool:
        """Whether no process is left."""
        return self.supervisor is None and not self.programs


def look(data_dir: Path) -> Seen:
    """What runs with this data folder, whatever became of its files."""
    stack = Stack.from_env({}, data_dir=data_dir)
    state = folder.read_state(stack)
    found = marks.find(stack.data_dir)
    return Seen(
        stack=_recorded(stack, state),
        supervisor=next((each for each in found if each.name == SUPERVISOR), None),
        programs=tuple(each for each in found if each.name != SUPERVISOR),
        state=state,
    )


def running(data_dir: Path) -> Stack | None:
    """The stack that a supervisor keeps alive with this data folder, on the ports it was started with."""
    seen = look(data_dir)
    return seen.stack if seen.supervisor is not None else None


def _recorded(stack: Stack, state: Mapping[str, object]) -> Stack:
    try:
        return Stack(
            data_dir=stack.data_dir,
            ports=Ports(**state["ports"]),  # type: ignore[arg-type]
            hosts=Hosts(**state.get("hosts", {})),  # type: ignore[arg-type]
            workers=int(str(state["workers"])),
            gateways=int(str(state["gateways"])),
        )
    except (KeyError, TypeError, ValueError):
        return stack


def environment_of(stack: Stack) -> dict[str, str]:
    """The environment of the stack's services, and of commands run beside them. Raises ConfigError."""
    return service_environment(
        stack,
        emulator_secret=secret_file.read_or_make(stack.emulator_secret_file),
        internal_token=secret_file.read_or_make(stack.internal_token_file),
    )


def start(stack: Stack) -> Started:
    """Starts everything and waits for nothing. Raises ConfigError for a port in use or an unusable folder."""
    check_ports(stack)
    folder.prepare(stack)
    environment = environment_of(stack)
    if not is_loopback(stack.hosts.gateway):
        make_api_key(stack, environment)  # without one a gateway that others reach refuses to start
    with folder.telling(stack):
        _write_files(stack)
        output = (stack.logs / "supervisord.out").open("ab")
    tails = {program.name: Tail(log_file(stack, program.name)) for program in stack.programs()}
    tails[SUPERVISOR] = Tail(log_file(stack, SUPERVISOR))
    with output:
        process = subprocess.Popen(
            [sys.executable, "-X", marks.mark(stack.data_dir, SUPERVISOR), "-P", "-m", "infra.local.supervise"],
            cwd=stack.data_dir,
            env=environment | {"DARKROOM_LOCAL_PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C at the terminal is ours to handle
        )
    return Started(stack=stack, process=process, tails=tails)


def _write_files(stack: Stack) -> None:
    names = [program.name for program in stack.programs()]
    folder.write_supervisor_file(stack, {name: marks.mark(stack.data_dir, name) for name in names}, STOP_WAIT_S)
    programs = {
        each.name: {
            "module": list(each.module),
            "own": dict(each.own),
            "mark": marks.mark(stack.data_dir, each.name),
        }
        for each in stack.programs()
    }
    state: dict[str, object] = {
        "ports": asdict(stack.ports),
        "hosts": asdict(stack.hosts),
        "workers": stack.workers,
        "gateways": stack.gateways,
        "cwd": str(Path.cwd()),
        "settings": settings_seen.settings_of(os.environ),
        "files": settings_seen.files_of(os.environ),
        "programs": programs,
    }
    folder.write_state(stack, state)


def log_file(stack: Stack, name: str) -> Path:
    """The log of a program."""
    return stack.logs / f"{name}.log"


def read_key(stack: Stack) -> str:
    """The stack's first API key."""
    return stack.api_key_file.read_text("utf-8").strip()


def make_api_key(stack: Stack, environment: dict[str, str]) -> None:
    """The first start's API key, of the tenant "local"."""
    if stack.api_key_file.exists():
        return
    command = [sys.executable, "-P", "-m", "gateway", "keys", "create", "local"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode == EXIT_MISCONFIGURED:
        raise ConfigError(done.stderr.strip().removeprefix("darkroom: "))
    if done.returncode != 0 or not lines:
        raise StackError(f"no API key could be made: {done.stderr.strip()[-500:]}")
    with folder.telling(stack):
        folder.write_secret(stack.api_key_file, lines[-1].strip())


def stop(stack: Stack, started: Started | None = None, *, on_wait: Callable[[str], None] = lambda _: None) -> bool:
    """Stops the stack and returns once it is gone; False when there was none. `on_wait` gets what is waited for.

    Raises StackError for what cannot be stopped.
    """
    if started is not None:
        _wait_spawned(started)
    seen = look(stack.data_dir)
    if seen.nothing:
        return False
    if seen.supervisor is not None:
        _signal(stack.data_dir, [seen.supervisor], signal.SIGTERM)
        _gone(lambda: _supervised(stack), STOP_WAIT_S * len(_ORDER), on_wait)
    for kind in _ORDER:  # what its supervisor has left behind
        _end(stack, kind, on_wait)
    _end(stack, SUPERVISOR, on_wait)
    if started is not None:
        started.process.wait(STOP_WAIT_S)
    left = marks.find(stack.data_dir)
    if left:
        raise StackError("these do not end: " + ", ".join(f"{each.name} (pid {each.pid})" for each in left))
    with contextlib.suppress(OSError):
        stack.pid_file.unlink(missing_ok=True)
    return True


def _supervised(stack: Stack) -> list[Marked]:
    """All processes while the supervisor lives, else none: on SIGTERM it ends after the others, unless it crashes."""
    found = marks.find(stack.data_dir)
    return found if any(each.name == SUPERVISOR for each in found) else []


def _end(stack: Stack, kind: str, on_wait: Callable[[str], None]) -> None:
    """Ends all processes of a kind: by SIGTERM, then by SIGKILL those that are left after STOP_WAIT_S."""

    def left() -> list[Marked]:
        return [each for each in marks.find(stack.data_dir) if each.name.partition("-")[0] == kind]

    for number, patience_s in ((signal.SIGTERM, STOP_WAIT_S), (signal.SIGKILL, 5)):
        if not left():
            return
        _signal(stack.data_dir, left(), number)
        _gone(left, patience_s, on_wait)


def _signal(data_dir: Path, processes: Iterable[Marked], number: signal.Signals) -> None:
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            if marks.is_alive(data_dir, each):
                os.kill(each.pid, number)


def _gone(left: Callable[[], Sequence[Marked]], patience_s: float, on_wait: Callable[[str], None]) -> None:
    """Waits until `left` finds nothing, for `patience_s` at most."""
    end = time.monotonic() + patience_s
    while (found := left()) and time.monotonic() < end:
        on_wait(", ".join(each.name for each in found if each.name != SUPERVISOR) or SUPERVISOR)
        time.sleep(_POLL_S)


def _wait_spawned(started: Started) -> None:
    """Waits, for 5 s at most, until all programs of a stack just started have called exec.

    A child of supervisord loses a SIGTERM that comes between its fork and exec, and supervisord would wait for it in
    vain.
    """
    wanted = {program.name for program in started.stack.programs()} | {SUPERVISOR}
    end = time.monotonic() + 5
    while time.monotonic() < end and started.process.poll() is None:
        if wanted <= {each.name for each in marks.find(started.stack.data_dir)}:
            return
        time.sleep(_POLL_S)


def check_ports(stack: Stack) -> None:
    """Raises ConfigError that names the first port in use, or wanted twice, and the variable that moves it."""
    wanted: dict[int, str] = {}
    for port, variable in stack.used_ports():
        if port in wanted:
            raise ConfigError(f"port {port} would be used twice: set {wanted[port]} or {variable}")
        wanted[port] = variable
        host = stack.host_of(variable)
        if not addresses.is_free(host, port, f"{variable.removesuffix('PORT')}HOST"):
            raise ConfigError(f"port {port} on {host} is in use: stop what listens there, or set {variable}")


def port_is_free(port: int) -> bool:
    """Whether the port is free on loopback."""
    return addresses.is_free(HOST, port, "DARKROOM_*_HOST")


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
