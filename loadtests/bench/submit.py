"""`just bench submit`: how many generations a second one core accepts, beside a bare aiohttp JSON echo.

Gateway, core, echo and load generator all share ONE CPU core. The whole path is real: API keys,
validation, coalesced RPCs, the SQLite log with FULL sync. Rounds against the gateway and the echo
alternate, so that other load on the machine affects both alike; the result is the median.
The last line printed is JSON.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from loadtests import log_rows
from loadtests import stack as stacks
from loadtests.bench.client import FIRST_NUMBER, Round, Target, load

TENANTS = 8
BODY = json.dumps(
    {
        "prompt": "a large red circle on a white background, number ##########",
        "width": 256,
        "height": 256,
        "num_inference_steps": 8,
        "guidance_scale": 3.5,
        "seed": "##########",
        "n": 1,
    }
).replace('"##########"', "##########")
SETTINGS = {"DARKROOM_CORE_BACKLOG_CAP": "10000000"}
ACCEPTED = re.compile(rb'"id" ?: ?"(gen_[0-9a-z]{26})"')
ECHOED = re.compile(rb'"seed": ([0-9]{10})')


@dataclass(slots=True, kw_only=True)
class SubmitFigures:
    """The rounds of both sides, and the processor time each side used per answer."""

    accepted: list[Round] = field(default_factory=list)
    echoed: list[Round] = field(default_factory=list)
    accepted_cpu_us: list[float] = field(default_factory=list)
    echo_cpu_us: list[float] = field(default_factory=list)

    def result(self) -> dict[str, object]:
        """The line that is printed last."""
        accepted = statistics.median(each.per_s for each in self.accepted)
        echo = statistics.median(each.per_s for each in self.echoed)
        ratios = [ours.per_s / bare.per_s for ours, bare in zip(self.accepted, self.echoed, strict=True)]
        latencies = sorted(value for each in self.accepted for value in each.latencies_ms)
        accepted_cpu_us, echo_cpu_us = statistics.median(self.accepted_cpu_us), statistics.median(self.echo_cpu_us)
        return {
            "bench": "submit",
            "accepted_per_s": round(accepted, 1),
            "echo_per_s": round(echo, 1),
            "ratio": round(statistics.median(ratios), 4),
            "ratios": [round(each, 4) for each in ratios],
            "p50_ms": round(_percentile(latencies, 0.5), 2),
            "p99_ms": round(_percentile(latencies, 0.99), 2),
            "cpu_us_per_accepted": round(accepted_cpu_us, 1),
            "cpu_us_per_echo": round(echo_cpu_us, 1),
            "cpu_ratio": round(echo_cpu_us / accepted_cpu_us, 4),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 unless an answer was wrong or the log holds another number than was accepted."""
    options = _options(argv)
    if not hasattr(os, "sched_setaffinity"):
        print("bench submit: needs Linux, to keep all processes on one core", file=sys.stderr)
        return 2
    core = options.core if options.core is not None else max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # every process started from here on inherits it
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-", dir=options.folder))
    print(f"core {core}, {options.connections} connections, {options.alternations} alternations of {options.seconds} s")
    try:
        result = _measure(folder, options)
    except stacks.StackError as error:
        print(f"bench submit: {error}", file=sys.stderr)
        return 1
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    return 0 if result["log_matches"] else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench submit", description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured span of each round")
    parser.add_argument("--warm-up", type=float, default=1.0, help="unmeasured seconds before each round")
    parser.add_argument("--core", type=int, help="the one CPU core to use (default: the last one allowed)")
    parser.add_argument("--with-dispatch", action="store_true", help="with an SQS emulator: core dispatches too")
    parser.add_argument(
        "--log-level", choices=("info", "warning"), default="warning", help="info: with a line for each request"
    )
    parser.add_argument("--keep", action="store_true", help="keep the log and the services' output")
    parser.add_argument("--folder", help="where the temporary data folder is made (default: the system's)")
    parser.add_argument("--spy", metavar="PY_SPY", help="path of py-spy: record gateway and core during a round")
    return parser.parse_args(argv)


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    stack = stacks.prepare(
        folder, stacks.Emulated(), SETTINGS | {"DARKROOM_LOG_LEVEL": options.log_level}, own_sessions=False
    )
    try:
        targets = _start(stack, with_dispatch=options.with_dispatch)
        figures, accepted = asyncio.run(_alternate(stack, targets, options))
        _await_recorders(stack)
        peak = {name: _peak_mib(stack.processes[name].pid) for name in ("gateway", "core")}
    finally:
        troubles = stack.stop()
    stored = log_rows.requested(stack.log_path)
    if troubles or stored != accepted:
        print(f"accepted {accepted}, in the log {stored}; {'; '.join(troubles)}", file=sys.stderr)
    print(f"accepted in all: {accepted}; generations in the log: {stored}; peak MiB: {peak}")
    return {**figures.result(), "with_dispatch": options.with_dispatch, "log_matches": stored == accepted}


def _start(stack: stacks.Stack, *, with_dispatch: bool) -> tuple[Target, Target]:
    """Start everything; the probe that proved the gateway accepting is the log's first generation."""
    echo_port = stacks.free_ports(1)[0]
    stack.start("echo", [sys.executable, "-m", "loadtests.bench.echo", "--port", str(echo_port)])
    programs = {each.name: each for each in stack.plan.programs()}
    stacks.start_program(stack, programs["emulator"])  # core needs the store only at its first start, to note a new log
    stacks.until_ready(stack, programs["emulator"])
    keys = [stack.create_key(f"tenant-{number}") for number in range(TENANTS)]
    for name, admin in (("core", stack.plan.ports.core_admin), ("gateway", stack.plan.ports.gateway_admin)):
        stacks.start_program(stack, programs[name])
        # Up, that is, not ready: without a queue core never is.
        stack.until(name, lambda admin=admin: stacks.answers(admin, "/healthz") == 200, "up")  # type: ignore[misc]
    probe = json.loads(BODY.replace("#" * 10, str(FIRST_NUMBER)))
    port = stack.plan.ports.gateway
    stack.until("gateway", lambda: stacks.post(port, "/v1/generations", probe, keys[0])[0] == 202, "accepting")
    if not with_dispatch:
        stack.end("emulator")
    stack.until("echo", lambda: stacks.post(echo_port, "/echo", probe, "")[0] == 200, "answering")
    body = BODY.encode()
    return (
        Target(host=stacks.HOST, port=port, path="/v1/generations", body=body, keys=keys, status=202, unique=ACCEPTED),
        Target(host=stacks.HOST, port=echo_port, path="/echo", body=body, keys=keys, status=200, unique=ECHOED),
    )


async def _alternate(
    stack: stacks.Stack, targets: tuple[Target, Target], options: argparse.Namespace
) -> tuple[SubmitFigures, int]:
    """All rounds; the number of generations accepted, the probe included. Raises StackError for a repeated id."""
    figures = SubmitFigures()
    numbers = count(FIRST_NUMBER + 1)
    ids: list[bytes] = []
    for number in range(options.alternations):
        if options.spy and number == 1:
            _record(stack, options)
        for target, rounds, cpu in (
            (targets[0], figures.accepted, figures.accepted_cpu_us),
            (targets[1], figures.echoed, figures.echo_cpu_us),
        ):
            ours = target is targets[0]
            before = _cpu_s(stack)
            if not ours:
                _signal(stack, signal.SIGSTOP)  # so that nothing of ours slows the yardstick
            try:
                done = await load(
                    target,
                    connections=options.connections,
                    warm_up_s=options.warm_up,
                    seconds=options.seconds,
                    numbers=numbers,
                )
            finally:
                if not ours:
                    _signal(stack, signal.SIGCONT)
            rounds.append(done)
            cpu.append((_cpu_s(stack) - before) * 1e6 / len(done.unique))
            ids.extend(done.unique if ours else ())
        print(
            f"{number + 1}: accepted {figures.accepted[-1].per_s:.0f}/s ({figures.accepted_cpu_us[-1]:.0f} µs each), "
            f"echo {figures.echoed[-1].per_s:.0f}/s ({figures.echo_cpu_us[-1]:.0f} µs each)",
            flush=True,
        )
    if len(set(ids)) != len(ids):
        raise stacks.StackError(f"{len(ids) - len(set(ids))} answers repeated an id")
    return figures, len(ids) + 1


def _signal(stack: stacks.Stack, number: signal.Signals) -> None:
    for name in ("gateway", "core"):
        stack.processes[name].send_signal(number)


def _record(stack: stacks.Stack, options: argparse.Namespace) -> None:
    """Let py-spy sample both services through the next round."""
    for name in ("gateway", "core"):
        out = stack.folder / f"{name}.speedscope.txt"
        pid = stack.processes[name].pid
        seconds = str(int(options.seconds + options.warm_up))
        command = [options.spy, "record", "-p", str(pid), "-d", seconds, "-f", "raw", "-r", "200", "-o", str(out)]
        stack.processes[f"spy-{name}"] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _await_recorders(stack: stacks.Stack) -> None:
    for name in [name for name in stack.processes if name.startswith("spy-")]:
        stack.processes.pop(name).wait(60)


def _cpu_s(stack: stacks.Stack) -> float:
    """Processor seconds of gateway, core, echo and this process so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = sum(os.times()[:2])
    for name in ("gateway", "core", "echo"):
        fields = Path(f"/proc/{stack.processes[name].pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def _peak_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) // 1024 if found else 0


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
