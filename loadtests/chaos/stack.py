"""The stack under attack: its processes killed, stopped, continued and started again, one by one.

Knows nothing of load or plan. Services reach queue and store through a port of the fault proxy; clients follow links
past it.
"""

import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.local import layout, secret_file
from loadtests import stack as stacks
from loadtests.chaos.plan import Kind

GPU = stacks.Emulated(step_ms=15.0, alpha=0.3, max_batch=8, steps=8)
WORKERS, GATEWAYS = 3, 2
_PORTS = 64
_AGAIN_S = 1.0


@dataclass(slots=True, kw_only=True)
class Prey:
    """The processes by name. `deaths` counts those that ended without being killed here."""

    stack: stacks.Stack
    proxy_port: int
    programs: dict[str, layout.Program]
    deaths: Counter[str] = field(default_factory=Counter)
    _stopped: set[str] = field(default_factory=set)
    _back_at: dict[str, float] = field(default_factory=dict)
    """Time on the monotonic clock at which each process that is down is started again."""

    @property
    def cloud(self) -> tuple[str, str]:
        """URL and secret of the emulator itself, past the proxy."""
        return self.stack.plan.emulator_url, self.stack.environment["AWS_SECRET_ACCESS_KEY"]

    def start(self) -> None:
        """Starts every process without waiting for any."""
        for program in self.programs.values():
            stacks.start_program(self.stack, program)

    def ready(self) -> None:
        """Wait until every process says so. Raises StackError."""
        for program in self.programs.values():
            stacks.until_ready(self.stack, program)

    def kill(self, kind: Kind, away_s: float, rng: random.Random) -> str | None:
        """Kills one process of this kind, preferably one that is not stopped; `revive` restarts it after `away_s`.

        Returns its name, or None if none runs.
        """
        names = self.running(kind)
        name = _one(rng, [each for each in names if each not in self._stopped] or names)
        if name is not None:
            process = self.stack.processes[name]
            process.kill()
            process.wait()
            self._stopped.discard(name)
            self._back_at[name] = time.monotonic() + away_s
        return name

    def stop(self, kind: Kind, rng: random.Random) -> str | None:
        """SIGSTOP one of this kind; its name, None when none runs."""
        name = _one(rng, [each for each in self.running(kind) if each not in self._stopped])
        if name is not None:
            self.stack.processes[name].send_signal(signal.SIGSTOP)
            self._stopped.add(name)
        return name

    def resume(self, name: str) -> bool:
        """SIGCONT, unless it was killed meanwhile."""
        if name not in self._stopped:
            return False
        self._stopped.discard(name)
        self.stack.processes[name].send_signal(signal.SIGCONT)
        return True

    def revive(self) -> None:
        """Start again what is due, and what has ended by itself: what a supervisor does. Called again and again."""
        now = time.monotonic()
        for name, process in list(self.stack.processes.items()):
            if name not in self._back_at and process.poll() is not None:
                self.deaths[f"{name}: {process.returncode}"] += 1
                self._back_at[name] = now + _AGAIN_S
            if self._back_at.get(name, now + 1) <= now:
                del self._back_at[name]
                stacks.start_program(self.stack, self.programs[name])

    def heal(self) -> None:
        """All continued; what is down comes back at once."""
        for name in list(self._stopped):
            self.resume(name)
        self._back_at = dict.fromkeys(self._back_at, 0.0)
        self.revive()

    def end(self) -> list[str]:
        """Ends gateways and workers together, then core, then the emulator, by SIGTERM. Returns what went wrong."""
        troubles: list[str] = []
        for kinds in (("gateway", "worker"), ("core",), ("emulator",)):
            group = {name: each for name, each in self.stack.processes.items() if name.startswith(kinds)}
            for process in group.values():
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + stacks.STOP_S
            troubles += [text for name, each in group.items() if (text := _ended_badly(name, each, deadline))]
        return troubles

    def kill_everything(self) -> None:
        """SIGKILL to whatever is left, stopped processes included."""
        for process in self.stack.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.stack.processes.values():
            process.wait()
        self.stack.processes.clear()

    def running(self, kind: Kind) -> list[str]:
        """Names of this kind's processes that have not ended."""
        found = self.stack.processes.items()
        return [name for name, each in found if name.startswith(kind) and each.poll() is None]

    @property
    def gateway_urls(self) -> list[str]:
        """Where clients go."""
        first = self.stack.plan.ports.gateway
        return [f"http://{stacks.HOST}:{first + number}" for number in range(self.stack.plan.gateways)]


def _ended_badly(name: str, process: "subprocess.Popen[bytes]", deadline: float) -> str:
    """Waits for its end and returns what was wrong, or nothing. `kill_everything` ends one that hangs."""
    try:
        code = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"{name} did not stop within {stacks.STOP_S:g} s"
    return f"{name} ended with {code} after SIGTERM" if code else ""


def _one(rng: random.Random, names: list[str]) -> str | None:
    return rng.choice(names) if names else None


def prepare(folder: Path, *, visibility_s: int, extra: Mapping[str, str] | None = None) -> Prey:
    """A stack with folders, ports and environment chosen, nothing started."""
    base = free_range()
    numbers = (base, base + 20, base + 4, base + 5, base + 6, base + 8)  # copies add 1 to a port, 10 to an admin's
    names = ("gateway", "gateway_admin", "core", "core_admin", "worker_admin", "emulator")
    ports = layout.Ports(**dict(zip(names, numbers, strict=True)))
    plan = layout.Stack(data_dir=folder / "data", ports=ports, workers=WORKERS, gateways=GATEWAYS)
    proxy_port = base + 9
    stack = stacks.prepare(folder, GPU, workers=WORKERS)
    secret = secret_file.read_or_make(plan.emulator_secret_file)
    environment = {
        **stack.environment,
        **layout.service_environment(plan, emulator_secret=secret, inherited=stack.environment),
        "DARKROOM_EMULATOR_HOSTS": f"{stacks.HOST}:{proxy_port}",
        "AWS_ENDPOINT_URL": f"http://{stacks.HOST}:{proxy_port}",
        "DARKROOM_GATEWAY_LINK_ENDPOINT_URL": plan.emulator_url,
        "DARKROOM_VISIBILITY_S": str(visibility_s),
        "DARKROOM_CORE_REPLY_VISIBILITY_S": str(visibility_s),
        **(extra or {}),
    }
    programs = {program.name: program for program in plan.programs()}
    return Prey(stack=replace(stack, plan=plan, environment=environment), proxy_port=proxy_port, programs=programs)


def free_range() -> int:
    """The first of 64 ports that are free now and that the kernel gives to no outgoing connection.

    A process that is killed and started again must find its port free, so it may not lie in the ephemeral range, nor
    in that of the tests (`tests.process.free_port`).
    """
    rng = random.Random()
    for _ in range(200):
        base = rng.randrange(12_000, 14_000, _PORTS)
        if all(_is_free(base + number) for number in range(_PORTS)):
            return base
    raise stacks.StackError("no 64 free ports in a row between 12,000 and 14,000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((stacks.HOST, port))
        except OSError:
            return False
    return True
