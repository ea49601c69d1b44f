"""Turns a valid submitted item into the order that requests it (salt, HMAC of the prompts, spec, charge, trace), and a
refusal into its answer.

The span `generation.requested` lasts until the writer has answered. The log keeps its context, so that later spans of
the generation, even after a restart, are its children.
"""

import hmac
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span

from core import tracing
from core.domain import commands as c
from core.domain.decide import Refused
from core.domain.events import Prompts, Trace
from core.domain.records import PromptRow
from core.domain.transaction import BacklogFull, IdempotencyKey, IdTaken, KeyConflict, Order
from core.log import codec
from core.runtime.estimates import Estimates
from schema import fast, pb, validate

_KEY_CONFLICT = int(pb.SubmitOutcome.KEY_CONFLICT)
_BACKLOG_FULL = int(pb.SubmitOutcome.BACKLOG_FULL)
_INVALID = int(pb.SubmitOutcome.INVALID)
_LONGEST_RETRY_S = 120
_JITTER = 0.25
_tracer = trace.get_tracer(__name__)


class SubmissionOrders:
    """`new_salt` gives 16 random bytes, `rng` numbers from 0 to 1."""

    def __init__(self, estimates: Estimates, *, new_salt: Callable[[], bytes], rng: Callable[[], float]) -> None:
        self._estimates = estimates
        self._new_salt = new_salt
        self._rng = rng

    def compare_with(self, default: fast.GenerationSpec | None) -> None:
        """Use `default`, the default request of the submitting gateway, as the unit of charges from now on. None or an
        invalid request changes nothing.
        """
        if default is None:
            return
        try:
            validate.spec(default)
        except validate.Invalid:
            return
        self._estimates.compare_with(codec.SPEC.value(default))

    def invalid(self, invalid: validate.Invalid) -> fast.SubmitResult:
        """The answer to an invalid item."""
        return fast.SubmitResult(outcome=_INVALID, field=invalid.field, detail=invalid.reason)

    def refused(self, refusal: Refused) -> fast.SubmitResult:
        """The answer to a request that was refused."""
        match refusal:
            case KeyConflict():
                return fast.SubmitResult(outcome=_KEY_CONFLICT)
            case BacklogFull(too_much=too_much):
                wait_s = self.retry_after_s(too_much.ahead)
                bound = int(too_much.bound)
                return fast.SubmitResult(outcome=_BACKLOG_FULL, retry_after_s=wait_s, bound=bound)
            case IdTaken():
                return fast.SubmitResult(outcome=_INVALID, field="generation_id", detail="is taken")
            case _:
                raise AssertionError("a request is refused for no other reason") from refusal

    def retry_after_s(self, ahead: int) -> int:
        """Seconds after which to retry a request that fits once work of charge `ahead` has finished: 1 to 120, with
        jitter, so that clients that were refused together do not return together.
        """
        wait_s = min(max(self._estimates.ends_in_s(ahead), 1.0), _LONGEST_RETRY_S / (1 + _JITTER))
        return min(_LONGEST_RETRY_S, math.ceil(wait_s * (1 + _JITTER * self._rng())))

    @contextmanager
    def spans(self) -> Iterator[list[Span] | None]:
        """A list for the spans of one batch, which are ended on exit; None while tracing is off."""
        if not tracing.enabled():
            yield None
            return
        spans: list[Span] = []
        try:
            yield spans
        finally:
            for span in spans:
                span.end()

    def order(self, item: fast.SubmitItem, spans: list[Span] | None) -> Order:
        """The order for one item."""
        salt = self._new_salt()
        spec = codec.SPEC.value(item.spec)
        request = c.Request(
            tenant=item.tenant,
            spec=spec,
            priority=item.priority,
            ttl_s=item.ttl_s,
            prompt_hmac=prompt_hmac(salt, item.prompts),
            trace=self._trace(item, spans),
            charge=self._estimates.charge(spec),
        )
        prompts = Prompts(prompt=item.prompts.prompt, negative_prompt=item.prompts.negative_prompt)
        row = PromptRow(generation_id=item.generation_id, salt=salt, prompts=prompts)
        idempotency = IdempotencyKey(item.idempotency_key, item.body_sha256) if item.idempotency_key else None
        return Order(item.generation_id, request, row, idempotency)

    def _trace(self, item: fast.SubmitItem, spans: list[Span] | None) -> Trace:
        given = codec.TRACE.value(item.trace)
        if spans is None:
            return given
        span = _tracer.start_span(
            "generation.requested",
            context=tracing.context_of(given),
            attributes={"darkroom.generation.id": item.generation_id, "gen_ai.request.model": item.spec.model},
        )
        spans.append(span)
        return tracing.trace_of(span)


def prompt_hmac(salt: bytes, prompts: fast.Prompts) -> bytes:
    """HMAC-SHA256(salt, prompt NUL negative_prompt): proves what was asked without holding it."""
    return hmac.digest(salt, f"{prompts.prompt}\0{prompts.negative_prompt}".encode(), "sha256")
