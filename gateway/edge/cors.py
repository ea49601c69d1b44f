"""CORS: which pages of other origins may call the API from a browser. Off unless origins are set; pure.

Keys travel in a header that scripts add themselves and never in cookies, so credentials are never allowed. Even with
`*`, a page can use no key but one that its visitor has entered there.
"""

import re
from collections.abc import Mapping, Sequence

_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_LAST_PORT = 65_535
_MAX_AGE_S = 600
_HEADERS = frozenset(
    {
        *("authorization", "content-type", "accept", "accept-language", "range", "prefer", "idempotency-key"),
        *("last-event-id", "if-none-match", "if-match", "if-range", "traceparent", "tracestate", "openai-organization"),
        *("openai-project", "x-request-id", "cache-control"),
    }
)
_PREFIXES = ("x-stainless-",)
_EXPOSED = ", ".join(
    (
        *("Location", "Retry-After", "ETag", "RateLimit", "RateLimit-Policy", "X-Request-Id", "Content-Range"),
        *("Content-Length", "Content-Disposition", "Accept-Ranges", "Idempotent-Replayed", "Preference-Applied"),
    )
)


class Cors:
    """`origins` as `scheme://host[:port]`, or `*` alone for any."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    def __bool__(self) -> bool:
        return bool(self._origins)

    def answer(self, origin: str | None) -> dict[str, str]:
        """The headers of every answer to a page of this origin, errors included."""
        if not self._origins:
            return {}
        if self._any:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _EXPOSED}
        if origin is None or origin.lower() not in self._origins:
            return {}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED}

    @property
    def varies(self) -> bool:
        """Whether answers differ by Origin."""
        return bool(self._origins) and not self._any

    def preflight(self, request: Mapping[str, str], methods: str) -> dict[str, str]:
        """The headers that answer a preflight for a path with `methods`.

        Empty if `request`, the headers of an OPTIONS request, is no preflight or its origin is not allowed.
        """
        if "Access-Control-Request-Method" not in request or not self.answer(request.get("Origin")):
            return {}
        asked = request.get("Access-Control-Request-Headers", "")
        names = [name.strip().lower() for name in asked.split(",")]
        return {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": ", ".join(name for name in dict.fromkeys(names) if _may_send(name)),
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }


def parsed(text: str) -> tuple[str, ...]:
    """The origins of a setting, separated by commas. Raises ValueError, which says why."""
    origins = tuple(dict.fromkeys(each.strip().lower() for each in text.split(",") if each.strip()))
    for each in origins:
        if each != "*" and not _is_origin(each):
            raise ValueError("origins look like https://app.example.org, without a path, separated by commas; or *")
    if "*" in origins and len(origins) > 1:
        raise ValueError("* allows every origin: leave the others out")
    return origins


def _is_origin(text: str) -> bool:
    found = _ORIGIN.fullmatch(text)
    return found is not None and (not found["port"] or 0 < int(found["port"]) <= _LAST_PORT)


def _may_send(name: str) -> bool:
    return name in _HEADERS or name.startswith(_PREFIXES)
