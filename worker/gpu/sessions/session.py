"""A stretch of work on images of one batch key, as the event loop holds it. `stepper` is its part on the GPU thread,
`mailbox` what the two share.
"""

from collections.abc import Sequence

from worker.engines.contract import BatchKey, Engine
from worker.gpu.sessions.events import TurnEnd
from worker.gpu.sessions.mailbox import Mailbox, ThreadContext
from worker.gpu.sessions.members import Member
from worker.gpu.sessions.stepper import Stepper


class Session:
    """`open`: other images may join. `joins_midway`: they may join and be parked at every step, if the engine can."""

    def __init__(
        self, engine: Engine, key: BatchKey, mailbox: Mailbox, context: ThreadContext, *, joins_midway: bool
    ) -> None:
        self.engine = engine
        self.key = key
        self.mailbox = mailbox
        self.joins_midway = joins_midway
        self.open = joins_midway and engine.capabilities.join_midway
        self.began_s = context.clock()
        self._stepper = Stepper(engine, key, mailbox, context, joins_midway=joins_midway)

    def offer(self, members: Sequence[Member]) -> None:
        """They join at the next step."""
        self.mailbox.offer(members)

    def close(self) -> None:
        """No image joins any more."""
        self.open = False

    def turn(self) -> TurnEnd:
        """Run on the GPU thread until no image is left, no permit is free, or the engine fails. Raises EngineLost."""
        return self._stepper.turn()
