"""Keeps the record of images while they are on the GPU: states, waits, spans, and what explains a picture."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from opentelemetry.trace import Span

from worker import tracing
from worker.engines.contract import Engine, EngineFacts
from worker.gpu.slots import Decoded, Member
from worker.holding.types import Finished, Held, Origin, State
from worker.metrics import Metrics


@dataclass(slots=True)
class _Together:
    """Images admitted together: their batch span ends with the last of them."""

    span: Span
    left: int
    error: str = ""


class Waits:
    """When the GPU last ended doing something else than rendering for those who waited meanwhile."""

    def __init__(self) -> None:
        self.loading_until_s = -math.inf
        self.backpressure_until_s = -math.inf
        self.batch_until_s = -math.inf

    def reason(self, received_s: float) -> str:
        """Why an image received then and admitted now had to wait; empty when nothing was in its way."""
        if self.loading_until_s > received_s:
            return "loading"
        if self.backpressure_until_s > received_s:
            return "backpressure"
        return "batch_running" if self.batch_until_s > received_s else ""


class RenderRecord:
    """Called by the renderer, on the event loop."""

    def __init__(self, *, worker_id: str, jobs_queue: str, engine: Callable[[str], Engine], metrics: Metrics) -> None:
        self._worker_id = worker_id
        self._jobs_queue = jobs_queue
        self._engine = engine
        self._metrics = metrics
        self._together: dict[int, _Together] = {}

    def engine_of(self, held: Held) -> Engine:
        """The engine of the image's model."""
        return self._engine(held.job.render.model)

    def admitted(self, members: Sequence[Member], at_s: float, waits: Waits) -> None:
        """They have gone to the GPU together."""
        group = members[0].group
        self._metrics.batches.labels(engine=group.engine.facts.engine, model=members[0].held.job.render.model).inc()
        for member in members:
            held = member.held
            if held.state is State.STARTED:
                held.state = State.RUNNING
                held.wait_s = at_s - held.received_s
                held.wait_reason = waits.reason(held.received_s)
                held.span = tracing.process(held, self._jobs_queue, self._worker_id)
                self._metrics.wait_seconds.observe(held.wait_s)
        span = tracing.batch(replace(group, members=tuple(member.held for member in members)))
        together = _Together(span=span, left=len(members))
        for member in members:
            member.span = tracing.generate(member.held, span)
            self._together[id(member)] = together

    def left(self, member: Member, error: str = "") -> None:
        """It is not on the GPU any more."""
        together = self._together.pop(id(member), None)
        if together is None:  # never admitted
            return
        tracing.end(member.span, error)
        together.left -= 1
        together.error = together.error or error
        if not together.left:
            tracing.end(together.span, together.error)

    def finished(self, decoded: Decoded, facts: EngineFacts) -> Finished:
        """The picture with what explains it."""
        member = decoded.member
        assert decoded.picture is not None  # noqa: S101  (the caller has looked)
        member.held.gpu_s = member.gpu_s
        origin = Origin(
            facts=facts,
            width=decoded.picture.width,
            height=decoded.picture.height,
            scheduler=decoded.picture.scheduler,
            made=decoded.picture.made,
            batch_id=member.group.id,
            batch_members=(member.held.job.image, *member.mates.values()),
            batch_gpu_s=member.batch_gpu_s,
            decode_s=decoded.decode_s,
        )
        return Finished(held=member.held, origin=origin, picture=decoded.picture)
