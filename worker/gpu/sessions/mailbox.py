"""All that the event loop and the GPU thread share of one session, and who may touch what.

| what | written by | read by |
|--|--|--|
| `Mailbox.waiting`, `Mailbox.step_seconds` | event loop | GPU thread |
| `Mailbox.roster` | GPU thread | event loop |
| offered members | added by the event loop, taken by either | both |
| events, progress | posted by the GPU thread | event loop, in order |
| `Member`, but for its span | GPU thread | event loop, as an estimate (1) |
| `Held` | event loop | GPU thread (2) |
| `ThreadContext` | neither | both: each of its parts may be called on any thread |
| everything else of `Stepper` | GPU thread | GPU thread |
| everything else of `Session` | event loop | event loop |

(1) Exactly, once `Dropped`, `Decoded` or the turn's `Crash` has named the member. (2) `job`, `received_s` and `order`,
which are set once, and `unwanted`, which never returns to False.

There is no lock: each value has one writer, which replaces it as a whole and never mutates it (`step_seconds` reads a
curve that `step_times` makes safe to read from another thread), and adding to a deque and taking from it are atomic. A
reader sees the old value or the new one. Two values read one after the other may belong to different steps; a decision
based on them is reviewed at the next step.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.batching.policy import Seat
from worker.engines.contract import BatchKey, RenderJob, Report
from worker.gpu.sessions.events import Event
from worker.gpu.sessions.members import Member
from worker.output.stages import DeliveryPermits
from worker.ports import Recorder

WaitingSeats = Sequence[Seat[Member | None]]
"""Images of a session's key that are not announced yet: the policy counts them, and cannot seat them."""


class Mailbox:
    """One per session. `post` and `report` hand over to the event loop and return at once; `step_seconds` gives the
    seconds of a step by batch size.
    """

    def __init__(self, *, post: Callable[[Event], None], report: Report, step_seconds: Callable[[int], float]) -> None:
        self.post = post
        self.report = report
        self.step_seconds = step_seconds
        self.waiting: WaitingSeats = ()
        self.roster: tuple[Member, ...] = ()
        self._offered: deque[Member] = deque()

    @property
    def offered(self) -> int:
        """How many are announced and not yet taken by the thread."""
        return len(self._offered)

    def offer(self, members: Sequence[Member]) -> None:
        """They may join at the next step."""
        self._offered.extend(members)

    def take_offered(self) -> list[Member]:
        """Remove and return the members offered: the GPU thread lets them in, the event loop turns them away."""
        taken = []
        while self._offered:
            try:
                taken.append(self._offered.popleft())
            except IndexError:  # the other thread has taken the last one
                break
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadContext:
    """What the GPU thread uses beside the engine. `limit` is how many images may share a batch with a job."""

    clock: Callable[[], float]
    permits: DeliveryPermits
    limit: Callable[[RenderJob, BatchKey], int]
    record: Recorder
