"""What a client may ask for. Strict: no unknown field, no coercion, no infinite number.

An integer may be written as JSON Schema has it: 256, 256.0 and 2.56e2 are the same one.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schema import limits, schedulers
from schema.numbers import whole

_CONTROL = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"
TEXT_PATTERN = rf"^[^{_CONTROL}]*$"
"""No control characters but tab, line feed and carriage return."""
PROMPT_PATTERN = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"
"""The same, and at least one character that is no white space."""

_WHOLE = BeforeValidator(whole)
"""An integer, however JSON writes it; no text, no boolean. It comes after the bounds: pydantic does not translate
bounds that follow it into JSON Schema's keywords, and the API description would lack them."""
Side = Annotated[
    int,
    Field(ge=limits.MIN_SIDE_PX, le=limits.MAX_SIDE_PX, multiple_of=limits.SIDE_MULTIPLE_PX, examples=[256]),
    _WHOLE,
]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]


class GenerationRequest(BaseModel):
    """A picture to be made, or up to ten of them. What is left out, or null, is chosen by the model's defaults."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1, max_length=limits.MAX_PROMPT_CHARS, pattern=PROMPT_PATTERN)] = Field(
        description="What the picture shows.", examples=["a large red circle on a white background"]
    )
    negative_prompt: Annotated[str, Field(max_length=limits.MAX_PROMPT_CHARS, pattern=TEXT_PATTERN)] = Field(
        "",
        description="What the picture should not show. Refused for a model that knows none; without effect where "
        "guidance_scale is at or below the model's `capabilities.guidance_off`.",
    )
    model: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="A name from GET /v1/models; left out: the first of them."
    )
    width: Side | None = Field(None, description="Pixels, a multiple of 8; the model may set a lower maximum.")
    height: Side | None = Field(None, description="Pixels, a multiple of 8; the model may set a lower maximum.")
    num_inference_steps: Annotated[int, Field(ge=1, le=limits.MAX_STEPS), _WHOLE] | None = Field(
        None, description="Denoising steps; the model may have narrower bounds."
    )
    guidance_scale: Annotated[float, Field(ge=0, le=limits.MAX_GUIDANCE, allow_inf_nan=False)] | None = Field(
        None, description="How strongly the prompt is followed; GET /v1/models says how this model uses it."
    )
    scheduler: Annotated[str, Field(max_length=limits.MAX_ID_CHARS)] | None = Field(
        None,
        description="One of the model's `schedulers`, as GET /v1/models lists them; left out: the model's own.",
        examples=list(schedulers.NAMES),
    )
    seed: Annotated[int, Field(ge=0, lt=limits.SEED_MODULUS), _WHOLE] | None = Field(
        None, description="Of image 0; image i uses (seed + i) mod 2^32. Left out: drawn at random, and reported."
    )
    n: Annotated[int, Field(ge=1, le=limits.MAX_IMAGES), _WHOLE] = Field(1, description="How many images.")
    output_format: Literal["png", "webp", "jpeg"] = Field("png", description="The file format of the images.")
    priority: Annotated[int, Field(ge=limits.MIN_PRIORITY, le=limits.MAX_PRIORITY), _WHOLE] = Field(
        0, description="Higher is sooner among your own images; it changes nothing for those of other users."
    )
    ttl_s: Annotated[int, Field(ge=0, le=limits.MAX_TTL_S), _WHOLE] = Field(
        0, description="Seconds after which an unfinished generation expires; 0: never. Outages do not count."
    )


class ListQuery(BaseModel):
    """The query of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=limits.MAX_LIST_PAGE)] = Field(
        20, description="Generations per page at most; a page may hold fewer, even none, and not be the last."
    )
    cursor: Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z0-9_.:=-]*$")] = Field(
        "", description="next_cursor of the page before; left out: the newest."
    )
    status: Status | None = Field(None, description="Only generations in this status.")
