"""The worker's spans, by the names of OpenTelemetry's conventions. None of them has a prompt in it.

One image: `process {queue}` (CONSUMER, from admission to settling, child of the message's context) with
`generate_content {model}`, `upload {bucket}` and `send {queue}` (PRODUCER) under it. A batch has a span of its
own that links to its members' process spans, and their generate_content spans link to it.
"""

from collections.abc import Iterable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.holding.types import Batch, Held, Job

_tracer = trace.get_tracer(__name__)
_propagator = TraceContextTextMapPropagator()
_MESSAGING = {"messaging.system": "aws_sqs"}


def context_of(job: Job) -> Context:
    """The trace context of the job's message."""
    return _propagator.extract(dict(job.trace), Context())


def carrier(span: Span, fallback: Mapping[str, str]) -> dict[str, str]:
    """Message attributes that continue `span`; without tracing, `fallback` is passed on."""
    attributes: dict[str, str] = {}
    _propagator.inject(attributes, trace.set_span_in_context(span, Context()))
    if attributes:
        return attributes
    return {name: fallback[name] for name in ("traceparent", "tracestate") if fallback.get(name)}


def process(held: Held, queue: str, worker_id: str) -> Span:
    """The image's time in the worker, begun when it is admitted to the GPU."""
    return _tracer.start_span(
        f"process {queue}",
        context_of(held.job),
        SpanKind.CONSUMER,
        {
            **_MESSAGING,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": queue,
            "messaging.message.id": next(iter(held.receipts), ""),
            "messaging.message.conversation_id": held.job.image.generation_id,
            "darkroom.image.index": held.job.image.index,
            "darkroom.attempt.id": held.attempt_id,
            "darkroom.worker.id": worker_id,
        },
    )


def batch(of: Batch) -> Span:
    """The batch as a whole, in a trace of its own, linked to each member."""
    render = of.members[0].job.render
    return _tracer.start_span(
        "batch",
        Context(),
        attributes={
            "darkroom.batch.id": of.id,
            "darkroom.batch.size": len(of.members),
            "darkroom.batch.solo": of.solo,
            "gen_ai.request.model": render.model,
        },
        links=_links(held.span for held in of.members),
    )


def generate(held: Held, batch_span: Span) -> Span:
    """The image's time on the GPU."""
    render = held.job.render
    return _tracer.start_span(
        f"generate_content {render.model}",
        _under(held.span),
        SpanKind.INTERNAL,
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.output.type": "image",
            "gen_ai.request.model": render.model,
            "gen_ai.request.seed": render.seed,
            "darkroom.width": render.width,
            "darkroom.height": render.height,
            "darkroom.num_inference_steps": render.num_inference_steps,
            "darkroom.wait_ms": held.wait_s * 1000,
            "darkroom.wait_reason": held.wait_reason,
        },
        _links([batch_span]),
    )


def upload(held: Held, bucket: str, size_bytes: int) -> Span:
    """The upload, retries included."""
    attributes: dict[str, str | int] = {"aws.s3.bucket": bucket, "darkroom.size_bytes": size_bytes}
    return _tracer.start_span(f"upload {bucket}", _under(held.span), SpanKind.CLIENT, attributes)


def send(held: Held, queue: str, kind: str) -> Span:
    """The sending of a reply. Before admission, when the image has no span, its parent is the message's context."""
    parent = _under(held.span) if held.span is not INVALID_SPAN else context_of(held.job)
    return _tracer.start_span(
        f"send {queue}",
        parent,
        SpanKind.PRODUCER,
        {
            **_MESSAGING,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
            "messaging.message.conversation_id": held.job.image.generation_id,
            "darkroom.reply": kind,
        },
    )


def end(span: Span, error: str = "") -> None:
    """Ends the span. `error` says in general words what failed; empty on success."""
    if error:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end()


def _under(span: Span) -> Context:
    return trace.set_span_in_context(span, Context())


def _links(spans: Iterable[Span]) -> Sequence[Link]:
    return [Link(span.get_span_context()) for span in spans if span.get_span_context().is_valid]
