"""The server span of each request and the trace context that goes with a submission.

Spans are made by hand after the semantic conventions for HTTP (https://opentelemetry.io/docs/specs/semconv/http/).
With tracing off no span is made, but a client's `traceparent` is still passed on to core, for the traces of others.
The route becomes an attribute, and so does a well-formed generation id. Bodies, keys, paths, query strings and headers
do not: a client may put anything into a path by mistake.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from aiohttp import web
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

_tracer = trace.get_tracer(__name__)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACESTATE_CHARS = 512
_MAX_TRACESTATE_MEMBERS = 32
_MEMBER = re.compile(
    r"(?P<key>[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})="
    r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class HttpTracer:
    """`enabled`: spans are recorded; if not, callers skip `serving`, and `outgoing` passes on the client's context."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    @contextmanager
    def serving(self, request: web.Request, route: str) -> Iterator[Span]:
        """The span around one request, child of the client's, and current inside."""
        span_name = f"{request.method} {route}" if route else request.method
        attributes = {
            "http.request.method": request.method,
            "url.scheme": request.scheme,
            "network.protocol.version": f"{request.version.major}.{request.version.minor}",
        }
        if route:
            attributes["http.route"] = route
        with _tracer.start_as_current_span(
            span_name,
            context=propagate.extract(_incoming(request)),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    def outgoing(self, request: web.Request) -> tuple[str, str]:
        """`traceparent` and `tracestate` for a submission; empty when there is no trace."""
        carrier: Mapping[str, str] = _incoming(request)
        if self.enabled:
            own: dict[str, str] = {}
            propagate.inject(own)
            carrier = own
        return carrier.get("traceparent", ""), carrier.get("tracestate", "")


def finish(span: Span, status: int) -> None:
    """Records the answer's status on the span of its request."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def note_generation(generation_id: str) -> None:
    """Records the generation's id on the span of the current request."""
    trace.get_current_span().set_attribute("darkroom.generation_id", generation_id)


@contextmanager
def batch(name: str, members: Sequence[Span]) -> Iterator[None]:
    """The span of one call for many requests: it links to their spans, and they to it.

    It has no parent, because none of the requests is more its cause than the others.
    """
    links = [Link(span.get_span_context()) for span in members]
    with _tracer.start_as_current_span(
        name,
        context=trace.set_span_in_context(trace.INVALID_SPAN),
        links=links,
        attributes={"batch.size": len(links)},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        for member in members:
            member.add_link(span.get_span_context())
        yield


def _incoming(request: web.Request) -> dict[str, str]:
    """The client's trace context, if it is well formed. Baggage is not taken: it may hold anything."""
    parents = request.headers.getall("traceparent", ())
    if len(parents) != 1 or not _TRACEPARENT.fullmatch(parents[0]):
        return {}
    tracestate = ",".join(request.headers.getall("tracestate", ()))
    if not tracestate or not is_tracestate(tracestate):
        return {"traceparent": parents[0]}
    return {"traceparent": parents[0], "tracestate": tracestate}


def is_tracestate(text: str) -> bool:
    """Whether `text` is a well-formed tracestate of W3C Trace Context, no longer than every service must pass on.

    https://www.w3.org/TR/trace-context/#tracestate-header: 32 members and 512 characters, each key once.
    """
    if len(text) > _MAX_TRACESTATE_CHARS:
        return False
    members = [member.strip(" \t") for member in text.split(",")]
    found = [_MEMBER.fullmatch(member) for member in members if member]
    if not found or len(found) > _MAX_TRACESTATE_MEMBERS or None in found:
        return False
    return len({each["key"] for each in found if each}) == len(found)
