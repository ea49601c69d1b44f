"""The events: frozen facts in the past tense, one class per event type.

Nothing here knows how events are encoded (`core.log.codec`) or stored (`ports.EventLog`).
Times are milliseconds: `*_at_ms` of Unix time, `*_running_ms` of core's own running
time, which neither an outage nor a clock step moves.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Failure(IntEnum):
    """Why an attempt or an image has no picture. The numbers are those of `pb.AttemptFailure`."""

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
    """Who asked for an erasure. The numbers are those of `pb.ErasureCause`."""

    UNKNOWN = 0
    TENANT = 1
    RETENTION = 2
    OPERATOR = 3
    LISTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything that determines the pictures except the prompts. Width and height are in pixels."""

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
    """The prompts: personal data, so they are in no event.

    Not a protobuf message: betterproto takes 100 µs to build one, and upb keeps the whole request in memory as long as
    any part of it is referenced.
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
    """The facts that explain a picture and let it be rendered again. `batch_members` are (generation id, index).

    The fields from `guidance` on say what the engine did where that may differ from the request; see RenderFacts in the
    protos.
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
    """A request was accepted. `expires_at_running_ms` 0: never. The prompt is in a row of its own.

    `charge`: the estimated weight of one image in the backlog, in millionths of a default image (`shares.ONE`). Logs of
    releases without charges have 0, which counts as one default image.
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
    """The image was sent to the jobs queue for the `dispatch`-th time. After the recheck time it may be sent again."""

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
    """The decision: the picture of this attempt wins. Its public key will be `{token}/{sha256}.{extension}`."""

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
    """The picture is in the public bucket."""

    index: int
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAttemptFailed:
    """An attempt ended without a picture, or (OBJECT_LOST) a decision is revoked. The image is pending again.

    DEAD_LETTERED: the queue moved the job to the dead-letter queue before any worker started it; there is no attempt
    and no worker. `uncounted`: the worker could not use the model and another may, so it says nothing about the image.
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
    """The image has failed for good."""

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
    """The client cancelled it, or core did to erase an open generation that is on the list of erasures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationExpired:
    """Its time to live, in core's running time, is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationErased:
    """Prompt and pictures are erased; the other events remain.

    Cause LISTED: the generation had been erased before, and the log was restored from a backup older than that.
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
    """An event as the log holds it: `position` in the whole log, `version` in its own stream, both from 1."""

    position: int
    generation_id: str
    version: int
    at_ms: int
    running_ms: int
    event: Event
