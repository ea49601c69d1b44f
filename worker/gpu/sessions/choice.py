"""Which of a session's members take the next step, and how long that choice is valid. On the GPU thread; no I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.batching.policy import Seat, next_step
from worker.gpu.sessions.mailbox import WaitingSeats
from worker.gpu.sessions.members import Member

LOOK_AGAIN_STEPS = 16
"""Steps after which a choice is made again although no image came or went: waiting makes images more urgent."""


@dataclass(slots=True, kw_only=True)
class Choice:
    """Valid while no image comes or goes: each step brings the chosen nearer to their end, so they stay first."""

    chosen: Sequence[Member]
    members: Sequence[Member]
    waiting: WaitingSeats
    limit: int
    steps_left: int

    def stands(self, members: Sequence[Member], waiting: WaitingSeats, limit: int) -> bool:
        """Whether the choice is still valid. `waiting` is replaced at each change, so identity is enough."""
        return (
            self.steps_left > 0 and self.limit == limit and self.waiting is waiting and self.members == tuple(members)
        )


class StepChooser:
    """`joins`: the policy chooses the members of every step; otherwise a batch is formed when none runs, and runs on.
    `parks`: running members may be parked.
    """

    def __init__(self, *, joins: bool, parks: bool) -> None:
        self._joins = joins
        self._parks = parks
        self._choice: Choice | None = None

    def choose(
        self,
        members: Sequence[Member],
        waiting: WaitingSeats,
        *,
        limit: int,
        clock: Callable[[], float],
        step_s: Callable[[int], float],
    ) -> Sequence[Member]:
        """The members that take the next step. `members` must not be empty. `clock` is read only when the last choice
        is no longer valid.
        """
        if not self._joins:
            return [each for each in members if each.running] or members[:limit]
        choice = self._choice
        if choice is None or not choice.stands(members, waiting, limit):
            choice = self._choice = _chosen(
                members, waiting, now_s=clock(), limit=limit, step_s=step_s, park=self._parks
            )
        choice.steps_left -= 1
        return choice.chosen


def _chosen(
    members: Sequence[Member],
    waiting: WaitingSeats,
    *,
    now_s: float,
    limit: int,
    step_s: Callable[[int], float],
    park: bool,
) -> Choice:
    """Ask the policy with all waiting images counted. Seats that it gives to unannounced images go to members instead,
    running ones first.
    """
    seats: list[Seat[Member | None]] = [member.seat(now_s) for member in members]
    seats += waiting
    best = next_step(seats, step_s=step_s, limit=limit, join=True, park=park)
    chosen = [member for member in best if member is not None]
    if len(chosen) < len(best):
        others = sorted((each for each in members if each not in chosen), key=lambda each: not each.running)
        chosen += others[: len(best) - len(chosen)]
    return Choice(
        chosen=chosen,
        members=tuple(members),
        waiting=waiting,
        limit=limit,
        steps_left=min(LOOK_AGAIN_STEPS, *(each.remaining for each in chosen)),
    )
