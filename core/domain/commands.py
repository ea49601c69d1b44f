"""The commands for one generation, named in the imperative. `decide` turns each into events, or refuses it."""

from dataclasses import dataclass
from enum import Enum

from core.domain.events import Cause, ImageAttemptFailed, ImageRendered, Spec, Trace
from core.domain.shares import ONE


class Verdict(Enum):
    """How a failed attempt counts against its image. The caller of `decide` judges that, since it depends on the models
    of the other workers, which no event records.
    """

    COUNT = "count"
    """The attempt counts by the rules for its failure."""
    ELSEWHERE = "elsewhere"
    """The attempt does not count: this worker cannot use the model, and another worker may."""
    FINAL = "final"
    """The attempt fails the image: no other worker would do better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Accept a new generation. `charge`: that of each image, in millionths of a default image (`shares.ONE`)."""

    tenant: str
    spec: Spec
    priority: int
    ttl_s: int
    prompt_hmac: bytes
    trace: Trace
    charge: int = ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Record that dispatch number `dispatch` of the image was sent. Its recheck is due after `recheck_after_ms`."""

    index: int
    dispatch: int
    recheck_after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Fail the image if it has used up its solo starts without a result."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStarted:
    """A worker reports that it begins an attempt."""

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
    """The queue has moved the job of this dispatch to the dead-letter queue."""

    index: int
    dispatch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordObjectLost:
    """The publisher found that the temporary object of the decided attempt is missing or altered."""

    index: int
    attempt_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPublished:
    """The publisher has copied the decided attempt's picture to the public bucket."""

    index: int
    attempt_id: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End the generation: its client no longer wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """End the generation if its time to live is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erase:
    """Erase the prompt and the pictures of an ended generation."""

    cause: Cause = Cause.TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseAgain:
    """Erase a generation, ended or not, that is on the list of erasures: the log is older than its erasure."""


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
