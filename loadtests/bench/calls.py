"""Calls to queue and store, and CPU time, of an idle stack, while both work, do not hold long polls, throttle or fail.

`just bench calls --seconds 60`: the default stack (gateway, core, one worker) behind a proxy that counts every request.
AWS bills each of them, an empty receive like any other.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp
from aiohttp import web
from yarl import URL

from loadtests import stack as stacks

FLOOR_PER_S = 1.5
FLOOR_CPU = 0.03
Mode = Literal["idle", "hasty", "throttled", "away"]
"""`hasty`: an empty receive is answered at once. `throttled`: everything is refused. `away`: connections are cut."""
MODES: tuple[Mode, ...] = get_args(Mode)
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})
_SQS = {"Content-Type": "application/x-amz-json-1.0"}
_SERVICES = ("gateway", "core", "worker")
_SETTLE_S = 5.0


class Counting:
    """A proxy before the emulator that counts calls by operation, and forwards or fails them as `mode` says."""

    def __init__(self, target: int) -> None:
        self.mode: Mode = "idle"
        self.calls: Counter[str] = Counter()
        self._target = target
        self._session: aiohttp.ClientSession | None = None
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)

    async def start(self, port: int) -> None:
        """Listen."""
        timeout = aiohttp.ClientTimeout(total=60)
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=timeout)
        await self._runner.setup()
        await web.TCPSite(self._runner, stacks.HOST, port).start()

    async def close(self) -> None:
        """Close everything."""
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.calls[operation or f"{request.method} {'object' if request.path.count('/') > 1 else 'bucket'}"] += 1
        if self.mode == "away":
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # a bare web.Server leaves that to its handler
        body = await request.read()
        if self.mode == "throttled":
            return _throttled(request, operation)
        if self.mode == "hasty" and operation == "ReceiveMessage":
            return web.Response(headers=_SQS, body=b"{}")
        return await self._forward(request, body)

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = URL(f"http://{stacks.HOST}:{self._target}{request.raw_path}", encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, skip_auto_headers=("User-Agent", "Content-Type")
        ) as answer:
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if request.method == "HEAD":  # of an object that is not sent
                passed["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, headers=passed, body=await answer.read())


def _throttled(request: web.BaseRequest, operation: str) -> web.Response:
    if operation:
        return web.Response(status=403, headers=_SQS, body=json.dumps({"__type": "OverLimit", "message": ""}).encode())
    text = "<Error><Code>SlowDown</Code><Message>too many</Message></Error>"
    return web.Response(status=503, content_type="application/xml", text="" if request.method == "HEAD" else text)


async def _measure(seconds: float, modes: Sequence[Mode], folder: Path) -> dict[str, Any]:
    proxy_port = stacks.free_ports(1)[0]
    extra = {
        "AWS_ENDPOINT_URL": f"http://{stacks.HOST}:{proxy_port}",
        "DARKROOM_EMULATOR_HOSTS": f"{stacks.HOST}:{proxy_port}",
    }
    stack = stacks.prepare(folder, stacks.Emulated(), extra)
    proxy = Counting(stack.plan.ports.emulator)
    await proxy.start(proxy_port)
    key = stack.create_key("bench")
    try:
        await asyncio.to_thread(_up, stack)
        await asyncio.to_thread(_one_picture, stack, key)
        return {mode: await _one(stack, proxy, mode, seconds) for mode in modes}
    finally:
        proxy.mode = "idle"
        await asyncio.to_thread(stack.stop)
        await proxy.close()


def _up(stack: stacks.Stack) -> None:
    for program in stack.plan.programs():
        stacks.start_program(stack, program)
    for program in stack.plan.programs():
        stacks.until_ready(stack, program)


def _one_picture(stack: stacks.Stack, key: str) -> None:
    """Submits one generation, so that connections are open and queue URLs known before the measurement."""
    status, _ = stacks.post(stack.plan.ports.gateway, "/v1/generations", {"prompt": "a ring", "model": "emulated"}, key)
    assert status == 202, status


async def _one(stack: stacks.Stack, proxy: Counting, mode: Mode, seconds: float) -> dict[str, Any]:
    proxy.mode = "idle"
    await asyncio.sleep(_SETTLE_S)
    proxy.mode = mode
    before = {name: _cpu_s(stack.processes[name].pid) for name in _SERVICES}
    proxy.calls.clear()
    await asyncio.sleep(seconds)
    calls = Counter(proxy.calls)
    cpu = {name: (_cpu_s(stack.processes[name].pid) - before[name]) / seconds for name in _SERVICES}
    return {
        "calls_per_s": round(calls.total() / seconds, 3),
        "calls": dict(calls.most_common()),
        "cpu": {name: round(share, 4) for name, share in cpu.items()},
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str]) -> int:
    """Exit codes: 0 if every mode stays within both limits, else 1."""
    parser = argparse.ArgumentParser(prog="just bench calls", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--mode", choices=MODES, action="append")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="darkroom-calls-") as folder:
        figures = asyncio.run(_measure(options.seconds, options.mode or MODES, Path(folder)))
    missed = [
        f"{mode}: {each['calls_per_s']} calls/s" for mode, each in figures.items() if each["calls_per_s"] > FLOOR_PER_S
    ]
    missed += [
        f"{mode}: {name} uses {share:.1%} of a core"
        for mode, each in figures.items()
        for name, share in each["cpu"].items()
        if share > FLOOR_CPU
    ]
    print("; ".join(missed), file=sys.stderr)
    print(json.dumps({"seconds": options.seconds, "modes": figures, "missed": missed}))
    return 1 if missed else 0
