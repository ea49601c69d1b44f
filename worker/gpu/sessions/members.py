"""An announced image in a session. Written on the GPU thread, but for `span`; see `mailbox` for who may read it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from opentelemetry.trace import INVALID_SPAN, Span

from worker.batching.policy import Seat
from worker.holding.types import Batch, Held, ImageId

MAX_MATES = 64
"""At most this many other images are recorded for a member as having shared a step with it."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """`group`: the images announced with it. `remaining`: steps left. `gpu_s`: its share of the GPU's time in seconds,
    `batch_gpu_s` that of all steps it took part in.
    """

    held: Held
    group: Batch
    remaining: int
    running: bool = False
    parked: bool = False
    gpu_s: float = 0.0
    batch_gpu_s: float = 0.0
    mates: dict[str, ImageId] = field(default_factory=dict)
    span: Span = INVALID_SPAN
    """Written by the render record, on the event loop."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.held.id

    def seat(self, now_s: float) -> "Seat[Member | None]":
        """As the policy sees it."""
        return Seat(
            item=self,
            remaining_steps=self.remaining,
            priority=self.held.job.priority,
            waited_s=now_s - self.held.received_s,
            order=self.held.order,
            running=self.running,
            parked=self.parked,
        )


def members_of(group: Batch) -> list[Member]:
    """All images of a group, before their first step."""
    return [Member(held=each, group=group, remaining=each.job.render.num_inference_steps) for each in group.members]


def note_mates(chosen: Sequence[Member]) -> None:
    """Record in each member the others that take the step with it: its reply lists them as its batch."""
    for member in chosen:
        for mate in chosen:
            if mate is not member and len(member.mates) < MAX_MATES:
                member.mates[mate.id] = mate.held.job.image
