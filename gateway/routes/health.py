"""Whether the process lives, and whether it can do its work. Needs no key."""

from aiohttp import web
from pydantic_core import to_json

from gateway.access.keys import Caller
from gateway.bodies import responses
from gateway.routes.context import Context
from gateway.routes.operations import Answer, operation

_HEADERS = {"Cache-Control": "no-store", "Content-Type": "application/json"}


@operation(
    id="healthz",
    method="GET",
    path="/healthz",
    tag="health",
    summary="Does the process live?",
    secured=False,
    answers={200: Answer(description="It does.", model=responses.Health)},
)
async def healthz(_: Context, __: web.Request, ___: Caller) -> web.Response:
    """GET /healthz."""
    return web.Response(body=b'{"status":"ok","reasons":null}', headers=_HEADERS)


@operation(
    id="readyz",
    method="GET",
    path="/readyz",
    tag="health",
    summary="Can it take requests?",
    secured=False,
    answers={
        200: Answer(description="It can.", model=responses.Health),
        503: Answer(description="Not now; `reasons` says why.", model=responses.Health),
    },
)
async def readyz(context: Context, _: web.Request, __: Caller) -> web.Response:
    """GET /readyz."""
    reasons = list(context.readiness())
    content = {"status": "not ready" if reasons else "ok", "reasons": reasons or None}
    return web.Response(status=503 if reasons else 200, body=to_json(content), headers=_HEADERS)
