"""Job messages: what core tells a worker about one image, and the span under which it says so."""

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from core import tracing
from core.domain.events import Prompts, Spec
from core.domain.state import Generation, Image, Ref, image_seed
from core.errors import LogBroken
from core.ports import Outgoing
from schema import fast, messages, pb

_tracer = trace.get_tracer(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One sending of one image. `solo`: it must run in a batch of its own."""

    state: Generation
    image: Image
    solo: bool

    @property
    def ref(self) -> Ref:
        return self.state.id, self.image.index


def outgoing(job: Job, prompts: Mapping[str, Prompts], queue: str) -> Outgoing:
    """The message, sealed, in the trace of its generation. Raises LogBroken when there is no prompt for it."""
    state = job.state
    if state.id not in prompts:
        raise LogBroken(f"the prompt of open generation {state.id} is missing")
    body = messages.encode(job_message(state, job.image, prompts[state.id], solo=job.solo))
    if not state.trace.traceparent or not tracing.enabled():
        return Outgoing(body=body, attributes=tracing.attributes_of(state.trace))
    with _tracer.start_as_current_span(
        f"send {queue}",
        context=tracing.context_of(state.trace),
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": "aws_sqs",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
            "messaging.message.conversation_id": state.id,
            "darkroom.image.index": job.image.index,
            "darkroom.dispatch": job.image.dispatches + 1,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        return Outgoing(body=body, attributes=tracing.attributes_of(tracing.trace_of(span)))


def batch_key(spec: Spec) -> tuple[object, ...]:
    """What images must share to run in one batch on any engine."""
    return spec.model, spec.width, spec.height, spec.num_inference_steps, spec.guidance_scale, spec.scheduler


def job_message(state: Generation, image: Image, prompts: Prompts, *, solo: bool) -> fast.ImageJob:
    """The message that asks a worker for this image.

    Without its priority: that orders the images of one tenant, which is done here, and a worker, which knows no
    tenants, would let it pass those of another.
    """
    spec = state.spec
    return fast.ImageJob(
        image=fast.ImageRef(generation_id=state.id, index=image.index),
        dispatch=image.dispatches + 1,
        spec=fast.GenerationSpec(
            model=spec.model,
            width=spec.width,
            height=spec.height,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            seed=spec.seed,
            n=spec.n,
            output_format=pb.OutputFormat(spec.output_format),
            scheduler=spec.scheduler,
        ),
        prompts=fast.Prompts(prompt=prompts.prompt, negative_prompt=prompts.negative_prompt),
        image_seed=image_seed(spec.seed, image.index),
        solo=solo,
        requested_at_ms=state.requested_at_ms,
        trace=fast.TraceContext(traceparent=state.trace.traceparent, tracestate=state.trace.tracestate),
    )
