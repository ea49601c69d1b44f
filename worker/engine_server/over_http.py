"""The engine server over HTTP: the OpenAI Images API for any client, and bare pixels for workers.

| POST /v1/images/generations | `images_api.Generation`; files in base64 within JSON |
| POST /v1/render             | `images_api.Render`; the body is the pixels or the file, X-Darkroom-Width, -Height |
| GET /v1/models              | the served model |
| GET /health                 | engine and model, no token; 503 until the model is loaded, and while a step hangs |

Errors are {"error": {"message", "type", "code"}}. When a caller disconnects, its pictures are cancelled.
"""

import asyncio
import base64
import contextlib
import hmac
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web
from pydantic import ValidationError

from infra.loops import Loops
from schema import pb
from worker.batching.measurements import Measurements
from worker.engine_server.driver import Busy, Driver
from worker.engine_server.images_api import BadRequest, Defaults, Generation, Render, problems, refusal
from worker.engines.contract import EncodedPicture, Engine, Picture, RenderJob
from worker.gpu.watchdog import Hung, Pulse, Watchdog
from worker.output import encode

_log = structlog.get_logger()
MAX_BODY_BYTES: Final = 64 * 1024
READ_DEADLINE_S: Final = 10.0
_FAREWELL_S: Final = 2.0
_RESET_S: Final = 300.0
_FORMATS: Final = {"png": pb.OutputFormat.PNG, "webp": pb.OutputFormat.WEBP, "jpeg": pb.OutputFormat.JPEG}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NotReady(Exception):
    """The model is still being loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`waiting`: pictures that may wait for the engine. `render_s`: seconds that one may take, waiting included.
    `hang_s`: the least seconds without a step that count as a hang.
    """

    waiting: int = 64
    render_s: float = 600.0
    hang_s: float = 30.0


class Server:
    """Serves one engine. Without a token `complaint` returns why a request is refused; an empty text accepts it."""

    def __init__(
        self,
        engine: Engine,
        defaults: Defaults,
        limits: Limits,
        *,
        now_s: Callable[[], float],
        token: str = "",
        complaint: Callable[[web.Request], str] = lambda _: "",
    ) -> None:
        self._engine = engine
        self._defaults = defaults
        self._limits = limits
        self._now_s = now_s
        self._token = token
        self._complaint = complaint
        self._pulse = Pulse(Measurements(), floor_s=limits.hang_s, reset_s=_RESET_S)
        self._driver = Driver(engine, waiting=limits.waiting, pulse=self._pulse, on_end=self._driver_ended)
        self._ended: asyncio.Future[BaseException | None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.left_behind = False
        """Whether the engine's thread was still at work when `serve` ended: it hung, or was loading."""

    async def serve(self, host: str, port: int, stopping: Callable[[], Awaitable[None]]) -> None:
        """Serves until `stopping` returns; requests in flight have up to 15 s to be answered. Raises what ended the
        engine: LoadFailed, Hung, EngineLost or another error of the model.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        runner = web.AppRunner(self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=15.0)
        await runner.setup()
        thread = threading.Thread(target=self._driver.run, name="engine", daemon=True)
        try:
            await web.TCPSite(runner, host, port).start()
            _log.info("engine_server.serving", host=host, port=port, model=self._defaults.model)
            thread.start()
            await self._until_either(stopping)
        finally:
            await runner.cleanup()
            self._driver.stop()
            if thread.is_alive():
                done, _ = await asyncio.wait({self._ended}, timeout=_FAREWELL_S)
                self.left_behind = self.left_behind or not done
        why = self._ended.result() if self._ended.done() else None
        if why is not None:
            raise why

    async def _until_either(self, stopping: Callable[[], Awaitable[None]]) -> None:
        async with Loops() as loops:
            stop = loops.create_task(_awaited(stopping), name="engine-server-stop")
            assert self._ended is not None  # noqa: S101
            watchdog = Watchdog(self._pulse, tick_s=min(1.0, self._limits.hang_s / 5), leave=self._hung)
            loops.run("engine-server-watchdog", watchdog.run)
            either: set[asyncio.Future[Any]] = {stop, self._ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            loops.stop()

    async def _hung(self, detail: str) -> bool:
        """A hung thread cannot be stopped: callers get an error, and the process ends so that it is started again."""
        self.left_behind = True
        self._driver.abandon()
        self._end(Hung(detail))
        return True

    def _driver_ended(self, why: BaseException | None) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: it came too late
                self._loop.call_soon_threadsafe(self._end, why)

    def _end(self, why: BaseException | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(why)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_post("/v1/images/generations", self._generations)
        app.router.add_post("/v1/render", self._render)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            if not self._token and (why := self._complaint(request)):
                return _error(403, "forbidden", why)
            if self._token and request.path != "/health" and not self._authorized(request):
                return _error(401, "unauthorized", "wrong or missing bearer token")
            return await handler(request)
        except web.HTTPException as error:
            return _error(error.status, "invalid_request", error.reason)
        except Busy:
            return _error(503, "busy", "too many pictures wait", retry_after_s=1)
        except NotReady:
            return _error(503, "loading", "the model is not loaded", retry_after_s=5)
        except TimeoutError:
            return _error(504, "timeout", "it took too long")
        except ValidationError as error:
            return _error(*refusal(problems(error)))
        except Exception as error:  # noqa: BLE001  (a model may raise anything)
            status, code, message = refusal(error)
            if status >= 500:
                _log.warning("engine_server.failed", code=code, error=type(error).__name__)
            return _error(status, code, message)

    def _authorized(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {self._token}".encode())

    async def _generations(self, request: web.Request) -> web.StreamResponse:
        asked = Generation.model_validate(await self._body(request))
        jobs = asked.jobs(self._defaults, request.headers.get("X-Request-Id", ""))
        form = asked.output_format or "png"
        pictures = await self._pictures(jobs)
        files = [base64.b64encode(await _file(picture, form)).decode("ascii") for picture in pictures]
        data = [{"b64_json": each} for each in files]
        return web.json_response({"created": int(self._now_s()), "output_format": form, "data": data})

    async def _render(self, request: web.Request) -> web.StreamResponse:
        asked = Render.model_validate(await self._body(request))
        (picture,) = await self._pictures([asked.job(self._defaults)])
        if asked.format == "rgb" and isinstance(picture, Picture):
            body, media = picture.rgb, "application/octet-stream"
        else:
            form = "png" if asked.format == "rgb" else asked.format
            body, media = await _file(picture, form), encode.content_type(_FORMATS[form])
        headers = {
            "X-Darkroom-Width": str(picture.width),
            "X-Darkroom-Height": str(picture.height),
            "X-Darkroom-Scheduler": picture.scheduler,
        }
        return web.Response(body=body, content_type=media, headers=headers)

    async def _pictures(self, jobs: list[RenderJob]) -> list[Picture | EncodedPicture]:
        """Render all jobs; the first failure cancels the others and is raised. Raises NotReady and TimeoutError."""
        if not self._driver.ready:
            raise NotReady
        try:
            async with asyncio.timeout(self._limits.render_s), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._driver.render(job), name=f"render {job.id}") for job in jobs]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _body(self, request: web.Request) -> Any:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise web.HTTPUnsupportedMediaType(reason="encoded bodies are not read")
        async with asyncio.timeout(READ_DEADLINE_S):
            data = await request.read()
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise BadRequest("the body is not JSON") from None

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": self._defaults.model, "object": "model"}]})

    async def _health(self, _: web.Request) -> web.StreamResponse:
        facts, silent_s = self._engine.facts, self._driver.silent_s
        hung = silent_s > self._pulse.deadline_s()
        about = {
            "status": "hung" if hung else "ok" if self._driver.ready else "loading",
            "silent_s": round(silent_s, 1),
            "engine": facts.engine,
            "model": facts.model,
            "model_revision": facts.model_revision,
            "dtype": facts.dtype,
            "device": facts.device,
            "libraries": facts.libraries,
        }
        return web.json_response(about, status=200 if self._driver.ready and not hung else 503)


async def _awaited(stopping: Callable[[], Awaitable[None]]) -> None:
    await stopping()


async def _file(picture: Picture | EncodedPicture, form: str) -> bytes:
    data, _ = await asyncio.to_thread(encode.encode, picture, int(_FORMATS[form]))
    return data


def _error(status: int, code: str, message: str, *, retry_after_s: int = 1) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    headers = {"Retry-After": str(retry_after_s)} if status == 503 else {}
    return web.json_response(
        {"error": {"message": message, "type": kind, "code": code}}, status=status, headers=headers
    )
