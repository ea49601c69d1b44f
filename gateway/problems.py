"""The one place where errors become HTTP: RFC 9457 problem details, with an `error` member for OpenAI's clients."""

from typing import Any

from aiohttp import web
from pydantic_core import to_json

from gateway import errors

CONTENT_TYPE = "application/problem+json"
ON_EVERY_ANSWER = {"Server": "darkroom", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
TYPE_PREFIX = "urn:darkroom:problem:"


def response(error: errors.GatewayError) -> web.Response:
    """`error` as an answer. An unknown id and another tenant's id get the same bytes."""
    headers = {"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE, **error.headers}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return web.Response(status=error.status, body=to_json(body(error)), headers=headers)


def body(error: errors.GatewayError) -> dict[str, Any]:
    """The members of the problem. An internal error shows its title in place of its detail."""
    detail = error.title if isinstance(error, errors.Broken) else error.detail
    members: dict[str, Any] = {
        "type": TYPE_PREFIX + error.slug,
        "title": error.title,
        "status": error.status,
        "detail": detail,
    }
    match error:
        case errors.InvalidFields():
            members["errors"] = [{"field": field, "message": message} for field, message in error.errors]
        case errors.TooLate() | errors.NotEnded():
            members["state"] = error.state
        case errors.BacklogFull():
            members["bound"] = error.bound
        case _:
            pass
    members["error"] = {
        "message": detail,
        "type": _openai_type(error.status),
        "param": error.param,
        "code": error.slug.replace("-", "_"),
    }
    return members


def _openai_type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
