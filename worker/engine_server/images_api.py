"""The engine server's HTTP messages: two kinds of JSON request, one form of error.

`Generation` is the subset of the OpenAI Images API (POST /v1/images/generations) that makes sense for one open model,
with the further fields that SGLang-Diffusion and vLLM-Omni accept under the same names; fields that mean nothing here
(user, quality, style, …) are ignored, as there. `Render` is our own: one picture, everything given.
"""

import re
import secrets
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from schema import limits
from schema.numbers import whole
from schema.validate import Invalid
from worker.engines.child_process.messages import job_id
from worker.engines.contract import RenderJob
from worker.engines.errors import BadOutput, EngineLost, OutOfMemory, Unsupported

FileFormat = Literal["png", "webp", "jpeg"]
_SIZE = re.compile(r"([0-9]{2,4})x([0-9]{2,4})")
Whole = Annotated[int, BeforeValidator(whole)]
"""An integer in any JSON notation (1, 1.0, 1e0), but no string and no boolean."""
_side = Field(ge=limits.MIN_SIDE_PX, le=limits.MAX_SIDE_PX, multiple_of=limits.SIDE_MULTIPLE_PX)
_steps = Field(None, ge=1, le=limits.MAX_STEPS)
_guidance = Field(None, ge=0, le=limits.MAX_GUIDANCE, allow_inf_nan=False)
_seed = Field(None, ge=0, lt=limits.SEED_MODULUS)


class BadRequest(Exception):
    """The request is invalid. The text names the field and holds none of its value."""


class Defaults(BaseModel):
    """The served model, and the values for fields that a request leaves out."""

    model_config = ConfigDict(frozen=True)

    model: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float


class Generation(BaseModel):
    """POST /v1/images/generations."""

    model_config = ConfigDict(strict=True)

    prompt: str = Field(min_length=1, max_length=limits.MAX_PROMPT_CHARS)
    model: str | None = None
    n: Whole | None = Field(1, ge=1, le=limits.MAX_IMAGES)
    size: str | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: FileFormat | None = None
    seed: Whole | None = _seed
    num_inference_steps: Whole | None = _steps
    guidance_scale: float | None = _guidance
    scheduler: str | None = Field(None, max_length=limits.MAX_ID_CHARS)
    negative_prompt: str | None = Field(None, max_length=limits.MAX_PROMPT_CHARS)

    @field_validator("size")
    @classmethod
    def _is_size(cls, value: str | None) -> str | None:
        found = _SIZE.fullmatch(value or "auto")
        if found and all(_fits(int(side)) for side in found.groups()):
            return value
        if value in (None, "auto"):
            return None
        raise ValueError("must be WIDTHxHEIGHT in pixels, multiples of 8")

    def jobs(self, given: Defaults, request_id: str) -> list[RenderJob]:
        """One job for each of the n pictures; picture i has seed + i, modulo SEED_MODULUS. Raises BadRequest."""
        width, height = (int(side) for side in self.size.split("x")) if self.size else (given.width, given.height)
        seed = secrets.randbelow(limits.SEED_MODULUS) if self.seed is None else self.seed
        count = self.n or 1
        return [
            RenderJob(
                id=_own_id(request_id if count == 1 else "", index),  # several jobs cannot share the caller's id
                model=_served(self.model, given),
                width=width,
                height=height,
                num_inference_steps=self.num_inference_steps or given.num_inference_steps,
                guidance_scale=given.guidance_scale if self.guidance_scale is None else self.guidance_scale,
                seed=(seed + index) % limits.SEED_MODULUS,
                scheduler=self.scheduler or "",
                prompt=self.prompt,
                negative_prompt=self.negative_prompt or "",
            )
            for index in range(count)
        ]


class Render(BaseModel):
    """POST /v1/render. `format` is rgb for bare pixels, or a file format."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = ""
    model: str | None = None
    width: Whole = _side
    height: Whole = _side
    num_inference_steps: Whole = Field(ge=1, le=limits.MAX_STEPS)
    guidance_scale: float = Field(ge=0, le=limits.MAX_GUIDANCE, allow_inf_nan=False)
    seed: Whole = Field(ge=0, lt=limits.SEED_MODULUS)
    scheduler: str = Field("", max_length=limits.MAX_ID_CHARS)
    prompt: str = Field(min_length=1, max_length=limits.MAX_PROMPT_CHARS)
    negative_prompt: str = Field("", max_length=limits.MAX_PROMPT_CHARS)
    format: Literal["rgb", "png", "webp", "jpeg"] = "rgb"

    def job(self, given: Defaults) -> RenderJob:
        """The requested job. Raises BadRequest for another model."""
        return RenderJob(
            id=_own_id(self.id, 0),
            model=_served(self.model, given),
            width=self.width,
            height=self.height,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            scheduler=self.scheduler,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
        )


def problems(error: ValidationError) -> BadRequest:
    """What is wrong with a request, without what it held."""
    texts = (f"{'.'.join(str(part) for part in each['loc']) or 'body'}: {each['msg']}" for each in error.errors())
    return BadRequest("; ".join(texts))


def refusal(error: Exception) -> tuple[int, str, str]:
    """HTTP status, error code and message for what the engine raised; the text of foreign errors stays here."""
    match error:
        case BadRequest():
            return 400, "invalid_request", str(error)
        case Unsupported():
            return 400, "unsupported", str(error)
        case OutOfMemory() | MemoryError():
            return 500, "out_of_memory", "the picture does not fit into memory"
        case BadOutput():
            return 500, "bad_output", str(error)
        case EngineLost():
            return 503, "engine_lost", "the engine is ending"
        case _:
            return 500, "model_error", f"the model raised {type(error).__name__}"


def _served(asked: str | None, given: Defaults) -> str:
    if asked not in (None, given.model):
        raise BadRequest("model: this server serves another one")
    return given.model


def _fits(side: int) -> bool:
    return limits.MIN_SIDE_PX <= side <= limits.MAX_SIDE_PX and side % limits.SIDE_MULTIPLE_PX == 0


def _own_id(wish: str, index: int) -> str:
    """The caller's id if it is a valid job id, else a random one. An emulated picture encodes it."""
    try:
        return job_id(wish)
    except Invalid:
        return f"req_{secrets.token_hex(8)}/{index}"
