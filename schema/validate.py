"""Strict checks of decoded messages: protobuf itself checks no required fields, no ranges and no finite numbers.

Each check returns nothing, or raises `Invalid` that names the field. The checks bound what processes may send each
other; what a client may request is narrower, and checked by the gateway.
"""

import math
import re
from collections.abc import Sized
from typing import Protocol

from schema import fast, limits, pb


class Invalid(ValueError):
    """A field of a message is missing, of the wrong kind or out of range."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


class Spec(Protocol):
    """What is checked of a specification: a message, or core's dataclass of the same fields."""

    @property
    def model(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def output_format(self) -> int: ...
    @property
    def scheduler(self) -> str: ...


class Trace(Protocol):
    """What is checked of a trace context."""

    @property
    def traceparent(self) -> str: ...
    @property
    def tracestate(self) -> str: ...


class Timings(Protocol):
    """What is checked of an attempt's timings; the milliseconds are read by name."""

    @property
    def wait_reason(self) -> str: ...


class Facts(Protocol):
    """What is checked of a picture's facts, save the batch's members; the texts are read by name."""

    @property
    def batch_id(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def rendered_width(self) -> int: ...
    @property
    def rendered_height(self) -> int: ...


_ID = re.compile(rf"[A-Za-z0-9_.:-]{{1,{limits.MAX_ID_CHARS}}}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@/-]{0,127}")
_MAX_SCHEDULERS = 32
_MAX_BATCH = 4096
_MAX_BOUND = 65_535
_GUIDANCE = frozenset({"", "cfg", "true", "embedded", "none"})
_REPORTED = frozenset(
    int(each)
    for each in (
        pb.AttemptFailure.MODEL_ERROR,
        pb.AttemptFailure.OUT_OF_MEMORY,
        pb.AttemptFailure.BAD_OUTPUT,
        pb.AttemptFailure.UNSUPPORTED,
        pb.AttemptFailure.HUNG,
        pb.AttemptFailure.DRAINED,
        pb.AttemptFailure.MODEL_BROKEN,
        pb.AttemptFailure.REFUSED,
        pb.AttemptFailure.MODEL_AWAY,
    )
)
"""The failures that workers report; the others are found by core."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def identifier(field: str, value: str) -> None:
    """An id of ours: 1 to 64 of letters, digits and `_.:-`, safe in keys, paths and logs."""
    if not _ID.fullmatch(value):
        raise Invalid(field, "is not an identifier")


def whole(field: str, value: int, low: int, high: int) -> None:
    """An integer in [low, high]; enums are plain ints, so they pass here too."""
    if not low <= value <= high:
        raise Invalid(field, f"must be between {low} and {high}")


def text(field: str, value: str, longest: int, *, empty: bool = False) -> None:
    """Text of at most `longest` characters, without control characters except tab, line feed and carriage return.

    Empty or blank text only where `empty` allows it.
    """
    if not empty and not value.strip():
        raise Invalid(field, "must not be empty")
    if len(value) > longest:
        raise Invalid(field, f"may have at most {longest} characters")
    if _CONTROL.search(value):
        raise Invalid(field, "must not hold control characters")


def finite(field: str, value: float, low: float, high: float) -> None:
    """A finite number in [low, high]."""
    if not math.isfinite(value) or not low <= value <= high:
        raise Invalid(field, f"must be a finite number between {low:g} and {high:g}")


def side(field: str, value: int) -> None:
    """A width or height in pixels: within limits and a multiple of eight."""
    whole(field, value, limits.MIN_SIDE_PX, limits.MAX_SIDE_PX)
    if value % limits.SIDE_MULTIPLE_PX:
        raise Invalid(field, f"must be a multiple of {limits.SIDE_MULTIPLE_PX}")


def spec(value: Spec) -> None:
    """A whole specification, defaults filled in."""
    if not _MODEL.fullmatch(value.model):
        raise Invalid("model", "is not a model name")
    side("width", value.width)
    side("height", value.height)
    whole("num_inference_steps", value.num_inference_steps, 1, limits.MAX_STEPS)
    finite("guidance_scale", value.guidance_scale, 0.0, limits.MAX_GUIDANCE)
    whole("seed", value.seed, 0, limits.SEED_MODULUS - 1)
    whole("n", value.n, 1, limits.MAX_IMAGES)
    whole("output_format", value.output_format, 1, 3)
    if value.scheduler:
        identifier("scheduler", value.scheduler)


def prompts(value: fast.Prompts) -> None:
    """Both prompts."""
    text("prompt", value.prompt, limits.MAX_PROMPT_CHARS)
    text("negative_prompt", value.negative_prompt, limits.MAX_PROMPT_CHARS, empty=True)


def image(value: fast.ImageRef) -> None:
    """Which image: a generation's id and an index."""
    identifier("image.generation_id", value.generation_id)
    whole("image.index", value.index, 0, limits.MAX_IMAGES - 1)


def submit_item(value: fast.SubmitItem) -> None:
    """One submission, before core decides it."""
    identifier("generation_id", value.generation_id)
    identifier("tenant", value.tenant)
    text("idempotency_key", value.idempotency_key, limits.MAX_IDEMPOTENCY_KEY_CHARS, empty=True)
    if value.idempotency_key and len(value.body_sha256) != 32:
        raise Invalid("body_sha256", "must have 32 bytes beside an idempotency key")
    spec(value.spec)
    prompts(value.prompts)
    whole("priority", value.priority, limits.MIN_PRIORITY, limits.MAX_PRIORITY)
    whole("ttl_s", value.ttl_s, 0, limits.MAX_TTL_S)
    trace(value.trace)


def image_job(value: fast.ImageJob) -> None:
    """A job on the queue."""
    image(value.image)
    whole("dispatch", value.dispatch, 1, 2**31)
    spec(value.spec)
    prompts(value.prompts)
    whole("image_seed", value.image_seed, 0, limits.SEED_MODULUS - 1)
    whole("priority", value.priority, limits.MIN_PRIORITY, limits.MAX_PRIORITY)
    whole("requested_at_ms", value.requested_at_ms, 0, limits.MAX_WALL_MS)
    if value.image.index >= value.spec.n:
        raise Invalid("image.index", "must be below spec.n")
    trace(value.trace)


def image_started(value: fast.ImageStarted) -> None:
    """The reply `started`."""
    _attempt(value)
    identifier("batch_id", value.batch_id)
    whole("batch_size", value.batch_size, 1, _MAX_BATCH)


def image_rendered(value: fast.ImageRendered) -> None:
    """The reply `rendered`: a picture is in the temporary bucket."""
    _attempt(value)
    if value.temp_key != f"temp/{value.image.generation_id}/{value.image.index}/{value.attempt_id}":
        raise Invalid("temp_key", "does not name this attempt's object")
    if len(value.sha256) != 32:
        raise Invalid("sha256", "must have 32 bytes")
    whole("size_bytes", value.size_bytes, 1, limits.MAX_OBJECT_BYTES)
    side("width", value.width)
    side("height", value.height)
    whole("format", value.format, 1, 3)
    timings(value.timings)
    facts(value.facts)


def image_attempt_failed(value: fast.ImageAttemptFailed) -> None:
    """The reply `attempt_failed`. Only core finds some failures, such as a lost object; no worker may report those."""
    _attempt(value)
    if value.failure not in _REPORTED:
        raise Invalid("failure", "must be one that workers report")
    text("detail", value.detail, limits.MAX_DETAIL_CHARS, empty=True)


def model_report(value: fast.ModelReport) -> None:
    """A worker's report of one of its models."""
    if not _MODEL.fullmatch(value.name):
        raise Invalid("models.name", "is not a model name")
    whole("models.state", value.state, 1, 5)
    whole("models.max_batch", value.max_batch, 0, _MAX_BATCH)
    for field in ("revision", "engine", "reason"):
        text(f"models.{field}", getattr(value, field), limits.MAX_DETAIL_CHARS, empty=True)
    can = value.capabilities
    if can.guidance not in _GUIDANCE:
        raise Invalid("models.capabilities.guidance", "is not a known kind")
    finite("models.capabilities.guidance_off", can.guidance_off, 0.0, limits.MAX_GUIDANCE)
    if len(can.schedulers) > _MAX_SCHEDULERS:
        raise Invalid("models.capabilities.schedulers", "are too many")
    for name in can.schedulers:
        identifier("models.capabilities.schedulers", name)
    for field in ("size_factor", "min_width", "max_width", "min_height", "max_height", "min_steps", "max_steps"):
        whole(f"models.capabilities.{field}", getattr(can, field), 0, _MAX_BOUND)


def _attempt(value: fast.ImageStarted | fast.ImageRendered | fast.ImageAttemptFailed) -> None:
    image(value.image)
    identifier("attempt_id", value.attempt_id)
    identifier("worker_id", value.worker_id)
    whole("dispatch", value.dispatch, 1, 2**31)


def timings(value: Timings) -> None:
    """The durations of an attempt's stages in milliseconds, and the reason for its wait."""
    for field in ("wait_ms", "gpu_ms", "batch_gpu_ms", "decode_ms", "encode_ms", "upload_ms"):
        finite(f"timings.{field}", getattr(value, field), 0.0, 1e9)
    text("timings.wait_reason", value.wait_reason, 40, empty=True)


def facts(value: fast.RenderFacts) -> None:
    """The facts of a picture: with which model, settings and batch it was made."""
    facts_but_members(value)
    batch_members(value.batch_members)
    for member in value.batch_members:
        image(member)


def batch_members(value: Sized) -> None:
    """How many images a batch may have had."""
    if len(value) > _MAX_BATCH:
        raise Invalid("facts.batch_members", "are too many")


def facts_but_members(value: Facts) -> None:
    """The facts of a picture without the batch's members, which core keeps in another form."""
    for field in ("engine", "model", "model_revision", "scheduler", "dtype", "device", "libraries", "guidance"):
        text(f"facts.{field}", getattr(value, field), limits.MAX_DETAIL_CHARS, empty=True)
    identifier("facts.batch_id", value.batch_id)
    whole("facts.seed", value.seed, 0, limits.SEED_MODULUS - 1)
    finite("facts.guidance_scale", value.guidance_scale, 0.0, limits.MAX_GUIDANCE)
    whole("facts.rendered_width", value.rendered_width, 0, limits.MAX_RENDERED_PX)
    whole("facts.rendered_height", value.rendered_height, 0, limits.MAX_RENDERED_PX)


def trace(value: Trace) -> None:
    """A trace context; empty when untraced."""
    text("trace.traceparent", value.traceparent, 64, empty=True)
    text("trace.tracestate", value.tracestate, 512, empty=True)
