"""Replies as commands, and the span under which a reply is processed."""

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from core import tracing
from core.domain import commands as c
from core.domain.events import Failure, ImageAttemptFailed, ImageRendered, Spec
from core.log import codec
from core.ports import Received
from schema import fast

_tracer = trace.get_tracer(__name__)
Reply = fast.ImageStarted | fast.ImageRendered | fast.ImageAttemptFailed


class Processing:
    """The CONSUMER span of one reply, a child of the worker's PRODUCER span; not made current."""

    def __init__(self, queue: str, reply: Reply, source: Received) -> None:
        self._span = _tracer.start_span(
            f"process {queue}",
            context=tracing.context_of(source.attributes),
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "aws_sqs",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": queue,
                "messaging.message.conversation_id": reply.image.generation_id,
                "darkroom.reply": kind(reply),
                "darkroom.image.index": reply.image.index,
            },
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._span.end()


def kind(reply: Reply) -> str:
    """Its name in metrics and spans."""
    match reply:
        case fast.ImageStarted():
            return "started"
        case fast.ImageRendered():
            return "rendered"
        case _:
            return "attempt_failed"


def started(reply: fast.ImageStarted, recheck_after_ms: int) -> c.RecordStarted:
    """The command for `started`."""
    return c.RecordStarted(
        index=reply.image.index,
        attempt_id=reply.attempt_id,
        dispatch=reply.dispatch,
        worker_id=reply.worker_id,
        solo=reply.solo,
        batch_id=reply.batch_id,
        batch_size=reply.batch_size,
        recheck_after_ms=recheck_after_ms,
    )


def rendered(reply: fast.ImageRendered, public_token: str) -> c.RecordRendered:
    """The command for `rendered`: a picture is in the temporary bucket. `public_token` is fresh."""
    return c.RecordRendered(
        event=ImageRendered(
            index=reply.image.index,
            attempt_id=reply.attempt_id,
            worker_id=reply.worker_id,
            temp_key=reply.temp_key,
            sha256=reply.sha256,
            size_bytes=reply.size_bytes,
            width=reply.width,
            height=reply.height,
            format=reply.format,
            public_token=public_token,
            timings=codec.TIMINGS.value(reply.timings),
            facts=codec.FACTS.value(reply.facts),
        )
    )


def attempt_failed(reply: fast.ImageAttemptFailed, verdict: c.Verdict = c.Verdict.COUNT) -> c.RecordAttemptFailed:
    """The command for `attempt_failed`; `verdict` says what the failure means for the image."""
    return c.RecordAttemptFailed(
        event=ImageAttemptFailed(
            index=reply.image.index,
            attempt_id=reply.attempt_id,
            dispatch=reply.dispatch,
            worker_id=reply.worker_id,
            failure=Failure(reply.failure),
            solo=reply.solo,
            detail=reply.detail,
        ),
        verdict=verdict,
    )


def misfit(reply: fast.ImageRendered, spec: Spec) -> c.RecordAttemptFailed | None:
    """The failure to record for a picture whose size or format is not the requested one; None for one that fits."""
    if (reply.width, reply.height, reply.format) == (spec.width, spec.height, spec.output_format):
        return None
    return c.RecordAttemptFailed(
        event=ImageAttemptFailed(
            index=reply.image.index,
            attempt_id=reply.attempt_id,
            dispatch=reply.dispatch,
            worker_id=reply.worker_id,
            failure=Failure.BAD_OUTPUT,
            solo=False,
            detail="the picture has another size or format than asked for",
        )
    )
