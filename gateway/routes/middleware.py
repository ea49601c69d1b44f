"""Runs around every handler: checks framing, key and limits, records the request, and turns errors into problems.

One aiohttp middleware, because what the router refuses (404, 405) must have the same form; and one hook that adds the
common headers before the first byte, because an answer may be sent before its handler returns.
"""

import asyncio
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web

from gateway import errors, problems, tracing
from gateway.access.keys import Caller
from gateway.edge import framing
from gateway.pictures import signing
from gateway.routes import paths
from gateway.routes.context import SLOT, Context
from gateway.routes.operations import Operation
from gateway.server.connections import Connection
from infra.retry import Retryable

_log = structlog.get_logger()
_UNAUTHENTICATED = Caller(tenant="", key_id="")
_UNMATCHED = "unmatched"
_EVERY_METHOD = frozenset({"GET", "HEAD", "POST", "DELETE"})
_REQUEST_ID = "X-Request-Id"
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # no underscore: API keys have them, and must not be logged by mistake
_TENANT = web.RequestKey("tenant", str)
_LIMITS = web.RequestKey("rate_limits", list[Mapping[str, str]])
"""The key under which a request keeps the headers of the rules that let it pass."""
_Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(context: Context, operations: Sequence[Operation]) -> tuple[list[web.RouteDef], Any]:
    """The operations as routes, and the middleware that must surround them."""
    by_endpoint: dict[_Endpoint, Operation] = {}
    definitions = []
    for each in operations:
        endpoint = _endpoint(context, each)
        by_endpoint[endpoint] = each
        options = {"allow_head": True} if each.method == "GET" else {}
        definitions.append(web.RouteDef(each.method, each.path, endpoint, options))
    return definitions, _middleware(context, by_endpoint)


def _endpoint(context: Context, operation: Operation) -> _Endpoint:
    """The handler behind its checks. Limits by address come before the key, so that guessing keys is limited too."""
    limits, keys, handler, name = context.limits, context.keys, operation.handler, operation.id

    async def secured(request: web.Request) -> web.StreamResponse:
        request[_LIMITS] = [limits.check_source(name, request.remote or "")]
        if operation.signed and _has_signature(request):
            caller = _bearer(context, request)
        else:
            caller = keys.caller(request.headers.get("Authorization"))
        request[_TENANT] = caller.tenant
        if isinstance(request.protocol, Connection):
            request.protocol.serves(caller.tenant)
        if not caller.until_s:
            request[_LIMITS].append(limits.check_key(name, caller.key_id))
        with context.in_flight.slot(caller.tenant) as request[SLOT]:
            return await handler(context, request, caller)

    async def public(request: web.Request) -> web.StreamResponse:
        return await handler(context, request, _UNAUTHENTICATED)

    return secured if operation.secured else public


def _middleware(context: Context, by_endpoint: Mapping[_Endpoint, Operation]) -> Any:
    metrics, tracer, now = context.metrics, context.tracer, context.now

    def admit(request: web.Request, operation: Operation | None) -> None:
        framing.check(request)
        signed = operation is not None and operation.signed and _has_signature(request)
        if context.keys.open_to_all and not signed:
            context.guard.check(request, document=operation is not None and not operation.secured)

    def note(request: web.Request, operation: Operation | None, status: int, seconds: float) -> None:
        """Logs the answer. Without an operation, method and path are left out: they may hold anything."""
        request_id = _client_request_id(request) or f"req_{os.urandom(8).hex()}"
        method, route = (request.method, operation.path) if operation else (_UNMATCHED, "")
        context.answered(method, route, status, round(seconds * 1000, 1), request.get(_TENANT, ""), request_id)

    @web.middleware
    async def boundary(request: web.Request, handler: _Endpoint) -> web.StreamResponse:
        started = now()
        operation = by_endpoint.get(handler)

        async def admitted(request: web.Request) -> web.StreamResponse:
            admit(request, operation)
            return await handler(request)

        name = operation.id if operation else _UNMATCHED
        if tracer.enabled:
            with tracer.serving(request, operation.path if operation else "") as span:
                response = await _answer(context, request, admitted, name)
                tracing.finish(span, response.status)
                note(request, operation, response.status, now() - started)
        else:
            response = await _answer(context, request, admitted, name)
            note(request, operation, response.status, now() - started)
        metrics.answered(name, response.status, now() - started)
        return response

    return boundary


def _client_request_id(request: web.Request) -> str:
    """The client's own id of the request, which is returned and logged; empty if it has none that may be logged."""
    theirs = request.headers.get(_REQUEST_ID, "")
    return theirs if _ID.fullmatch(theirs) else ""


def finishing(context: Context) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """The hook that aiohttp calls before it sends an answer's headers: adds those that every answer has."""

    async def finish(request: web.Request, response: web.StreamResponse) -> None:
        _add_limits(request, response)
        response.headers.update(problems.ON_EVERY_ANSWER)
        if theirs := _client_request_id(request):
            response.headers[_REQUEST_ID] = theirs
        if context.cors and not context.keys.open_to_all:
            response.headers.update(context.cors.answer(request.headers.get("Origin")))
            if context.cors.varies:
                before = response.headers.get("Vary")
                response.headers["Vary"] = f"{before}, Origin" if before else "Origin"

    return finish


def _has_signature(request: web.Request) -> bool:
    return signing.SIGNATURE in request.rel_url.raw_query_string and signing.SIGNATURE in request.query


def _bearer(context: Context, request: web.Request) -> Caller:
    """The holder of a signed URL. Raises NotFound for an invalid path, SignedUrlInvalid, SignedUrlExpired."""
    generation_id, index = paths.image(request)
    query = {name: request.query.getall(name) for name in (signing.SIGNATURE, signing.EXPIRES) if name in request.query}
    grant = context.pictures.signer.checked(query, generation_id, index)
    return Caller(tenant=grant.tenant, key_id="", until_s=grant.until_s)


def _add_limits(request: web.Request, response: web.StreamResponse) -> None:
    """Adds the state of the rate rules that took a token, to refusals as well: the address's rules, then the key's.

    The state of a rule that refused is in the answer already, and comes last.
    """
    for taken in reversed(request.get(_LIMITS, ())):
        for name, value in taken.items():
            after = response.headers.get(name)
            response.headers[name] = f"{value}, {after}" if after else value


async def _answer(context: Context, request: web.Request, endpoint: _Endpoint, name: str) -> web.StreamResponse:
    try:
        return await endpoint(request)
    except framing.BadFraming as error:
        response = problems.response(error)
        response.force_close()
        return response
    except errors.Broken as error:
        _report(name, error)
        return problems.response(error)
    except errors.GatewayError as error:
        return problems.response(error)
    except web.HTTPException as error:
        return _unrouted(context, request, error)
    except Retryable:
        return problems.response(errors.Unavailable())
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001  (the last resort: the client gets a problem, the log gets the traceback)
        _report(name, error)
        return problems.response(errors.Broken())


def _unrouted(context: Context, request: web.Request, error: web.HTTPException) -> web.Response:
    """The answer to a request for which the router found no handler."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        return _other_method(context, request, error.allowed_methods)
    if error.status != 404:
        return problems.response(errors.BadSyntax())
    if request.method == "OPTIONS" and request.raw_path == "*":
        return _other_method(context, request, _EVERY_METHOD)
    return problems.response(errors.NoSuchEndpoint(context.endpoints.closest(request.path)))


def _other_method(context: Context, request: web.Request, methods: Collection[str]) -> web.Response:
    """An existing path with a method that it does not have: OPTIONS is answered, any other is refused."""
    allowed = ", ".join(sorted({*methods, "OPTIONS"}))
    if request.method != "OPTIONS":
        return problems.response(errors.MethodNotAllowed(allowed))
    headers = {"Allow": allowed, "Cache-Control": "no-store"}
    if context.cors and not context.keys.open_to_all:
        headers |= context.cors.preflight(request.headers, allowed)
        headers["Vary"] = "Access-Control-Request-Method, Access-Control-Request-Headers"
    return web.Response(status=204, headers=headers)


def _report(name: str, error: BaseException) -> None:
    """Logs where an internal error was raised, without its text, which may hold what a user wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    place = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    _log.error("request.broken", operation=name, error=type(error).__name__, place=place)
