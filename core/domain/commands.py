"""What somebody wants to happen to one generation. `decide` answers with events, or refuses."""

from dataclasses import dataclass
from enum import Enum

from core.domain.events import Cause, ImageAttemptFailed, ImageRendered, Spec, Trace
from core.domain.shares import ONE


class Verdict(Enum):
    """What a failed attempt means for its image, as far as only a running core knows."""

    COUNT = "count"
    """By the rules of its failure."""
    ELSEWHERE = "elsewhere"
    """Nothing: this worker could not use the model, and another may."""
    FINAL = "final"
    """No attempt elsewhere would end otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Accept a new generation. `charge`: of each image, in millionths of one of the default request (`shares`)."""

    tenant: str
    spec: Spec
    priority: int
    ttl_s: int
    prompt_hmac: bytes
    trace: Trace
    charge: int = ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Record that the image was put on the jobs queue under this number; again after `recheck_after_ms`."""

    index: int
    dispatch: int
    recheck_after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Fail the image if it may not be dispatched again: its third solo start brought no result."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStarted:
    """A worker says that it begins."""

    index: int
    attempt_id: str
    dispatch: int
    worker_id: str
    solo: bool
    batch_id: str
    batch_size: int
    recheck_after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRendered:
    """A worker reports a picture in the temporary bucket. `event`: what is appended if this picture wins; its
    `public_token` is fresh and random.
    """

    event: ImageRendered

    @property
    def index(self) -> int:
        """The image."""
        return self.event.index


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAttemptFailed:
    """A worker reports an attempt without a picture. `event`: what is appended; `decide` sets its `uncounted`."""

    event: ImageAttemptFailed
    verdict: Verdict = Verdict.COUNT

    @property
    def index(self) -> int:
        """The image."""
        return self.event.index


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDeadLetter:
    """The queue handed out the job of this dispatch too often, and gave it up."""

    index: int
    dispatch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordObjectLost:
    """The publisher found the decided attempt's temporary object gone or altered."""

    index: int
    attempt_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPublished:
    """The publisher has put the decided attempt's picture into the public bucket."""

    index: int
    attempt_id: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """The client no longer wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """Its time may have run out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erase:
    """Forget the prompt and the pictures of an ended generation."""

    cause: Cause = Cause.TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseAgain:
    """It was erased before, and this log is older than that: erase it, ended or not."""


Command = (
    Request
    | Dispatch
    | GiveUp
    | RecordStarted
    | RecordRendered
    | RecordAttemptFailed
    | RecordDeadLetter
    | RecordObjectLost
    | RecordPublished
    | Cancel
    | Expire
    | Erase
    | EraseAgain
)
