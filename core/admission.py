"""From a valid submitted item to the order that requests it: salt, HMAC of the prompts, spec, trace.

The span `generation.requested` lasts until the writer has answered; its context is what the log keeps, so that
everything done for the generation later, even after a restart, hangs below it.
"""

import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span

from core import commands as c
from core import tracing
from core.draft import KeyClaim, Order
from core.events import Prompts, Spec, Trace
from core.ports import PromptRow
from schema import pb

_tracer = trace.get_tracer(__name__)


class Admission:
    """`new_salt` gives 16 random bytes."""

    def __init__(self, *, new_salt: Callable[[], bytes]) -> None:
        self._new_salt = new_salt

    @contextmanager
    def spans(self) -> Iterator[list[Span] | None]:
        """Ends the spans of one batch; None while nobody records any."""
        if not tracing.enabled():
            yield None
            return
        spans: list[Span] = []
        try:
            yield spans
        finally:
            for span in spans:
                span.end()

    def order(self, item: pb.SubmitItem, spans: list[Span] | None) -> Order:
        """The order for one item."""
        salt = self._new_salt()
        request = c.Request(
            tenant=item.tenant,
            spec=spec_of(item.spec),
            priority=item.priority,
            ttl_s=item.ttl_s,
            prompt_hmac=prompt_hmac(salt, item.prompts),
            trace=self._trace(item, spans),
        )
        prompts = Prompts(prompt=item.prompts.prompt, negative_prompt=item.prompts.negative_prompt)
        row = PromptRow(generation_id=item.generation_id, salt=salt, prompts=prompts)
        claim = KeyClaim(item.idempotency_key, item.body_sha256) if item.idempotency_key else None
        return Order(item.generation_id, request, row, claim)

    def _trace(self, item: pb.SubmitItem, spans: list[Span] | None) -> Trace:
        given = Trace(traceparent=item.trace.traceparent, tracestate=item.trace.tracestate)
        if spans is None:
            return given
        span = _tracer.start_span(
            "generation.requested",
            context=tracing.context_of(given),
            attributes={"darkroom.generation.id": item.generation_id, "gen_ai.request.model": item.spec.model},
        )
        spans.append(span)
        return tracing.trace_of(span)


def prompt_hmac(salt: bytes, prompts: pb.Prompts) -> bytes:
    """HMAC-SHA256(salt, prompt NUL negative_prompt): proves what was asked without holding it."""
    return hmac.digest(salt, f"{prompts.prompt}\0{prompts.negative_prompt}".encode(), "sha256")


def spec_of(spec: pb.GenerationSpec) -> Spec:
    """The spec as the log keeps it."""
    return Spec(
        model=spec.model,
        width=spec.width,
        height=spec.height,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        seed=spec.seed,
        n=spec.n,
        output_format=int(spec.output_format),
        scheduler=spec.scheduler,
    )
