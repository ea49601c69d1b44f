"""Around every handler: who calls, how often, what came of it, and no error that is not a problem document.

One aiohttp middleware, since also what the router refuses (404, 405) must look like the rest.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web

from gateway import errors, problems, tracing
from gateway.connections import Connection
from gateway.context import PLACE, Context
from gateway.keys import Caller
from gateway.operations import Operation
from infra.retry import Retryable

_log = structlog.get_logger()
_NOBODY = Caller(tenant="", key_id="")
_UNMATCHED = "unmatched"
_LIMITS = web.RequestKey("rate_limits", list[Mapping[str, str]])
"""Under which a request keeps the headers of the rules that let it pass."""
_Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(context: Context, operations: Sequence[Operation]) -> tuple[list[web.RouteDef], Any]:
    """The operations as routes, and the middleware that must stand around them."""
    by_endpoint: dict[_Endpoint, Operation] = {}
    definitions = []
    for each in operations:
        endpoint = _endpoint(context, each)
        by_endpoint[endpoint] = each
        options = {"allow_head": True} if each.method == "GET" else {}
        definitions.append(web.RouteDef(each.method, each.path, endpoint, options))
    return definitions, _middleware(context, by_endpoint)


def _endpoint(context: Context, operation: Operation) -> _Endpoint:
    """The handler behind its checks. Limits of an address come before the key, so that guessing keys is limited too."""
    limits, keys, handler, name = context.limits, context.keys, operation.handler, operation.id

    async def secured(request: web.Request) -> web.StreamResponse:
        request[_LIMITS] = [limits.check_source(name, request.remote or "")]
        caller = keys.caller(request.headers.get("Authorization"))
        if isinstance(request.protocol, Connection):
            request.protocol.serves(caller.tenant)
        request[_LIMITS].append(limits.check_key(name, caller.key_id))
        with context.crowd.place(caller.tenant) as request[PLACE]:
            return await handler(context, request, caller)

    async def public(request: web.Request) -> web.StreamResponse:
        return await handler(context, request, _NOBODY)

    return secured if operation.secured else public


def _middleware(context: Context, by_endpoint: Mapping[_Endpoint, Operation]) -> Any:
    metrics, tracer, now = context.metrics, context.tracer, context.now

    @web.middleware
    async def boundary(request: web.Request, handler: _Endpoint) -> web.StreamResponse:
        started = now()
        operation = by_endpoint.get(handler)
        name = operation.id if operation else _UNMATCHED
        if tracer.enabled:
            with tracer.serving(request, operation.path if operation else "") as span:
                response = await _answer(request, handler, name)
                tracing.finish(span, response.status)
        else:
            response = await _answer(request, handler, name)
        _tell_limits(request, response)
        response.headers.update(problems.ON_EVERY_ANSWER)
        metrics.answered(name, response.status, now() - started)
        return response

    return boundary


def _tell_limits(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer after a token was taken tells what is left, refusals too: first the address's rules, then the key's.

    A rule that refused stands in the answer already.
    """
    for taken in reversed(request.get(_LIMITS, ())):
        for name, value in taken.items():
            after = response.headers.get(name)
            response.headers[name] = f"{value}, {after}" if after else value


async def _answer(request: web.Request, endpoint: _Endpoint, name: str) -> web.StreamResponse:
    try:
        return await endpoint(request)
    except errors.Broken as error:
        _report(name, error)
        return problems.response(error)
    except errors.GatewayError as error:
        return problems.response(error)
    except web.HTTPException as error:
        return problems.response(_translated(error))
    except Retryable:
        return problems.response(errors.Unavailable())
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001  (the last net: a client gets a problem, the log gets the place)
        _report(name, error)
        return problems.response(errors.Broken())


def _translated(error: web.HTTPException) -> errors.GatewayError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return errors.MethodNotAllowed(", ".join(sorted(error.allowed_methods)))
    if error.status == 404:
        return errors.NotFound()
    return errors.BadSyntax()


def _report(name: str, error: BaseException) -> None:
    """Logs where a fault of ours arose. Its text stays out: it may hold what a user wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    place = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    _log.error("request.broken", operation=name, error=type(error).__name__, place=place)
