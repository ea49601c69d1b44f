"""Starting, watching and stopping a stack's processes. supervisord keeps them alive; its pid file says which is ours.

supervisord gets no control socket: it is stopped by SIGTERM, and stops gateways, workers, core and emulator in turn.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.lifecycle import ConfigError
from infra.local import addresses, http, secret_file
from infra.local.layout import HOST, Hosts, Ports, Program, Stack, service_environment
from infra.settings import is_loopback

START_DEADLINE_S = 120.0
_STOP_WAIT_S = 30
_POLL_S = 0.1
_COMPLAINT = "darkroom: "  # how lifecycle.print_config_error begins


class StackError(Exception):
    """The stack did not start or stop. The text is for the person at the terminal."""


@dataclass(slots=True)
class Started:
    """A stack that this process started, and where each log ended before that."""

    stack: Stack
    process: "subprocess.Popen[bytes]"
    log_offsets: dict[str, int] = field(default_factory=dict)


def running(data_dir: Path) -> Stack | None:
    """The stack that runs with this data folder, on the ports it was started with."""
    stack = Stack.from_env({}, data_dir=data_dir)
    if supervisor_pid(stack) is None:
        return None
    state = json.loads(stack.state_file.read_text())
    return Stack(
        data_dir=stack.data_dir,
        ports=Ports(**state["ports"]),
        hosts=Hosts(**state.get("hosts", {})),
        workers=state["workers"],
        gateways=state["gateways"],
    )


def supervisor_pid(stack: Stack) -> int | None:
    """The pid of the stack's living supervisord. A reused pid is recognised by its command line."""
    try:
        pid = int(stack.pid_file.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid if str(stack.supervisor_file) in _command_line(pid) else None


def start(stack: Stack) -> Started:
    """Starts everything and waits for nothing. Raises ConfigError for a port in use or an unusable folder."""
    check_ports(stack)
    _make_folders(stack)
    environment = service_environment(
        stack,
        emulator_secret=secret_file.read_or_make(stack.emulator_secret_file),
        internal_token=secret_file.read_or_make(stack.internal_token_file),
    )
    if not is_loopback(stack.hosts.gateway):
        _make_api_key(stack, environment)  # without one a gateway that others reach refuses to start
    stack.supervisor_file.write_text(_supervisor_config(stack))
    state: dict[str, object] = {"ports": asdict(stack.ports), "hosts": asdict(stack.hosts)}
    state |= {"workers": stack.workers, "gateways": stack.gateways}
    stack.state_file.write_text(json.dumps(state))
    stack.pid_file.unlink(missing_ok=True)
    offsets = {program.name: _size(_log_file(stack, program)) for program in stack.programs()}
    offsets["supervisord"] = _size(stack.logs / "supervisord.log")
    with (stack.logs / "supervisord.out").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(stack.supervisor_file)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C at the terminal is ours to handle
        )
    started = Started(stack, process, offsets)
    try:
        _make_api_key(stack, environment)  # meanwhile the services start
    except BaseException:
        stop(stack, started)
        raise
    return started


def wait_ready(started: Started, programs: list[Program], deadline_s: float = START_DEADLINE_S) -> None:
    """Returns once each program says that it is ready. Raises StackError with what is missing, and where to look."""
    end = time.monotonic() + deadline_s
    waiting = {program.name: program for program in programs if program.ready_url}
    while waiting:
        raise_complaint(started)
        for name, program in list(waiting.items()):
            if http.is_ready(program.ready_url):
                del waiting[name]
        if time.monotonic() > end:
            reasons = "; ".join(f"{name}: {http.unready_reasons(each.ready_url)}" for name, each in waiting.items())
            raise StackError(f"not ready after {deadline_s:.0f} s: {reasons}; see {started.stack.logs}")
        if waiting:
            time.sleep(_POLL_S)
    while not http.key_is_accepted(started.stack.url, read_key(started.stack)):  # a gateway looks once a second
        if time.monotonic() > end:
            raise StackError(f"the gateway does not accept the key in {started.stack.api_key_file}")
        time.sleep(_POLL_S)


def read_key(stack: Stack) -> str:
    """The stack's first API key."""
    return stack.api_key_file.read_text().strip()


def raise_complaint(started: Started) -> None:
    """Raises StackError when supervisord has ended, or a service has said that it cannot run."""
    for program in started.stack.programs():
        log = _log_file(started.stack, program)
        for line in _lines_since(log, started.log_offsets[program.name]):
            if line.startswith(_COMPLAINT):
                raise StackError(f"{program.name} cannot start: {line.removeprefix(_COMPLAINT)} (see {log})")
    if started.process.poll() is not None:
        raise StackError(f"supervisord has ended; see {started.stack.logs / 'supervisord.out'}")


def stop(stack: Stack, started: Started | None = None) -> bool:
    """Stops the stack and returns once it is gone; False when there was none. Raises StackError when it stays."""
    pid = started.process.pid if started is not None else supervisor_pid(stack)
    if pid is None:
        return False
    if started is not None:
        _wait_spawned(started)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _STOP_WAIT_S * 4
    while (started.process.poll() is None) if started is not None else (supervisor_pid(stack) is not None):
        if time.monotonic() > end:
            raise StackError(f"supervisord (pid {pid}) does not stop; see {stack.logs / 'supervisord.log'}")
        time.sleep(_POLL_S)
    stack.pid_file.unlink(missing_ok=True)
    return True


def _wait_spawned(started: Started) -> None:
    """Between fork and exec a child of supervisord loses its SIGTERM, and would be waited for in vain."""
    log = started.stack.logs / "supervisord.log"
    end = time.monotonic() + 5
    while time.monotonic() < end and started.process.poll() is None:
        lines = _lines_since(log, started.log_offsets["supervisord"])
        if all(any(f"spawned: '{program.name}'" in line for line in lines) for program in started.stack.programs()):
            time.sleep(0.3)
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
    """Whether loopback has it free."""
    return addresses.is_free(HOST, port, "DARKROOM_*_HOST")


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _make_folders(stack: Stack) -> None:
    if '"' in str(stack.data_dir) or "\n" in str(stack.data_dir):
        raise ConfigError("DARKROOM_DATA_DIR: the name may hold neither quotes nor line ends")
    try:
        stack.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        emulator = stack.data_dir / "emulator"
        for folder in (stack.logs, stack.state_file.parent, emulator, emulator / "tmp"):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data folder {stack.data_dir}: {error.strerror}; set DARKROOM_DATA_DIR") from None


def _make_api_key(stack: Stack, environment: dict[str, str]) -> None:
    """The first start's API key, of the tenant "local"."""
    if stack.api_key_file.exists():
        return
    command = [sys.executable, "-m", "gateway", "keys", "create", "local"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise StackError(f"no API key could be made: {done.stderr.strip()[-500:]}")
    _write_secret(stack.api_key_file, lines[-1].strip())


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


def _supervisor_config(stack: Stack) -> str:
    """Supervisord's file. Programs share a group by kind, so that copies stop together."""
    lines = [
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        f"logfile={_plain(stack.logs / 'supervisord.log')}",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        f"pidfile={_plain(stack.pid_file)}",
        "umask=077",  # its own default is 022
        f"childlogdir={_plain(stack.logs)}",
    ]
    programs = stack.programs()
    for program in programs:
        lines += ["", *_program_section(stack, program)]
    for priority, kind in enumerate(("emulator", "core", "worker", "gateway"), 1):
        members = ",".join(each.name for each in programs if each.name.partition("-")[0] == kind)
        lines += ["", f"[group:{kind}]", f"programs={members}", f"priority={priority}"]
    return "\n".join(lines) + "\n"


def _program_section(stack: Stack, program: Program) -> Iterator[str]:
    own = ",".join(f'{name}="{_plain(value)}"' for name, value in program.own.items())
    yield f"[program:{program.name}]"
    yield f"command={_plain(shlex.join(program.command))}"
    if own:
        yield f"environment={own}"
    yield "autorestart=true"
    yield "startsecs=1"
    # For ever: a full disk may last for days. The pause grows by a second each time: 85 s after an hour, 7 min a day.
    yield "startretries=1000000"
    yield "stopsignal=TERM"
    yield f"stopwaitsecs={_STOP_WAIT_S}"
    yield "killasgroup=true"
    yield "redirect_stderr=true"
    yield f"stdout_logfile={_plain(_log_file(stack, program))}"
    yield "stdout_logfile_maxbytes=20MB"
    yield "stdout_logfile_backups=2"


def _plain(value: object) -> str:
    """Supervisord expands %(…)s in values."""
    return str(value).replace("%", "%%")


def _log_file(stack: Stack, program: Program) -> Path:
    return stack.logs / f"{program.name}.log"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines_since(path: Path, offset: int) -> list[str]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(1_000_000).decode("utf-8", "replace").splitlines()


def _command_line(pid: int) -> str:
    proc = Path(f"/proc/{pid}/cmdline")
    if proc.exists():
        return proc.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    ps = shutil.which("ps")
    if ps is None:
        return ""
    done = subprocess.run([ps, "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return done.stdout
