"""Keeps the record of images on the GPU: their states, waits and spans, and the origin of each picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from opentelemetry.trace import Span

from worker import tracing
from worker.context import Context
from worker.engines.contract import EngineFacts
from worker.gpu.gpu_thread import Waits
from worker.gpu.sessions.events import Decoded
from worker.gpu.sessions.members import Member
from worker.holding.types import Finished, Origin, State
from worker.holding.window import Window


@dataclass(slots=True)
class _Together:
    """Images admitted together: their batch span ends with the last of them."""

    span: Span
    left: int
    error: str = ""


class RenderRecord:
    """Called by the renderer, on the event loop."""

    def __init__(self, context: Context, window: Window, *, jobs_queue: str) -> None:
        self._context = context
        self._window = window
        self._jobs_queue = jobs_queue
        self._together: dict[int, _Together] = {}

    def admitted(self, members: Sequence[Member], at_s: float, waits: Waits) -> None:
        """These images take their first step together."""
        group = members[0].group
        self._context.metrics.batches.labels(
            engine=group.engine.facts.engine, model=members[0].held.job.render.model
        ).inc()
        for member in members:
            held = member.held
            if held.state is State.STARTED:  # otherwise it runs again after a crash: its wait and span are kept
                self._window.move(held, State.RUNNING)
                held.wait_s = at_s - held.received_s
                held.wait_reason = waits.reason(held.received_s)
                held.span = tracing.process(held, self._jobs_queue, self._context.worker_id)
                self._context.metrics.wait_seconds.observe(held.wait_s)
        span = tracing.batch(replace(group, members=tuple(member.held for member in members)))
        together = _Together(span=span, left=len(members))
        for member in members:
            member.span = tracing.generate(member.held, span)
            self._together[id(member)] = together

    def progressed(self, steps: Mapping[str, int]) -> None:
        """Note the steps done so far, by job id."""
        for job_id, step in steps.items():
            held = self._window.get(job_id)
            if held is not None:
                held.step = step

    def left(self, member: Member, error: str = "") -> None:
        """The image has left the GPU: end its span, and the batch's span with the last of its images."""
        together = self._together.pop(id(member), None)
        if together is None:  # never admitted
            return
        tracing.end(member.span, error)
        together.left -= 1
        together.error = together.error or error
        if not together.left:
            tracing.end(together.span, together.error)

    def finished(self, decoded: Decoded, facts: EngineFacts) -> Finished:
        """The picture with its origin."""
        member = decoded.member
        assert decoded.picture is not None  # noqa: S101  (the caller has checked)
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
