"""Which session runs and which batch follows it, as the event loop knows it, with estimates of when."""

import math
from dataclasses import dataclass

from worker.engines.contract import BatchKey, RenderJob
from worker.gpu.sessions.members import Member
from worker.gpu.sessions.session import Session
from worker.holding.types import Batch


@dataclass(slots=True)
class GpuState:
    """The running session, and the batch announced to follow it. The GPU loop writes this; `lookahead` and the
    worker's handler of a hang read it.
    """

    session: Session | None = None
    coming: Batch | None = None


def steps_by_then(session: Session, lead_s: float) -> int:
    """Steps that the session makes in `lead_s` seconds at its current batch size, rounded up."""
    running = sum(member.running for member in session.mailbox.roster)
    return math.ceil(lead_s / max(1e-6, session.mailbox.step_seconds(max(1, running))))


def staying(session: Session, lead_s: float) -> list[tuple[Member, int]]:
    """The members that will not have finished in `lead_s` seconds, each with the steps it will still need then."""
    steps = steps_by_then(session, lead_s)
    left = [(member, member.remaining - steps * member.running) for member in session.mailbox.roster]
    return [(member, remaining) for member, remaining in left if remaining > 0]


def left_s(session: Session, now_s: float, *, known: bool) -> float | None:
    """Estimated seconds until the session is empty if no image joins. None when there is nothing to estimate from, or
    while a member is parked or has not begun.

    `known`: step times of this batch key have been learned. Then an engine with `join_midway` needs the remaining steps
    of its longest member, and any other, which is one call, the whole batch's time less the time elapsed. Without
    learned times the reported progress is extrapolated.
    """
    roster = session.mailbox.roster
    if not roster or session.mailbox.offered or any(not member.running for member in roster):
        return None
    elapsed_s = now_s - session.began_s
    steps = max(_steps(member.held.job.render) for member in roster)
    if known and not session.engine.capabilities.join_midway:
        return steps * session.mailbox.step_seconds(len(roster)) - elapsed_s
    if known:
        return max(member.remaining for member in roster) * session.mailbox.step_seconds(len(roster))
    done = max(member.held.step for member in roster)
    return elapsed_s * (steps - done) / done if done else None


def quantum_s(session: Session, key: BatchKey) -> float:
    """Seconds for which images may join a session while another batch key waits: the time of one whole batch."""
    members = [member for member in session.mailbox.roster if member.held.key == key]
    steps = max((_steps(member.held.job.render) for member in members), default=1)
    return steps * session.mailbox.step_seconds(max(1, len(members)))


def _steps(job: RenderJob) -> int:
    return job.num_inference_steps
