"""An image on the GPU thread, and the words in which that thread and the event loop speak of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry.trace import INVALID_SPAN, Span

from worker.batching.policy import Seat
from worker.engines.contract import BatchKey, EncodedPicture, Picture, RenderJob, Report, StepTime
from worker.holding.types import Batch, Failure, Held, ImageId
from worker.time_ledger import Cause

MAX_MATES = 64
"""Images that an image remembers to have shared a step with."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """An announced image. The GPU thread alone writes it while its turn lasts; `group` was announced together."""

    held: Held
    group: Batch
    remaining: int
    running: bool = False
    parked: bool = False
    gpu_s: float = 0.0
    batch_gpu_s: float = 0.0
    mates: dict[str, ImageId] = field(default_factory=dict)
    span: Span = INVALID_SPAN

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
    """Everybody of a group, at the first step."""
    return [Member(held=each, group=group, remaining=each.job.render.num_inference_steps) for each in group.members]


def acquaint(chosen: Sequence[Member]) -> None:
    """Everybody remembers with whom it shares a step."""
    for member in chosen:
        for mate in chosen:
            if mate is not member and len(member.mates) < MAX_MATES:
                member.mates[mate.id] = mate.held.job.image


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """These go to the GPU now."""

    members: Sequence[Member]
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The thread did this, for `size` images. `timed` is what a step took, of this size or an earlier one, None where
    there is nothing to learn; `fits` is what the engine said of its memory.
    """

    cause: Cause
    began_s: float
    ended_s: float
    size: int = 0
    timed: StepTime | None = None
    fits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Nobody wanted it any more."""

    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A picture, or None, what is wrong with it, and what that is called. Its permit is acquired already."""

    member: Member
    picture: Picture | EncodedPicture | None
    bad: str
    failure: Failure = Failure.BAD_OUTPUT
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Broke:
    """The engine failed and is being made ready again, which may take long."""


Event = Admitted | Spent | Left | Decoded | Broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """What the engine was at when it failed; `together` were in its memory. Holds no traceback: that would hold
    tensors.
    """

    suspects: Sequence[Member]
    innocents: Sequence[Member]
    together: int
    failure: Failure
    detail: str
    died: bool = False
    out: str = ""
    """Why the model cannot be used for now: nothing begins anew."""
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why a turn ended; neither `full` nor `crash`: nobody is left."""

    at_s: float
    full: bool = False
    crash: Crash | None = None


class Permits(Protocol):
    """How many more pictures the delivery pipeline takes."""

    def try_acquire(self) -> bool:
        """Takes one permit; False when there is none. Any thread."""

    def release(self) -> None:
        """Puts an unused permit back. Any thread."""

    @property
    def available(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a session has around it. `post` and `report` hand over to the event loop; both return at once."""

    clock: Callable[[], float]
    post: Callable[[Event], None]
    report: Report
    permits: Permits
    limit: Callable[[RenderJob, BatchKey], int]
    record: Callable[[str, str, float, float], None]
