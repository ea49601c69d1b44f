"""A gateway as a process of its own, for tests: its environment, a command to its end, a gateway that listens."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from gateway.access.keys import KeyFile
from tests.eventually import eventually
from tests.process import free_port
from tests.unit.gateway.harness import MODELS

ROOT = Path(__file__).parents[2]


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """Everything under `folder`, nothing inherited but what Python needs."""
    (folder / "models.toml").write_text(MODELS)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "DARKROOM_DATA_DIR": str(folder / "var"),
        "DARKROOM_MODELS_FILE": str(folder / "models.toml"),
        "DARKROOM_GATEWAY_PORT": "0",
        "DARKROOM_GATEWAY_ADMIN_PORT": "0",
        "DARKROOM_CORE_TARGET": "127.0.0.1:1",
        **extra,
    }


async def command(env: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """`python -m gateway …` to its end: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        env=dict(env),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@dataclass(slots=True, kw_only=True)
class Running:
    """A gateway process that listens."""

    process: asyncio.subprocess.Process
    log: Path
    port: int
    session: aiohttp.ClientSession
    key: str

    async def post(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        async with self.session.post(f"{self.base}/v1/generations", json=body, headers=sent) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Mapping[str, str], bytes]:
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        async with self.session.get(self.base + path, headers=sent, allow_redirects=False) as answer:
            return answer.status, answer.headers, await answer.read()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def gateway(env: Mapping[str, str], folder: Path, key: str) -> AsyncIterator[Running]:
    """A process that listens; it is killed at the end if it still runs."""
    log = folder / "gateway.log"
    port = free_port()
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"),
            env={**env, "DARKROOM_GATEWAY_PORT": str(port)},
            cwd=ROOT,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        running = Running(process=process, log=log, port=port, session=session, key=key)

        async def ready() -> bool:
            assert process.returncode is None, log.read_text()
            with contextlib.suppress(aiohttp.ClientError):
                return (await running.get("/readyz"))[0] == 200
            return False

        try:
            condition: Any = ready
            await eventually(condition, 20, what="the gateway is ready")
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def key_for(env: Mapping[str, str]) -> str:
    """A new key."""
    return KeyFile(Path(env["DARKROOM_DATA_DIR"]) / "gateway" / "keys.json").create("acme", now_ms=1)
