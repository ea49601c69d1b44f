"""The order of things between core, queues and workers: rules whose breach a recheck would hide, at the cost of time.

Told by queues and workers of what has really happened, at the moment it did.
"""

from dataclasses import dataclass, field

from core.domain import events as e
from core.domain.decide import convicted
from core.domain.state import Generation, Image, Phase
from schema import fast, messages
from tests.simulation.world import World

Ref = tuple[str, int]


@dataclass
class Rules:
    """`states` is the checker's fold of the log; workers are named by their life."""

    world: World
    states: dict[str, Generation]
    sent: set[tuple[str, int, int]] = field(default_factory=set)
    started: set[tuple[str, Ref]] = field(default_factory=set)
    answered: set[tuple[str, Ref, int]] = field(default_factory=set)
    """By the dispatch that a reply speaks of; 0: a picture, which answers for all."""
    unwanted: set[tuple[str, Ref]] = field(default_factory=set)
    _known: dict[bytes, "messages.QueueMessage | None"] = field(default_factory=dict)

    def accepted(self, body: bytes, sender: str) -> None:
        """A queue has accepted a message."""
        message = self.read(body)
        if message is None:
            return
        ref = (message.image.generation_id, message.image.index)
        if isinstance(message, fast.ImageJob):
            self.sent.add((*ref, message.dispatch))
        elif isinstance(message, fast.ImageStarted):
            self.started.add((sender, ref))
        else:
            self.answered.add((sender, ref, 0 if isinstance(message, fast.ImageRendered) else message.dispatch))

    def deleted(self, body: bytes, reader: str) -> None:
        """Somebody has deleted a message."""
        message = self.read(body)
        if message is None:
            return
        ref = (message.image.generation_id, message.image.index)
        if isinstance(message, fast.ImageJob) and reader.startswith("core."):
            self._letter_deleted(message, ref)
        elif isinstance(message, fast.ImageJob):
            replied = any((who, what) == (reader, ref) for who, what, _ in self.answered)
            if not replied and (reader, ref) not in self.unwanted:
                self.world.violate(f"{reader} deleted {ref} before its reply was accepted")
            elif not {(reader, ref, 0), (reader, ref, message.dispatch)} & self.answered:
                self._dropped(reader, message, ref)
        elif isinstance(message, fast.ImageRendered):
            self._rendered_deleted(message, ref)

    def _dropped(self, reader: str, job: fast.ImageJob, ref: Ref) -> None:
        """A worker has thrown away what core has just sent: nobody has it now, and core waits for its recheck."""
        state = self.states.get(ref[0])
        image = state.images[ref[1]] if state is not None and state.open else None
        if image is None or image.decided or convicted(image):
            return
        if job.dispatch > image.dispatches or _waits(image, job.dispatch):
            self.world.violate(f"{reader} dropped dispatch {job.dispatch} of {ref}, which nobody else has")

    def _letter_deleted(self, job: fast.ImageJob, ref: Ref) -> None:
        state = self.states.get(ref[0])
        if state is not None and state.open and _waits(state.images[ref[1]], job.dispatch):
            self.world.violate(f"core deleted the dead letter about {ref} before it was recorded")

    def out(self, body: bytes) -> bool:
        """Whether it is a job, and core has recorded that it was sent."""
        message = self.read(body)
        state = self.states.get(message.image.generation_id) if message else None
        if state is None or not isinstance(message, fast.ImageJob):
            return False
        return state.images[message.image.index].dispatches >= message.dispatch

    def _rendered_deleted(self, message: fast.ImageRendered, ref: Ref) -> None:
        state = self.states.get(ref[0])
        if state is None or not state.open:
            return
        image = state.images[ref[1]]
        # A decision that has been revoked since may have made it one that came too late.
        if not image.decided and not image.revoked_attempts and message.attempt_id not in image.ended_attempts:
            self.world.violate(f"core deleted the reply of {message.attempt_id} for {ref} before it was recorded")

    def admitted(self, worker: str, ref: Ref) -> None:
        """A worker's GPU begins."""
        if (worker, ref) not in self.started:
            self.world.violate(f"{worker} renders {ref} before its start was accepted")

    def recorded(self, generation_id: str, event: e.Event) -> None:
        """An event is durable."""
        if isinstance(event, e.ImageDispatched) and (generation_id, event.index, event.dispatch) not in self.sent:
            self.world.violate(f"{generation_id}/{event.index} is dispatched, and the queue never took it")
        if isinstance(event, e.ImageAttemptFailed) and event.failure is e.Failure.DEAD_LETTERED:
            self.world.faults["dead_letter_recorded"] += 1
            if not _waits(self.states[generation_id].images[event.index], event.dispatch):
                self.world.violate(f"{generation_id}/{event.index} is a dead letter, and did not wait on the queue")

    def read(self, body: bytes) -> "messages.QueueMessage | None":
        """The message; None for what is none."""
        if body not in self._known:
            try:
                self._known[body] = messages.decode(body)
            except messages.BadMessage:
                self._known[body] = None
        return self._known[body]

    def attempt_in(self, body: bytes) -> str:
        """The attempt that a message speaks of; empty when it speaks of none."""
        return str(getattr(self.read(body), "attempt_id", ""))


def _waits(image: Image, dispatch: int) -> bool:
    return image.phase is Phase.DISPATCHED and image.dispatches == dispatch
