"""Decodes finished images on the GPU thread, while the delivery pipeline has permits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.engines.contract import Done, EncodedPicture, Engine, Picture
from worker.engines.errors import BadOutput, NotNow, Refused
from worker.gpu.sessions.decode_queue import DecodeQueue, require_whole
from worker.gpu.sessions.events import Decoded, Dropped, TimeSpent
from worker.gpu.sessions.mailbox import Mailbox, ThreadContext
from worker.gpu.sessions.members import Member
from worker.holding.types import Failure
from worker.time_ledger import Cause

_FAILURES: Final[dict[type, Failure]] = {
    BadOutput: Failure.BAD_OUTPUT,
    Refused: Failure.REFUSED,
    NotNow: Failure.MODEL_AWAY,
}
"""What the engine says of one image, as replies name it."""


@dataclass(slots=True)
class InHand:
    """The GPU thread's current work: if the engine fails now, `members` are suspect and `cause` gets the seconds."""

    members: Sequence[Member] = ()
    cause: Cause = Cause.RENDERING
    began_s: float = 0.0

    def begin(self, cause: Cause, members: Sequence[Member], now_s: float) -> float:
        """The work begins. Returns the time."""
        self.members, self.cause, self.began_s = members, cause, now_s
        return now_s

    def end(self) -> None:
        """The work is done."""
        self.members = ()

    def spent(self, ended_s: float, *, size: int = 0) -> TimeSpent:
        """The work's seconds until now."""
        return TimeSpent(cause=self.cause, began_s=self.began_s, ended_s=ended_s, size=size)


class PictureDecoder:
    """`ahead`: the device is at work on the step launched last while it is asked for a picture."""

    def __init__(self, engine: Engine, mailbox: Mailbox, context: ThreadContext, in_hand: InHand) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._context = context
        self._in_hand = in_hand
        self.queue = DecodeQueue()
        self.ahead = False

    def decode_some(self, members: Sequence[Member], *, until_s: float | None) -> None:
        """Decode finished images while permits last. While members, or offered ones, wait for a step, images that the
        device still decodes beside its current step are left alone. With `until_s` at least one is decoded, and no
        further one begins once that many seconds have passed.
        """
        began_s = self._context.clock()
        staying = self.queue.under_way if members or self._mailbox.offered else 0
        while len(self.queue) > staying:
            if self.queue.first.held.unwanted:
                self._mailbox.post(Dropped(member=self.queue.take()[0]))
                continue
            if not self._context.permits.try_acquire():
                return
            self._decode(*self.queue.take(), members)
            if until_s is not None and self._context.clock() - began_s >= until_s:
                return

    def _decode(self, member: Member, done: Done, members: Sequence[Member]) -> None:
        # The device may still be at the others' step: then a failure in this call can be caused by any of them.
        beside = [each for each in members if each.running] if self.ahead else []
        began_s = self._in_hand.begin(Cause.DECODING, (member, *beside), self._context.clock())
        picture: Picture | EncodedPicture | None = None
        bad, failure = "", Failure.BAD_OUTPUT
        try:
            picture = self._engine.decode(done)
            require_whole(picture, member.held.job.render)
        except (BadOutput, Refused, NotNow) as error:
            picture, bad, failure = None, str(error), _FAILURES[type(error)]
        except BaseException:
            self._context.permits.release()
            raise
        ended_s = self._context.clock()
        self._in_hand.end()
        post = self._mailbox.post
        post(self._in_hand.spent(ended_s))
        self._context.record("decode", member.id, began_s, ended_s)
        post(Decoded(member=member, picture=picture, bad=bad, failure=failure, decode_s=ended_s - began_s))
