"""From the bytes of a request to a valid pydantic model. Everything that can be wrong on the way is a UserFault.

The standard library's JSON parser is used because it can refuse what pydantic's accepts: duplicate names in one
object, which two readers may read differently, and the literals NaN and Infinity.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway import errors

MAX_BODY_BYTES = 64 * 1024
_ECHOED_CHARS = 64
M = TypeVar("M", bound=BaseModel)


async def read(request: web.Request, *, timeout_s: float) -> bytes:
    """The body of a JSON request. Raises UnsupportedMedia, BodyTooLarge or RequestTimedOut."""
    headers = request.headers
    if "Content-Encoding" in headers:
        raise errors.UnsupportedMedia("Send the body as it is, without Content-Encoding.")
    if headers.get("Content-Type") != "application/json":
        _check_content_type(request)
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        if request.content.is_eof():  # the body is here: no timer needed
            return await request.read()
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError:
        raise errors.RequestTimedOut from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except web.RequestPayloadError:
        raise errors.BadSyntax("The body ends before it is complete.") from None


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises BadSyntax, which names the position."""
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except _Refused as refused:
        raise errors.BadSyntax(str(refused)) from None
    except UnicodeDecodeError as error:
        raise errors.BadSyntax(f"The body is not UTF-8: byte {error.start}.") from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno} column {error.colno}"
        raise errors.BadSyntax(f"The body is not JSON: {error.msg} at {position}.") from None
    except RecursionError:
        raise errors.BadSyntax("The body is nested too deeply.") from None
    except ValueError:  # an integer of thousands of digits
        raise errors.BadSyntax("The body holds a number that is too long.") from None
    if not isinstance(value, dict):
        raise errors.BadSyntax("The body must be a JSON object.")
    return value


def canonical(value: Mapping[str, Any]) -> bytes:
    """Equal for bodies with the same values, whatever the order of their fields and their white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def validated(model: type[M], value: object) -> M:
    """`value` as an instance of `model`. Raises InvalidFields, which repeats no value."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True, include_input=False)
        raise errors.InvalidFields([_explained(each["loc"], each["type"], each["msg"]) for each in found]) from None


def validated_query(model: type[M], request: web.Request) -> M:
    """The query string as an instance of `model`. Raises InvalidFields, also for a duplicate parameter."""
    query = request.query
    twice = sorted({name for name in query if len(query.getall(name)) > 1})
    if twice:
        raise errors.InvalidFields([(_shown(name), "is given more than once") for name in twice])
    return validated(model, dict(query))


_MESSAGES = {
    "extra_forbidden": "is not a field of this request",
    "missing": "is required",
    "string_too_short": "must not be empty",
    "string_unicode": "must be valid Unicode text",
}


def _explained(loc: tuple[int | str, ...], kind: str, message: str) -> tuple[str, str]:
    field = ".".join(str(part) for part in loc) or "body"
    if kind == "string_pattern_mismatch":
        return field, _PATTERNS.get(field, "has characters that are not allowed")
    return _shown(field), _MESSAGES.get(kind, message)


_PATTERNS = {
    "prompt": "must hold more than white space, and no control characters",
    "negative_prompt": "must not hold control characters",
}


def _check_content_type(request: web.Request) -> None:
    charset = (request.charset or "utf-8").lower()
    if request.content_type != "application/json" or charset not in ("utf-8", "utf8"):
        raise errors.UnsupportedMedia("Send the body as application/json in UTF-8.")


def _too_large() -> errors.BodyTooLarge:
    return errors.BodyTooLarge(f"A body may have at most {MAX_BODY_BYTES} bytes.")


class _Refused(Exception):
    """JSON that Python accepts and this API refuses. Not a ValueError, as the parser's own errors are."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Refused(f"The name {json.dumps(_shown(twice))} is duplicated in one object.")
    return found


def _refuse_literal(literal: str) -> NoReturn:
    raise _Refused(f"The body is not JSON: it holds the literal {literal}.")


def _shown(name: str) -> str:
    """A name from the client, cut and made safe to repeat."""
    return name[:_ECHOED_CHARS].encode("ascii", "backslashreplace").decode("ascii")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_literal)
