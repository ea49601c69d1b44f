"""What has happened: the frozen facts that the log keeps, one class per event type.

Nothing here knows how events are encoded (`codec`) or stored (`ports.EventLog`).
Times are milliseconds: `*_at_ms` of Unix time, `*_running_ms` of core's own running
time, which neither an outage nor a clock step moves.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Failure(IntEnum):
    """Why an attempt, or an image, gave no picture. Numbers are those of `pb.AttemptFailure`."""

    NONE = 0
    MODEL_ERROR = 1
    OUT_OF_MEMORY = 2
    BAD_OUTPUT = 3
    UNSUPPORTED = 4
    HUNG = 5
    OBJECT_LOST = 6
    DRAINED = 7
    WORKER_LOST = 8
    DEAD_LETTERED = 9
    MODEL_BROKEN = 10
    REFUSED = 12
    MODEL_AWAY = 13


class Cause(IntEnum):
    """Who or what erased a generation. Numbers are those of `pb.ErasureCause`."""

    UNKNOWN = 0
    TENANT = 1
    RETENTION = 2
    OPERATOR = 3
    LISTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything that determines the pictures, save the prompts. Sides in pixels."""

    model: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    n: int
    output_format: int
    scheduler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What is asked for, in words: personal data, in no event.

    No message of either codec: one takes 100 µs to make, a part of the other keeps the whole call in memory.
    """

    prompt: str
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """W3C trace context of the span under which the generation was requested; empty when untraced."""

    traceparent: str = ""
    tracestate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where one attempt's time went, in milliseconds of the worker's clock."""

    wait_ms: float = 0.0
    gpu_ms: float = 0.0
    batch_gpu_ms: float = 0.0
    decode_ms: float = 0.0
    encode_ms: float = 0.0
    upload_ms: float = 0.0
    wait_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderFacts:
    """What explains and replays a picture. `batch_members` are (generation id, index).

    From `guidance` on: what was done, where it may differ from what was asked for; see schema's RenderFacts.
    """

    engine: str = ""
    model: str = ""
    model_revision: str = ""
    scheduler: str = ""
    dtype: str = ""
    device: str = ""
    libraries: str = ""
    batch_id: str = ""
    batch_members: tuple[tuple[str, int], ...] = ()
    seed: int = 0
    guidance: str = ""
    guidance_scale: float = 0.0
    negative_prompt: bool = False
    rendered_width: int = 0
    rendered_height: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequested:
    """A client's wish was accepted. `expires_at_running_ms` 0: never. The prompt itself lies in a side row.

    `charge`: what one image weighs in the backlog, in millionths of the default request's, as estimated then
    (`shares`); 0 in logs from before there were charges: as much as that.
    """

    tenant: str
    spec: Spec
    priority: int
    ttl_s: int
    requested_at_ms: int
    expires_at_running_ms: int
    prompt_hmac: bytes
    trace: Trace
    charge: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDispatched:
    """The image was put on the jobs queue, for the `dispatch`-th time. Past the recheck it is put there again."""

    index: int
    dispatch: int
    solo: bool
    recheck_at_running_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStarted:
    """A worker is about to admit the image to its GPU."""

    index: int
    attempt_id: str
    dispatch: int
    worker_id: str
    solo: bool
    batch_id: str
    batch_size: int
    recheck_at_running_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRendered:
    """The decision: this attempt's picture is the one. Its public key will be `{token}/{sha256}.{extension}`."""

    index: int
    attempt_id: str
    worker_id: str
    temp_key: str
    sha256: bytes
    size_bytes: int
    width: int
    height: int
    format: int
    public_token: str
    timings: Timings
    facts: RenderFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePublished:
    """The picture stands in the public bucket."""

    index: int
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAttemptFailed:
    """An attempt gave no picture; OBJECT_LOST revokes the decision. The image will be dispatched again.

    DEAD_LETTERED: the queue gave the job up before anybody began it. It names no attempt and no worker.
    `uncounted`: the worker could not use the image's model, and another may: it says nothing about the image.
    """

    index: int
    attempt_id: str
    dispatch: int
    worker_id: str
    failure: Failure
    solo: bool
    detail: str
    uncounted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFailed:
    """The image is given up."""

    index: int
    failure: Failure
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSucceeded:
    """Every image is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFailed:
    """Every image is published or failed, and at least one failed."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationCancelled:
    """The client no longer wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationExpired:
    """Its time to live ran out while core ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationErased:
    """Prompt and pictures are gone; only the story remains.

    LISTED: it was erased before, and this log is older than that (a backup put back).
    """

    cause: Cause = Cause.UNKNOWN


Event = (
    GenerationRequested
    | ImageDispatched
    | ImageStarted
    | ImageRendered
    | ImagePublished
    | ImageAttemptFailed
    | ImageFailed
    | GenerationSucceeded
    | GenerationFailed
    | GenerationCancelled
    | GenerationExpired
    | GenerationErased
)

TYPES: Final[dict[type, str]] = {
    GenerationRequested: "generation.requested",
    ImageDispatched: "image.dispatched",
    ImageStarted: "image.started",
    ImageRendered: "image.rendered",
    ImagePublished: "image.published",
    ImageAttemptFailed: "image.attempt_failed",
    ImageFailed: "image.failed",
    GenerationSucceeded: "generation.succeeded",
    GenerationFailed: "generation.failed",
    GenerationCancelled: "generation.cancelled",
    GenerationExpired: "generation.expired",
    GenerationErased: "generation.erased",
}
"""The explicit name of each event in the log; never derived from a class."""

TERMINAL_TYPES: Final = frozenset(
    {"generation.succeeded", "generation.failed", "generation.cancelled", "generation.expired"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event with its place in the log: position in all of it, version in its own stream (from 1)."""

    position: int
    generation_id: str
    version: int
    at_ms: int
    running_ms: int
    event: Event
