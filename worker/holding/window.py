"""The jobs that the worker holds, each from its receipt to the deletion of its message. Event loop's thread only.

The receiver offers messages, the GPU loop moves jobs forward, the delivery settles and releases them; their changes
wake the tasks that await `changed`. A settled job is held only so that its message stays hidden until it is deleted.

**Duplicates.** A message for an image that is held already is *attached*: its receipt is kept, its visibility is
extended, and it is deleted together with the first one. So no copy is deleted before a reply is accepted, and none
needs to be sent again. A newer dispatch replaces one that still waits; one that arrives later is given back, unless a
picture has answered both. Solo is kept once any message of the image has it, since the worker may have derived it from
the number of deliveries, which core does not know. A message of a dispatch that this worker has settled (its reply was
accepted) is deleted at once.
"""

import asyncio
from collections import OrderedDict
from dataclasses import replace
from enum import Enum

from worker.engines.contract import BatchKey
from worker.holding.types import MAX_RECEIPTS, Held, Job, State

REMEMBERED = 4_096
"""Settled (image, dispatch) pairs that are remembered to recognise late copies."""


class Offer(Enum):
    """What became of an offered message."""

    HELD = "held"
    ATTACHED = "attached"
    """To a job that is held already."""
    SETTLED = "settled"
    """Its dispatch was answered before: the message may be deleted."""
    SURPLUS = "surplus"
    """Not held, as one message too many of its image: it is redelivered after its visibility timeout."""


class Window:
    """Bounded by the receiver, which asks `waiting_count` and `behind_count` before it receives."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._undeleted: dict[int, Held] = {}
        self._settled: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._order = 0
        self._change = asyncio.Event()

    async def changed(self) -> None:
        """Returns at the next change. Check the condition first, then await this with no other await in between:
        a change in between would be missed.
        """
        await self._change.wait()

    def touch(self) -> None:
        """Wake all that wait for a change."""
        self._change.set()
        self._change = asyncio.Event()

    def offer(
        self,
        job: Job,
        key: BatchKey,
        *,
        message_id: str,
        receipt: str,
        now_s: float,
        existed_s: float | None = None,
    ) -> Offer:
        """Hold or attach the message, or return why neither is done. `existed_s`: see `Held`; `now_s` if None."""
        if (job.render.id, job.dispatch) in self._settled:
            return Offer.SETTLED
        held = self._held.get(job.render.id)
        if held is not None:
            return self._attach(held, job, key, message_id, receipt)
        self._hold(job, key, message_id=message_id, receipt=receipt, now_s=now_s, existed_s=existed_s)
        return Offer.HELD

    def _hold(
        self, job: Job, key: BatchKey, *, message_id: str, receipt: str, now_s: float, existed_s: float | None
    ) -> None:
        self._order += 1
        held = Held(
            job=job,
            key=key,
            receipts={message_id: receipt},
            received_s=now_s,
            existed_s=now_s if existed_s is None else existed_s,
            order=self._order,
        )
        self._held[held.id] = held
        self.touch()

    def _attach(self, held: Held, job: Job, key: BatchKey, message_id: str, receipt: str) -> Offer:
        if message_id not in held.receipts and len(held.receipts) >= MAX_RECEIPTS:
            return Offer.SURPLUS
        held.receipts[message_id] = receipt
        newer = job.dispatch > held.job.dispatch
        if newer and held.state is not State.WAITING:
            held.newer.add(message_id)
        if held.state is State.WAITING:
            newest, held.key = (job, key) if newer else (held.job, held.key)
            solo = job.solo or held.job.solo
            if newest is not held.job or solo != newest.solo:
                held.job = replace(newest, solo=solo)
                self.touch()
        return Offer.ATTACHED

    def get(self, job_id: str) -> Held | None:
        """The job of this id that is held and not settled."""
        return self._held.get(job_id)

    def held(self) -> list[Held]:
        """All in order of receipt, the settled ones last, so that heartbeats extend unfinished jobs first."""
        return [*self._held.values(), *self._undeleted.values()]

    def waiting(self) -> list[Held]:
        """Jobs that are not announced yet."""
        return [held for held in self._held.values() if held.state is State.WAITING]

    def waiting_count(self) -> int:
        """How many jobs are not announced yet."""
        return sum(held.state is State.WAITING for held in self._held.values())

    def busy(self) -> list[Held]:
        """Jobs that are announced and not settled."""
        return [held for held in self._held.values() if held.state is not State.WAITING]

    def upcoming(self) -> list[Held]:
        """Jobs that have yet to reach the GPU, announced or not."""
        return [held for held in self._held.values() if held.state in (State.WAITING, State.STARTED)]

    def behind_count(self) -> int:
        """How many jobs have left the GPU, or never need it: those to be uploaded, answered or deleted."""
        return len(self._undeleted) + sum(held.state is State.FINISHING for held in self._held.values())

    def move(self, held: Held, state: State) -> None:
        """Sets the job's state."""
        held.state = state
        self.touch()

    def begin_attempt(self, held: Held, attempt_id: str, state: State) -> None:
        """From now on replies name this attempt."""
        held.attempt_id = attempt_id
        self.move(held, state)

    def rekey(self, held: Held, key: BatchKey) -> None:
        """Set the batch key again: a loaded model knows better which images can share a batch."""
        held.key = key

    def mark_unwanted(self, held: Held) -> None:
        """The image is cancelled or expired. The GPU thread reads the mark while it renders; it is never removed."""
        held.unwanted = True

    def release(self, held: Held) -> None:
        """Stop holding the job: its message is deleted, given back, or may be held by another worker."""
        self._undeleted.pop(held.order, None)
        if self._held.get(held.id) is held:
            del self._held[held.id]
        self.move(held, State.GONE)

    def settle(self, held: Held, *, picture: bool) -> list[str]:
        """Its reply was accepted: late copies are recognised, and a newer dispatch is a job of its own from now on.

        A `picture` answers every dispatch; a failure or a drop answers only its own. The receipts of newer dispatches
        are then returned, to be given back to the queue: if they were deleted, core would wait for them until their
        recheck.
        """
        if self._held.get(held.id) is not held:
            return []  # settled already
        newer = set() if picture else held.newer & held.receipts.keys()
        spared = [held.receipts.pop(message_id) for message_id in sorted(newer)]
        self._settled[held.id, held.job.dispatch] = None
        if len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)
        # By order, not by id: a newer dispatch of the same image may be held meanwhile.
        self._undeleted[held.order] = self._held.pop(held.id)
        self.move(held, State.SETTLED)
        return spared

    def receipts(self) -> list[tuple[Held, str, str]]:
        """(job, message id, receipt) of everything whose visibility must be extended."""
        return [(held, *pair) for held in self.held() for pair in held.receipts.items()]

    def lost(self, held: Held, message_id: str, receipt: str) -> None:
        """The receipt is no longer valid, and another worker may hold the message. A waiting job is released with its
        last receipt; one in progress goes on.
        """
        if held.receipts.get(message_id) == receipt:
            del held.receipts[message_id]
        if not held.receipts and held.state is State.WAITING:
            self.release(held)
