"""The root of the API: links to the documentation and the operations, as a page or as JSON."""

from html import escape

from aiohttp import web
from pydantic_core import to_json

from gateway.access.keys import Caller
from gateway.bodies import responses
from gateway.routes.context import Context
from gateway.routes.operations import Answer, operation

_LINKS = {
    "docs": ("/docs", "Read the API and try it"),
    "openapi": ("/openapi.json", "The API's description (OpenAPI 3.1)"),
    "models": ("/v1/models", "The models that are served; needs an API key"),
    "generations": ("/v1/generations", "POST asks for images, GET lists them; needs an API key"),
    "health": ("/healthz", "Does the process live?"),
    "readiness": ("/readyz", "Can it take requests?"),
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Vary": "Accept",
}


@operation(
    id="index",
    method="GET",
    path="/",
    tag="documentation",
    summary="What there is",
    secured=False,
    answers={200: Answer(description="The paths to go on with; a page for browsers.", model=responses.Index)},
)
async def index(context: Context, request: web.Request, _: Caller) -> web.Response:
    """GET /."""
    if "text/html" in request.headers.get("Accept", "").lower():
        return web.Response(
            body=_page(context.base_url), headers={**_HEADERS, "Content-Type": "text/html; charset=utf-8"}
        )
    links = {name: context.base_url + path for name, (path, _) in _LINKS.items()}
    content = to_json({"name": "darkroom", "links": links})
    return web.Response(body=content, headers={**_HEADERS, "Content-Type": "application/json"})


def _page(base_url: str) -> bytes:
    items = "".join(
        f'<li><a href="{escape(base_url + path)}">{path}</a> {escape(about)}</li>' for path, about in _LINKS.values()
    )
    page = f"<!doctype html><html lang=en><title>darkroom</title><h1>darkroom</h1><ul>{items}</ul></html>"
    return page.encode()
