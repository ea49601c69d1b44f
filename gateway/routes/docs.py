"""The API's description and a page to read and try it: served from memory, offline, without inline scripts."""

from aiohttp import web

from gateway import errors
from gateway.access.keys import Caller
from gateway.routes.context import Context, Document
from gateway.routes.operations import Answer, operation

OPENAPI = "openapi.json"
PAGE = "docs.html"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@operation(
    id="openapi",
    method="GET",
    path="/openapi.json",
    tag="documentation",
    summary="This description",
    secured=False,
    answers={200: Answer(description="OpenAPI 3.1.")},
)
async def openapi(context: Context, request: web.Request, _: Caller) -> web.Response:
    """GET /openapi.json."""
    return _served(context.documents[OPENAPI], request)


@operation(
    id="docs", method="GET", path="/docs", tag="documentation", summary="", secured=False, documented=False, answers={}
)
async def page(context: Context, request: web.Request, _: Caller) -> web.Response:
    """GET /docs."""
    return _served(context.documents[PAGE], request)


@operation(
    id="docsFile",
    method="GET",
    path="/docs/{name}",
    tag="documentation",
    summary="",
    secured=False,
    documented=False,
    answers={},
)
async def asset(context: Context, request: web.Request, _: Caller) -> web.Response:
    """GET /docs/{name}: one of the files of the page."""
    document = context.documents.get("docs/" + request.match_info["name"])
    if document is None:
        raise errors.NoSuchEndpoint
    return _served(document, request)


def _served(document: Document, request: web.Request) -> web.Response:
    headers = {
        "ETag": document.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }
    if request.headers.get("If-None-Match") == document.etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=document.content, headers={**headers, "Content-Type": document.content_type})
