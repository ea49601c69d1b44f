"""Job messages: what a worker learns about one image, and the span under which it is sent."""

from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from core import tracing
from core.dispatch.image_book import Job
from core.domain.events import Prompts
from core.domain.state import Generation, Image, image_seed
from core.errors import LogBroken
from core.log import codec
from core.ports import JobQueue, Outgoing
from core.runtime.prompt_cache import PromptCache
from schema import fast, messages

_tracer = trace.get_tracer(__name__)


class JobSender:
    """Sends jobs with their prompts. `name` is the queue's, for spans."""

    def __init__(self, queue: JobQueue, prompts: PromptCache, name: str) -> None:
        self._queue = queue
        self._prompts = prompts
        self._name = name

    async def send(self, jobs: Sequence[Job]) -> list[bool]:
        """Send up to ten jobs; True where the queue has accepted one. Raises Retryable or Permanent when it is unknown
        what was accepted, and LogBroken when a prompt is missing.
        """
        prompts = await self._prompts.of_open([job.state.id for job in jobs])
        return await self._queue.send([outgoing(job, prompts, self._name) for job in jobs])


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


def job_message(state: Generation, image: Image, prompts: Prompts, *, solo: bool) -> fast.ImageJob:
    """The message that asks a worker for this image.

    The priority is left out. It orders the images within one tenant, which core has already done; a worker knows no
    tenants, and would let the image overtake those of other tenants.
    """
    spec = state.spec
    return fast.ImageJob(
        image=fast.ImageRef(generation_id=state.id, index=image.index),
        dispatch=image.dispatches + 1,
        spec=codec.SPEC.message(spec),
        prompts=fast.Prompts(prompt=prompts.prompt, negative_prompt=prompts.negative_prompt),
        image_seed=image_seed(spec.seed, image.index),
        solo=solo,
        requested_at_ms=state.requested_at_ms,
        trace=codec.TRACE.message(state.trace),
    )
