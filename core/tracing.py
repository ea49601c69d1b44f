"""Trace context between its stored form (`events.Trace`, message attributes) and OpenTelemetry's.

While no SDK is set up all of this costs next to nothing: contexts are passed on as they are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, Span, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.domain.events import Trace

_w3c = TraceContextTextMapPropagator()


def enabled() -> bool:
    """Whether spans go anywhere."""
    return not isinstance(trace.get_tracer_provider(), (ProxyTracerProvider, NoOpTracerProvider))


def context_of(stored: Trace | Mapping[str, str]) -> Context:
    """The context under which new spans are children of the stored one."""
    return _w3c.extract(attributes_of(stored) if isinstance(stored, Trace) else dict(stored))


def attributes_of(stored: Trace) -> dict[str, str]:
    """The stored context as message attributes; empty when untraced."""
    if not stored.traceparent:
        return {}
    attributes = {"traceparent": stored.traceparent}
    if stored.tracestate:
        attributes["tracestate"] = stored.tracestate
    return attributes


def trace_of(span: Span) -> Trace:
    """The span's own context, to be stored."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, trace.set_span_in_context(span))
    return Trace(traceparent=carrier.get("traceparent", ""), tracestate=carrier.get("tracestate", ""))


@contextmanager
def marking(span: Span) -> Iterator[None]:
    """Marks the span as failed when its block raises, and records only the type of the error.

    The messages and causes that OpenTelemetry would record may hold the URL of a picture, and only the secrecy of that
    URL protects the picture. Spans are therefore started with `record_exception` and `set_status_on_exception` off.
    """
    try:
        yield
    except Exception as error:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR)
        raise
