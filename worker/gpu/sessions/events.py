"""What the GPU thread reports to the event loop, in the order in which it happened."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.engines.contract import EncodedPicture, Picture, StepTime
from worker.gpu.sessions.members import Member
from worker.holding.types import Failure
from worker.time_ledger import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """These images take their first step now."""

    members: Sequence[Member]
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpent:
    """The thread did this, for `size` images. `timed` is what a step took, of this size or an earlier one, None where
    there is nothing to learn; `fits` is how many images fit into memory, as measured by the engine.
    """

    cause: Cause
    began_s: float
    ended_s: float
    size: int = 0
    timed: StepTime | None = None
    fits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """An image that is no longer wanted has left the session."""

    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An image was decoded; its delivery permit is already acquired. Without a `picture`, `bad` says what is wrong and
    `failure` is what the reply reports.
    """

    member: Member
    picture: Picture | EncodedPicture | None
    bad: str
    failure: Failure = Failure.BAD_OUTPUT
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFailed:
    """The engine has failed and is being made ready again, which may take long."""


Event = Admitted | TimeSpent | Dropped | Decoded | EngineFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """The engine failed: `suspects` were at work, `innocents` were in the session beside them. `together`: how many ran
    or were at work. Holds no traceback, which would keep tensors alive.
    """

    suspects: Sequence[Member]
    innocents: Sequence[Member]
    together: int
    failure: Failure
    detail: str
    died: bool = False
    """The engine's process has ended."""
    out: str = ""
    """Why the model cannot be used for now: no image is tried again here."""
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnd:
    """Why a turn ended: no permit is left (`full`), the engine failed (`crash`), or no image is left (neither)."""

    at_s: float
    full: bool = False
    crash: Crash | None = None
