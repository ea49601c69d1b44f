"""The dead-letter queue for operators: list, send back to the origin queue, or discard.

A running core consumes the jobs that it can read (`dead_letter_consumer`). Sending back is for replies, and for
messages that an older release did not understand; receiving them twice is harmless. Prompts are never shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from core.ports import DeadLetterQueue, JobQueue, Outgoing, ReceivedDeadLetter
from schema import fast, messages

HIDDEN_S: Final = 120
"""How long dead letters are hidden from other readers while an operator looks at them."""
_WAIT_S: Final = 1
_AT_ONCE: Final = 10
Origin = Literal["jobs", "replies", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """`origin` is the queue to which the message was first sent; empty when it cannot be decoded, and `about` says why.
    `about` never holds a prompt.
    """

    received: ReceivedDeadLetter
    origin: Origin
    about: str
    message: messages.QueueMessage | None = field(default=None, repr=False)
    """Holds the prompt, if it is a job."""


def read(received: ReceivedDeadLetter) -> DeadLetter:
    """Decode a received dead letter. Never raises: one that cannot be decoded has no origin and no message."""
    try:
        message = messages.decode(received.body)
    except messages.BadMessage as error:
        return DeadLetter(received=received, origin="", about=f"unreadable: {error}")
    image = f"{message.image.generation_id}/{message.image.index} dispatch {message.dispatch}"
    if isinstance(message, fast.ImageJob):
        return DeadLetter(received=received, origin="jobs", about=f"job {image}", message=message)
    about = f"{type(message).__name__} {image} of {message.worker_id}"
    return DeadLetter(received=received, origin="replies", about=about, message=message)


class DeadLetters:
    """One look at the queue; call `release` when done. Each method raises Retryable or Permanent."""

    def __init__(self, dead: DeadLetterQueue, origins: Mapping[Origin, JobQueue], *, hidden_s: int = HIDDEN_S) -> None:
        self._dead = dead
        self._origins = origins
        self._hidden_s = hidden_s
        self._held: dict[str, str] = {}

    async def look(self, most: int) -> list[DeadLetter]:
        """Up to `most` dead letters, hidden until `release` or for `hidden_s`."""
        found: list[DeadLetter] = []
        while len(found) < most:
            received = await self._dead.receive(
                limit=min(_AT_ONCE, most - len(found)), wait_s=_WAIT_S, visibility_s=self._hidden_s
            )
            new = [each for each in received if each.message_id not in self._held]
            # A long look may outlast `hidden_s`: a message received again is deleted by its newest receipt.
            self._held |= {each.message_id: each.receipt for each in received}
            found += map(read, new)
            if not new:
                break
        return found

    async def send_back(self, letters: Sequence[DeadLetter]) -> int:
        """Send letters back to their origin queues; returns how many were accepted. Only those are deleted here."""
        count = 0
        for origin, queue in self._origins.items():
            mine = [each for each in letters if each.origin == origin]
            for at in range(0, len(mine), _AT_ONCE):
                some = mine[at : at + _AT_ONCE]
                taken = await queue.send(
                    [Outgoing(body=each.received.body, attributes=each.received.attributes) for each in some]
                )
                accepted = [each for each, yes in zip(some, taken, strict=True) if yes]
                await self.discard(accepted)
                count += len(accepted)
        return count

    async def discard(self, letters: Sequence[DeadLetter]) -> int:
        """Delete letters for good; returns how many were deleted."""
        receipts = [self._held[each.received.message_id] for each in letters]
        gone = await self._dead.delete(receipts) if receipts else []
        for letter, done in zip(letters, gone, strict=True):
            if done:
                del self._held[letter.received.message_id]
        return sum(gone)

    async def release(self) -> None:
        """Make the remaining letters visible to other readers again."""
        if self._held:
            await self._dead.extend(list(self._held.values()), 0)
