"""The context that every request handler gets. `app.py` builds it once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from gateway.access.concurrency import RequestLimit, RequestSlot
from gateway.access.keys import KeyRing
from gateway.access.rate_limits import Limits
from gateway.edge.cors import Cors
from gateway.edge.endpoints import Endpoints
from gateway.edge.origins import KeylessGuard
from gateway.metrics import Metrics
from gateway.pictures.service import PictureService
from gateway.ports import Core, ModelEntry
from gateway.served_models.reports import ModelReports
from gateway.tracing import HttpTracer

SLOT = web.RequestKey("slot", RequestSlot)
"""The key under which a request keeps its slot among those in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file that is served from memory."""

    content: bytes
    content_type: str
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Ports, tables and settings of one gateway. `models` by name, the default first; `now` in seconds of the loop."""

    core: Core
    pictures: PictureService
    keys: KeyRing
    limits: Limits
    in_flight: RequestLimit
    metrics: Metrics
    tracer: HttpTracer
    models: Mapping[str, ModelEntry]
    reports: ModelReports
    documents: Mapping[str, Document]
    readiness: Callable[[], Sequence[str]]
    draining: asyncio.Event
    new_id: Callable[[], str]
    new_seed: Callable[[], int]
    now: Callable[[], float]
    wall_ms: Callable[[], int]
    started_ms: int
    base_url: str
    guard: KeylessGuard
    cors: Cors
    endpoints: Endpoints
    body_timeout_s: float
    answered: Callable[[str, str, int, float, str, str], None] = lambda *_: None
    """Called for each answer: method, route, status, milliseconds, tenant and the request's id."""
