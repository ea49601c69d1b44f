"""The admin port of a service: metrics, liveness and readiness, on loopback by default.

`/metrics` in Prometheus's text format; `/healthz` answers while the event loop turns; `/readyz` answers 503 with the
reasons while there are any, and lists notes, which do not affect readiness. Requests of web pages are refused.
"""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from infra import pages
from infra.lifecycle import ConfigError
from infra.skew import Skew


class AdminServer:
    """Serves while its context is entered. Entering raises ConfigError, which names `setting`, if the port is taken.

    `readiness` returns the reasons why the service is not ready, `notes` problems that leave it ready. With `skew`, a
    wrong clock is a reason too.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        readiness: Callable[[], Sequence[str]],
        *,
        notes: Callable[[], Sequence[str]] = tuple,
        skew: Skew | None = None,
        setting: str = "DARKROOM_*_ADMIN_PORT",
    ) -> None:
        self._host, self._port = host, port
        self._registry = registry
        self._readiness = readiness
        self._notes = notes
        self._skew = skew
        self._setting = setting
        if skew is not None:
            skew.register(registry)
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on, also where port 0 asked for any free one."""
        assert self._runner is not None, "the server has not been entered"  # noqa: S101
        return int(self._runner.addresses[0][1])

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1024, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except BaseException as error:
            await self._runner.cleanup()
            if not isinstance(error, OSError):
                raise
            problem = f"admin port {self._port} on {self._host}: {error.strerror or error}"
            raise ConfigError(f"{problem}; set {self._setting}") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        why = pages.complaint(request.headers, bound=self._host)
        return web.json_response({"error": why}, status=403) if why else await handler(request)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        clock = self._skew.reasons() if self._skew is not None else []
        reasons = list(dict.fromkeys([*self._readiness(), *clock]))
        body: dict[str, object] = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        if notes := list(self._notes()):
            body["notes"] = notes
        return web.json_response(body, status=503 if reasons else 200)
