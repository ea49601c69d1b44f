"""What clients get. The hot path builds plain dictionaries (`views.py`); a test validates them by these models."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.bodies.requests import Status

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-22T13:30:00.000Z"])]


class Body(BaseModel):
    """Base of all bodies that we send."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Failure(Body):
    """Why there is no picture."""

    code: str = Field(examples=["model_error"])
    message: str


class Progress(Body):
    """Denoising steps done, and all there are, over the images of the generation."""

    step: int
    steps: int


class Image(Body):
    """One of the images of a generation."""

    index: int
    status: Literal["queued", "running", "published", "failed", "dropped", "erased"] = Field(
        description="`dropped`: its generation was cancelled or expired; `erased`: it was published, and is deleted."
    )
    seed: int | None = Field(description="null once erased.")
    url: str | None = Field(
        description="The stable link: never changes and needs the API key in `Authorization`. Null until published, "
        "and once erased."
    )
    signed_url: str | None = Field(
        description="An absolute link that needs no key and no header, for pages, chats and other people: its holder "
        "may fetch this image until `signed_url_expires_at`. Do not log it. Null where `url` is."
    )
    signed_url_expires_at: Timestamp | None = Field(description="When `signed_url` ends: it answers 403 from then on.")
    sha256: str | None = Field(description="Of the file, in hexadecimal digits.")
    size_bytes: int | None
    error: Failure | None


class Links(Body):
    """Where to go from here."""

    self: str
    cancel: str


class Generation(Body):
    """What was asked for, and how far it is. The status never goes back, and erasing leaves it as it is."""

    id: str = Field(examples=["gen_01kan3x9v2f6q8r0t4w5y7zabc"])
    object: Literal["generation"]
    status: Status
    version: int = Field(description="Grows with everything that happens to the generation.")
    model: str
    prompt: str = Field(description="Empty once erased.")
    negative_prompt: str = Field(description="Empty once erased.")
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str | None = Field(description="The one that was asked for; null: the model's own.")
    seed: int | None = Field(description="null once erased.")
    n: int
    output_format: Literal["png", "webp", "jpeg"]
    priority: int
    ttl_s: int
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    erased: bool = Field(
        description="Prompts, seeds, links, digests and sizes are deleted permanently; everything else here is kept."
    )
    backlog_position: int | None = Field(description="1: next in line; null: nothing of it waits in the backlog.")
    progress: Progress | None
    images: list[Image]
    error: Failure | None
    links: Links


class GenerationList(Body):
    """One page, newest first. It may hold fewer than `limit`, even none, and not be the last: then a filter has found
    little so far. The list ends where `has_more` is false and `next_cursor` is null.
    """

    object: Literal["list"]
    data: list[Generation]
    has_more: bool
    next_cursor: str | None


class ModelDefaults(Body):
    """What a request that leaves fields out gets."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float


class ModelLimits(Body):
    """What a request may ask of this model, at most and at least."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    min_width: int
    min_height: int
    min_num_inference_steps: int
    min_guidance_scale: float


class ModelCapabilities(Body):
    """What a model can do beside making pictures."""

    negative_prompt: bool
    guidance: Literal["cfg", "true", "embedded", "none"] = Field(description="How `guidance_scale` works.")
    guidance_off: float = Field(description="At or below this `guidance_scale` there is no guidance.")
    size_factor: int | None = Field(description="Sides that are no multiple are rendered larger, and cut.")
    schedulers: list[str]


class Model(Body):
    """A model that is served, in the shape that OpenAI's clients know, and what else one wants to know of it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    defaults: ModelDefaults
    limits: ModelLimits
    schedulers: list[str] = Field(description="What a request's `scheduler` may be; left out: the model's own.")
    state: Literal["available", "loading", "away", "broken", "no_worker", "unknown"] = Field(
        description="Whether it can be used now. `away`: its images wait until it can be used again. `broken`: no "
        "worker can load it, and its images fail. `unknown`: no worker has said."
    )
    reason: str | None = Field(description="Why it is broken or away; of one worker, when others can use it.")
    workers: int = Field(description="Workers that list it.")
    capabilities: ModelCapabilities | None = Field(description="What it can do, once a worker has found out.")


class ModelList(Body):
    """All models, the default first."""

    object: Literal["list"]
    data: list[Model]


class FieldError(Body):
    """One field and what is wrong with it."""

    field: str
    message: str


class OpenAIError(Body):
    """The same problem in the member that OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str


class Problem(Body):
    """An error, as RFC 9457 problem details."""

    type: str = Field(examples=["urn:darkroom:problem:invalid-fields"])
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = Field(None, description="For 422: each field that is wrong.")
    bound: Literal["share", "everything"] | None = Field(
        None, description="For a full backlog: `share`, the tenant's own work is in the way, or `everything`."
    )
    state: Status | None = Field(
        None, description="For a cancel that came too late, or an erasure too early: the generation's status."
    )
    error: OpenAIError


class Index(Body):
    """What there is."""

    name: Literal["darkroom"]
    links: dict[str, str] = Field(description="Where to go on, by what is there.")


class Health(Body):
    """Whether the process lives and is ready."""

    status: Literal["ok", "not ready"]
    reasons: list[str] | None = Field(None, description="Why it is not ready.")
