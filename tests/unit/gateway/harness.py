"""A whole gateway in this process: real HTTP, real gRPC, a core in memory, links that only look signed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from gateway.access.keys import KeyFile
from gateway.app import Overrides, serve
from gateway.config import GatewaySettings
from infra.lifecycle import Shutdown
from infra.retry import Permanent, Retryable
from infra.s3 import StoredPiece
from tests.eventually import eventually
from tests.unit.gateway import fake_core
from tests.unit.gateway.fake_core import NOW_MS, FakeCore

MODELS = """
[[models]]
name = "small"
engine = "emulated"
width = 128
height = 64
num_inference_steps = 4
guidance_scale = 3.5
max_width = 512
max_height = 256
[[models]]
name = "other"
engine = "emulated"
"""
BOUNDED = """
[[models]]
name = "bounded"
engine = "pipeline"
source = "folder/of/workers"
width = 256
height = 256
num_inference_steps = 4
guidance_scale = 1.5
min_width = 128
min_height = 192
max_width = 512
max_height = 512
min_num_inference_steps = 2
max_num_inference_steps = 50
min_guidance_scale = 1.0
max_guidance_scale = 2.0
[[models]]
name = "elsewhere"
engine = "http"
source = "http://127.0.0.1:1"
"""
PROMPT = "a large red circle"
SEED = 4_000_000_000
UNKNOWN = "gen_00000000000000000000000000"
"""An id that core does not know."""


PICTURE = b"\x89PNG\r\n" + bytes(range(256)) * 4
"""What the store holds for every published image, unless a test says otherwise."""


@dataclass(slots=True)
class FakeStore:
    """Fits gateway.ports.PictureStore: every key holds `picture`. Tests set the other fields."""

    picture: bytes = PICTURE
    down: bool = False
    refuses: bool = False
    missing: bool = False
    stored_sha256: bytes | None = None
    hold: asyncio.Event | None = None
    fail_from: int = 1 << 40
    """Reads that begin at this byte or later raise Retryable."""
    made: list[tuple[str, int]] = field(default_factory=list)
    reads: list[tuple[int, int, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def read(self, key: str, *, first: int, last: int, tag: str = "") -> StoredPiece | None:
        self.reads.append((first, last, tag))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if self.down or first >= self.fail_from:
                raise Retryable("read: down")
        finally:
            self.at_once -= 1
        if self.refuses:
            raise Permanent("read: AccessDenied")
        if self.missing:
            return None
        data, total = self.picture[first : last + 1], len(self.picture)
        return StoredPiece(data=data, total_bytes=total, tag='"t"', sha256=self.stored_sha256)

    async def link(self, key: str, *, expires_s: int) -> str:
        if self.down:
            raise Retryable("link: down")
        self.made.append((key, expires_s))
        return f"http://127.0.0.1:1/bucket/{key}?X-Amz-Signature=canarylink{len(self.made)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, read."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def problem(self, status: int) -> dict[str, Any]:
        """The problem document of a refusal with this status."""
        assert self.status == status, (self.status, self.raw)
        assert self.headers["Content-Type"] == "application/problem+json"
        body: dict[str, Any] = self.body
        assert body["status"] == status
        assert body["type"].startswith("urn:darkroom:problem:")
        assert body["error"]["message"] == body["detail"]
        return body


@dataclass(slots=True, kw_only=True)
class Rig:
    """A running gateway and what stands around it."""

    core: FakeCore
    store: FakeStore
    settings: GatewaySettings
    shutdown: Shutdown
    session: aiohttp.ClientSession
    port: int
    admin_port: int
    keys: Mapping[str, str]
    address: str = "127.0.0.1"

    @property
    def key(self) -> str:
        """The first tenant's."""
        return next(iter(self.keys.values()), "")

    @property
    def base(self) -> str:
        return f"http://{self.address}:{self.port}"

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = None,
    ) -> Answer:
        """One request, with the rig's key unless told another; bytes are sent as they are, anything else as JSON."""
        use = self.key if key is None else key
        sent = {"Authorization": f"Bearer {use}"} if use else {}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        async with self.session.request(
            method, self.base + path, data=data, headers={**sent, **(headers or {})}, allow_redirects=False
        ) as answer:
            return Answer(status=answer.status, headers=answer.headers, raw=await answer.read())

    async def published(self, picture: bytes = PICTURE, **fields: Any) -> str:
        """The path of a generation that has succeeded with this picture."""
        self.store.picture = picture
        path = (await self.submit(**fields)).headers["Location"]
        view = await self.core.move(path.rpartition("/")[2], 3, 3)
        for image in view.images:
            image.sha256, image.size_bytes = sha256(picture).digest(), len(picture)
        return path[path.index("/v1/") :]

    async def submit(
        self, headers: Mapping[str, str] | None = None, *, key: str | None = None, **fields: Any
    ) -> Answer:
        """POST a small generation with these fields."""
        return await self.call("POST", "/v1/generations", {"prompt": PROMPT, **fields}, headers)

    def answers(self, path: str, status: int, *, key: str | None = None) -> Callable[[], Any]:
        """A condition: a GET is answered with this status."""

        async def ask() -> bool:
            return (await self.call("GET", path, key=key)).status == status

        return ask


def settings_for(folder: Path, core_port: int, *, models_text: str = MODELS, **fields: Any) -> GatewaySettings:
    """Settings with free ports and everything under `folder`."""
    folder.mkdir(exist_ok=True)
    models = folder / "models.toml"
    models.write_text(models_text)
    return GatewaySettings(
        data_dir=folder / "var",
        models_file=models,
        core_target=f"127.0.0.1:{core_port}",
        **{"gateway_port": 0, "gateway_admin_port": 0, "drain_s": 5.0, **fields},
    )


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    tenants: tuple[str, ...] = ("alice",),
    address: str = "127.0.0.1",
    now_ms: Callable[[], int] = lambda: NOW_MS,
    **fields: Any,
) -> AsyncIterator[Rig]:
    """A gateway that is ready and called at `address`, with a key for each tenant; no tenants: no keys file."""
    core = FakeCore()
    async with fake_core.serving(core, token=_token(fields)) as (_, core_port):
        settings = settings_for(folder, core_port, **fields)
        async with running(settings, core, tenants=tenants, now_ms=now_ms) as gateway:
            gateway.address = address
            await eventually(gateway.answers("/readyz", 200), what="the gateway is ready")
            yield gateway


@asynccontextmanager
async def running(
    settings: GatewaySettings,
    core: FakeCore,
    *,
    tenants: tuple[str, ...] = (),
    now_ms: Callable[[], int] = lambda: NOW_MS,
) -> AsyncIterator[Rig]:
    """A gateway that listens, ready or not; it must end by itself when told to."""
    shutdown, store = Shutdown(), FakeStore()
    keys = {tenant: KeyFile(settings.keys_path).create(tenant, now_ms=NOW_MS) for tenant in tenants}
    listening: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    overrides = Overrides(
        store=store,
        now_ms=now_ms,
        new_seed=lambda: SEED,
        on_listening=lambda port, admin: listening.set_result((port, admin)),
    )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session, asyncio.TaskGroup() as group:
        task = group.create_task(serve(settings, shutdown, overrides), name="gateway")
        either: set[asyncio.Future[Any]] = {task, listening}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        port, admin_port = listening.result()
        gateway = Rig(
            core=core,
            store=store,
            settings=settings,
            shutdown=shutdown,
            session=session,
            port=port,
            admin_port=admin_port,
            keys=keys,
        )
        try:
            yield gateway
        finally:
            shutdown.trigger()
            async with asyncio.timeout(15):
                await task


def _token(fields: Mapping[str, Any]) -> str:
    return str(fields.get("internal_token", ""))
