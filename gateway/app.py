"""The gateway's composition root: the only place that builds adapters and starts tasks."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import metadata

import structlog
from aiohttp import web
from opentelemetry import trace

from gateway.access.concurrency import RequestLimit
from gateway.access.keys import KeyFile, KeyRing, KeysFileError
from gateway.access.rate_limits import Limits, Rule, RulesFileError, load_rules
from gateway.bodies.parsing import MAX_BODY_BYTES
from gateway.config import GatewaySettings
from gateway.core_client.client import SENDERS, Bounds, Channels, CoreClient, Rpc
from gateway.edge import cors
from gateway.edge.cors import Cors
from gateway.edge.endpoints import Endpoints
from gateway.edge.origins import KeylessGuard
from gateway.metrics import Metrics
from gateway.pictures.link_secrets import FixedLinkSecrets, LinkSecretFile, LinkSecrets, LinkSecretsError
from gateway.pictures.service import PictureService
from gateway.pictures.signing import Signer
from gateway.pictures.streams import PieceBudget, StreamTable
from gateway.ports import ModelEntry, PictureStore
from gateway.private_file import own_folder
from gateway.routes import OPERATIONS, documents, middleware, openapi, submissions
from gateway.routes.context import Context
from gateway.served_models.reports import ModelReports
from gateway.server.connections import ConnectionTable, connection_limit
from gateway.server.listener import Listener, PortUnavailable
from gateway.tracing import HttpTracer
from infra import aws, models, rpc
from infra.admin import AdminServer
from infra.clock import wall_ms
from infra.failpoints import Failpoints
from infra.ids import new_id
from infra.journal import Journal
from infra.lifecycle import ConfigError, Shutdown
from infra.loops import Loops
from infra.s3 import S3Bucket
from infra.settings import is_loopback, variable
from infra.skew import Skew
from schema import limits

_log = structlog.get_logger()
_KEYS_EVERY_S = 1.0
_ABSENT_KEY = "none"
_WAIT_CHANNELS = 4
_random = secrets.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Replacements for the real adapters and sources of randomness, for tests."""

    store: PictureStore | None = None
    now_ms: Callable[[], int] = wall_ms
    new_id: Callable[[], str] = lambda: new_id("gen")
    new_seed: Callable[[], int] = lambda: _random.randrange(limits.SEED_MODULUS)
    rng: Callable[[], float] = _random.random
    on_listening: Callable[[int, int], None] = lambda _port, _admin_port: None


async def serve(settings: GatewaySettings, shutdown: Shutdown, overrides: Overrides | None = None) -> None:
    """Serves until `shutdown`, then finishes the requests in flight. Raises ConfigError, or a group with LoopEnded."""
    use = overrides or Overrides()
    metrics = Metrics()
    _own_folder(settings)
    keys = _keys(settings, metrics)
    served: dict[str, ModelEntry] = {entry.name: entry for entry in models.load(settings.models_file)}
    link_secrets = _link_secrets(settings, use.now_ms())
    async with AsyncExitStack() as stack:
        core = CoreClient(
            _channels(settings, stack),
            Rpc(calling=rpc.calling, contain_errors=rpc.contain_errors),
            bounds=Bounds(
                submit_s=settings.gateway_submit_timeout_s,
                call_s=settings.gateway_call_timeout_s,
                max_waiting=settings.gateway_max_waiting,
            ),
            failpoints=Failpoints.from_env(settings.failpoints),
            rng=use.rng,
            on_batch=metrics.batch_items.observe,
            default_spec=submissions.default_spec(served),
        )
        metrics.observe(lambda: core.waiting, lambda: not core.problem)

        def readiness() -> Sequence[str]:
            stopping = "stopping" if shutdown.draining.is_set() else ""
            locked = "" if keys.usable else "no valid API key yet: `keys create TENANT` makes one"
            reasons = (stopping, core.problem, keys.problem, link_secrets.problem, locked, *skew.reasons())
            return [reason for reason in reasons if reason]

        skew = Skew(settings.max_clock_skew_s)
        store = await _store(settings, use, skew, stack)
        pictures = _pictures(settings, use, metrics, link_secrets, store)
        context = _context(settings, shutdown, use, metrics, keys, core, pictures, served, readiness)
        loops = await stack.enter_async_context(Loops())
        for number in range(SENDERS):
            loops.run(f"gateway.submit.{number}", core.run)
        loops.run("gateway.watch_core", core.watch)
        loops.run("gateway.watch_models", context.reports.watch)
        loops.run("gateway.watch_keys", lambda: _watch_keys(keys))
        loops.run("gateway.watch_link_secrets", lambda: _watch_link_secrets(link_secrets, use.now_ms))
        if isinstance(store, S3Bucket):  # calls and links are signed by this clock, and judged by the store's
            loops.run("gateway.watch_clock", lambda: skew.watch(lambda: store.head(_ABSENT_KEY)))
        host, port, setting = settings.gateway_admin_host, settings.gateway_admin_port, variable("gateway_admin_port")
        admin = AdminServer(host, port, metrics.registry, readiness, skew=skew, setting=setting)
        try:
            async with admin, _listener(settings, context) as listener:
                _log.info("gateway.listening", host=settings.gateway_host, port=listener.port, admin_port=admin.port)
                use.on_listening(listener.port, admin.port)
                await shutdown.wait()
        except PortUnavailable as error:
            raise ConfigError(f"{error}; set {variable('gateway_port')}") from None
        loops.stop()


def application(context: Context) -> web.Application:
    """The aiohttp application around `context`."""
    definitions, around = middleware.routes(context, OPERATIONS)
    app = web.Application(middlewares=[around], client_max_size=MAX_BODY_BYTES)
    app.add_routes(definitions)
    app.on_response_prepare.append(middleware.finishing(context))
    return app


def description(names: Sequence[str]) -> dict[str, object]:
    """The OpenAPI document for models of these names."""
    return openapi.document(OPERATIONS, version=metadata.version("darkroom-serve"), models=names)


def _channels(settings: GatewaySettings, stack: AsyncExitStack) -> Channels:
    """Channels to core that connect when they are used, and are closed with `stack`."""
    opened = [
        rpc.open_channel(settings.core_target, token=settings.internal_token.get_secret_value())
        for _ in range(2 + _WAIT_CHANNELS)
    ]
    for channel in opened:
        stack.callback(channel.close)
    return Channels(submissions=opened[0], calls=opened[1], waits=opened[2:])


def _context(
    settings: GatewaySettings,
    shutdown: Shutdown,
    use: Overrides,
    metrics: Metrics,
    keys: KeyRing,
    core: CoreClient,
    pictures: PictureService,
    served: Mapping[str, ModelEntry],
    readiness: Callable[[], Sequence[str]],
) -> Context:
    loop = asyncio.get_running_loop()
    tracing = trace.get_tracer(__name__).start_span("start").is_recording()  # false where no exporter is set
    in_flight = RequestLimit(connection_limit(settings.gateway_max_connections))
    metrics.observe_under_way(in_flight.__len__)
    return Context(
        core=core,
        pictures=pictures,
        keys=keys,
        in_flight=in_flight,
        limits=Limits(_rules(settings), now=loop.time, on_refusal=metrics.refused),
        metrics=metrics,
        tracer=HttpTracer(enabled=tracing),
        models=served,
        reports=ModelReports(core.models, now=loop.time),
        documents=documents.load(description(list(served))),
        readiness=readiness,
        draining=shutdown.draining,
        new_id=use.new_id,
        new_seed=use.new_seed,
        now=loop.time,
        wall_ms=use.now_ms,
        started_ms=use.now_ms(),
        base_url=settings.gateway_public_url,
        guard=KeylessGuard(public_url=settings.gateway_public_url, bound_host=settings.gateway_host),
        cors=Cors(cors.parsed(settings.gateway_cors_origins)),
        endpoints=Endpoints([each.path for each in OPERATIONS if each.documented or each.id == "docs"]),
        body_timeout_s=settings.gateway_body_timeout_s,
        answered=Journal("request.answered", "method", "route", "status", "ms", "tenant", "request_id"),
    )


def _keys(settings: GatewaySettings, metrics: Metrics) -> KeyRing:
    """The keys, loaded. Raises ConfigError if they cannot be read, or if one is required and none is valid."""
    loopback = is_loopback(settings.gateway_host)
    keys = KeyRing(KeyFile(settings.keys_path), anonymous_allowed=loopback, on_change=metrics.keys.set)
    try:
        keys.load()
    except KeysFileError as error:
        raise ConfigError(f"keys file {error}; set {variable('gateway_keys_file')}") from None
    if not keys.usable and not loopback and not settings.gateway_await_keys:
        raise ConfigError(
            f"there is no valid API key in {settings.keys_path}, and {settings.gateway_host} can be reached by others: "
            "create one with `python -m gateway keys create TENANT`, or listen on 127.0.0.1"
        )
    return keys


def _rules(settings: GatewaySettings) -> tuple[Rule, ...]:
    if settings.gateway_rules_file is None:
        return ()
    try:
        return load_rules(settings.gateway_rules_file, [each.id for each in OPERATIONS if each.secured])
    except RulesFileError as error:
        raise ConfigError(f"rules file {error}; see gateway/README.md") from None


def _own_folder(settings: GatewaySettings) -> None:
    """Creates the folder of keys and secrets, or restricts an existing one, to its owner. Raises ConfigError."""
    folder = settings.data_dir / "gateway"
    try:
        own_folder(folder)
    except OSError as error:
        raise ConfigError(f"folder {folder}: {error.strerror}; set {variable('data_dir')}") from None


def _link_secrets(settings: GatewaySettings, now_ms: int) -> FixedLinkSecrets | LinkSecretFile:
    if settings.link_secrets:
        return FixedLinkSecrets(settings.link_secrets)
    file = LinkSecretFile(settings.link_secrets_path, rotate_days=settings.gateway_link_secret_days)
    try:
        file.load(now_ms)
    except LinkSecretsError as error:
        raise ConfigError(f"link secrets {error}; set {variable('gateway_link_secret')}, or repair the file") from None
    return file


def _pictures(
    settings: GatewaySettings, use: Overrides, metrics: Metrics, link_secrets: LinkSecrets, store: PictureStore
) -> PictureService:
    redirects = settings.gateway_images == "redirect"
    if settings.gateway_link_endpoint_url and not redirects:
        _log.warning("pictures.are_streamed", unused=variable("gateway_link_endpoint_url"))
    now = asyncio.get_running_loop().time
    streams = StreamTable(settings.gateway_image_streams, now=now)
    metrics.observe_streams(streams.__len__)
    return PictureService(
        store=store,
        signer=Signer(link_secrets, valid_s=settings.gateway_signed_url_s, now_ms=use.now_ms),
        streams=streams,
        pieces=PieceBudget(),
        metrics=metrics,
        rng=use.rng,
        now=now,
        redirect_s=settings.gateway_link_s if redirects else 0,
        patience_s=settings.gateway_image_stall_s,
    )


async def _store(settings: GatewaySettings, use: Overrides, skew: Skew, stack: AsyncExitStack) -> PictureStore:
    if use.store is not None:
        return use.store
    opened = aws.clients(link_endpoint_url=settings.gateway_link_endpoint_url, skew=skew)
    clients = await stack.enter_async_context(opened)
    return S3Bucket(clients.s3, settings.public_bucket, links=clients.links)


async def _watch_keys(keys: KeyRing) -> None:
    """Reads on the event loop: a look at the stamp is a system call or two, and the file has a few kilobytes."""
    while True:
        await asyncio.sleep(_KEYS_EVERY_S)
        before = keys.problem
        if keys.refresh():
            _log.info("keys.loaded", valid=keys.valid)
        if keys.problem != before:
            _log.warning("keys.changed", state=keys.problem or "readable")


async def _watch_link_secrets(file: FixedLinkSecrets | LinkSecretFile, now_ms: Callable[[], int]) -> None:
    while True:
        await asyncio.sleep(_KEYS_EVERY_S)
        before = file.problem
        file.refresh(now_ms())
        if file.problem != before:
            _log.warning("link_secrets.changed", state=file.problem or "readable")


def _listener(settings: GatewaySettings, context: Context) -> Listener:
    metrics = context.metrics
    limit = connection_limit(settings.gateway_max_connections)
    table = ConnectionTable(limit, send_timeout_s=settings.gateway_send_timeout_s, on_cut=metrics.cut)
    metrics.observe_connections(table.__len__)
    return Listener(
        application(context),
        settings.gateway_host,
        settings.gateway_port,
        table=table,
        idle_timeout_s=settings.gateway_idle_timeout_s,
        drain_s=settings.drain_s,
    )
