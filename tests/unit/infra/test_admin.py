"""The admin port."""

import socket
from email.utils import formatdate

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from infra.admin import AdminServer
from infra.lifecycle import ConfigError
from infra.skew import AGREEING, Skew

pytestmark = pytest.mark.asyncio


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_metrics_health_and_readiness() -> None:
    registry, reasons = CollectorRegistry(), ["queue unreachable"]
    Counter("darkroom_things", "Things", registry=registry).inc(3)
    async with AdminServer("127.0.0.1", 0, registry, lambda: reasons) as server:
        status, text = await get(server.port, "/metrics")
        assert status == 200
        assert "darkroom_things_total 3.0" in text
        assert await get(server.port, "/healthz") == (200, '{"status": "ok"}')
        assert await get(server.port, "/readyz") == (503, '{"status": "not ready", "reasons": ["queue unreachable"]}')
        reasons.clear()
        assert await get(server.port, "/readyz") == (200, '{"status": "ready"}')


async def test_a_wrong_clock_is_told_once_and_measured() -> None:
    skew = Skew(120, wall_s=lambda: 1_790_000_000.0)
    registry = CollectorRegistry()
    async with AdminServer("127.0.0.1", 0, registry, skew.reasons, skew=skew) as server:
        assert (await get(server.port, "/readyz"))[0] == 200
        for _ in range(AGREEING):
            skew.answered(formatdate(1_790_003_600, usegmt=True))
        status, text = await get(server.port, "/readyz")
        assert status == 503
        assert text.count("3600 s behind that of queue and store") == 1
        assert "darkroom_clock_ahead_seconds -3600.0" in (await get(server.port, "/metrics"))[1]


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            async with AdminServer("127.0.0.1", port, CollectorRegistry(), list):
                pass
