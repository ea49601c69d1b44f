"""Two hundred clients that read pictures at 1 kB/s: the gateway's memory, and what all others notice of them.

`pytest -s` prints the figures. Memory is asserted, times are only shown: they are the machine's.
"""

import asyncio
import random
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from infra import aws
from infra.s3 import S3Bucket
from schema import pb
from tests import emulators
from tests.integration.gateway_process import Running, environment, gateway, key_for
from tests.unit.gateway.fake_core import FakeCore, serving

READERS = 200
PICTURE = random.Random(7).randbytes(8 * 1024 * 1024)
CALLS = 400
WATCHED_S = 20.0


@asynccontextmanager
async def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Running, FakeCore]]:
    """A gateway process between a core in memory and a real store."""
    core = FakeCore()
    with emulators.ministack(folder) as url:
        extra = emulators.aws_environment(url)
        for name, value in extra.items():
            monkeypatch.setenv(name, value)
        async with aws.clients() as clients:
            bucket = S3Bucket(clients.s3, "darkroom-public")
            await bucket.ensure()
            digest = sha256(PICTURE).digest()
            await bucket.put("token/0.png", PICTURE, content_type="image/png", sha256=digest)
        async with serving(core) as (_, port):
            env = environment(folder, DARKROOM_CORE_TARGET=f"127.0.0.1:{port}", **extra)
            async with gateway(env, folder, key_for(env)) as running:
                yield running, core


async def reader(running: Running, path: str) -> None:
    """Reads 1 kB each second, for as long as it may."""
    got, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {running.key}\r\n\r\n".encode())
        for _ in range(len(PICTURE) // 1024):
            assert await got.read(1024)
            await asyncio.sleep(1)  # its pace
    finally:
        writer.close()


async def milliseconds(running: Running, path: str) -> list[float]:
    """How long each of many calls took."""
    loop, took = asyncio.get_running_loop(), []
    for _ in range(CALLS):
        begun = loop.time()
        status, _, _ = await running.get(path)
        assert status == 200
        took.append((loop.time() - begun) * 1000)
    return sorted(took)


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def shown(name: str, took: list[float]) -> str:
    return f"{name}: p50 {statistics.median(took):.1f} ms, p99 {took[int(len(took) * 0.99)]:.1f} ms"


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.timeout(180)
async def test_slow_readers_cost_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, monkeypatch) as (running, core):
        _, body = await running.post({"prompt": "x"})
        path = body["links"]["self"]
        view = await core.move(body["id"], pb.GenerationStatus.SUCCEEDED, pb.ImageStatus.PUBLISHED)
        view.images[0].sha256, view.images[0].size_bytes = sha256(PICTURE).digest(), len(PICTURE)
        status, _, whole = await running.get(f"{path}/images/0")
        assert (status, whole) == (200, PICTURE)
        begun = asyncio.get_running_loop().time()
        await running.get(f"{path}/images/0")
        alone_s = asyncio.get_running_loop().time() - begun
        quiet = await milliseconds(running, path)
        before = resident_mib(running.process.pid)
        highest = before
        async with asyncio.TaskGroup() as group:
            slow = [
                group.create_task(reader(running, f"{path}/images/0"), name=f"reader {number}")
                for number in range(READERS)
            ]
            end = asyncio.get_running_loop().time() + WATCHED_S
            busy = await milliseconds(running, path)
            while asyncio.get_running_loop().time() < end:
                highest = max(highest, resident_mib(running.process.pid))
                assert not any(each.done() for each in slow), "all are served all the time"
                await asyncio.sleep(0.2)
            again = await milliseconds(running, path)
            status, _, whole = await running.get(f"{path}/images/0")
            assert (status, whole) == (200, PICTURE), "a fast client beside them"
            for each in slow:
                each.cancel()
        print(f"\nmemory {before:.1f} MiB, with {READERS} readers at most {highest:.1f}: + {highest - before:.1f} MiB")
        print(f"one fast client: {len(PICTURE) / alone_s / 1e6:.0f} MB/s")
        print(shown("before", quiet), shown("while they come", busy), shown("while they read", again), sep="\n")
        assert highest - before <= 64
