"""Who of a session's members takes the next step, and how long that choice stands. The GPU thread asks; no I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.batching.policy import Seat, next_step
from worker.gpu.slots import Member

LOOK_AGAIN_STEPS = 16
"""Steps after which a choice is made anew although nobody came or went: waiting makes images more urgent."""
Behind = Sequence[Seat[Member | None]]
"""All who wait for the same and are not announced yet."""


@dataclass(slots=True, kw_only=True)
class Choice:
    """Stands while nobody comes or goes: with each step those who were nearest to their end come nearer to it."""

    chosen: Sequence[Member]
    members: Sequence[Member]
    behind: Behind
    limit: int
    steps_left: int

    def stands(self, members: Sequence[Member], behind: Behind, limit: int) -> bool:
        """Whether it may be used once more."""
        return self.steps_left > 0 and self.limit == limit and self.behind is behind and self.members == tuple(members)


def choose(
    members: Sequence[Member],
    behind: Behind,
    *,
    now_s: float,
    limit: int,
    step_s: Callable[[int], float],
    park: bool,
) -> Choice:
    """As the policy says with all who wait in view. Places of those who are not here yet go to those who are."""
    seats: list[Seat[Member | None]] = [member.seat(now_s) for member in members]
    seats += behind
    best = next_step(seats, step_s=step_s, limit=limit, join=True, park=park)
    chosen = [member for member in best if member is not None]
    if len(chosen) < len(best):
        others = sorted((each for each in members if each not in chosen), key=lambda each: not each.running)
        chosen += others[: len(best) - len(chosen)]
    return Choice(
        chosen=chosen,
        members=tuple(members),
        behind=behind,
        limit=limit,
        steps_left=min(LOOK_AGAIN_STEPS, *(each.remaining for each in chosen)),
    )
