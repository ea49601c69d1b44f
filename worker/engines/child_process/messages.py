"""The engine contract's values as protobuf and back: jobs, facts, errors. Both ends of the socket use it."""

import re
from dataclasses import fields
from typing import Any, Final

import structlog

from schema import fast, pb, validate
from schema.pb import EngineErrorKind
from worker.engines.contract import Capabilities, EncodedPicture, EngineFacts, Made, ModelAbilities, Picture, RenderJob
from worker.engines.error_places import places, text
from worker.engines.errors import BadOutput, EngineDied, EngineLost, Incapable, LoadFailed, OutOfMemory, Unsupported

_log = structlog.get_logger()
_JOB_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}/[0-9]{1,4}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ABILITIES: Final = tuple(each.name for each in fields(ModelAbilities))
_PNG: Final = int(pb.OutputFormat.PNG)  # a spec must name a format; engines give pixels


class RemoteModelError(Exception):
    """What the model raised in the other process. Each subclass has the name of the original."""


def frame(kind: int, **fields: Any) -> fast.EngineFrame:
    """A frame of one EngineFrameKind."""
    return fast.EngineFrame(kind=kind, **fields)


def job_message(job: RenderJob) -> fast.EngineJob:
    """A job for the other side."""
    spec = fast.GenerationSpec(
        model=job.model,
        width=job.width,
        height=job.height,
        num_inference_steps=job.num_inference_steps,
        guidance_scale=job.guidance_scale,
        seed=job.seed,
        n=1,
        output_format=_PNG,
        scheduler=job.scheduler,
    )
    return fast.EngineJob(
        job_id=job.id, spec=spec, prompts=fast.Prompts(prompt=job.prompt, negative_prompt=job.negative_prompt)
    )


def job_of(message: fast.EngineJob) -> RenderJob:
    """The job in a message. Raises schema.validate.Invalid."""
    job_id(message.job_id)
    spec, prompts = message.spec, message.prompts
    validate.spec(spec)
    validate.prompts(prompts)
    return RenderJob(
        id=message.job_id,
        model=spec.model,
        width=spec.width,
        height=spec.height,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        seed=spec.seed,
        scheduler=spec.scheduler,
        prompt=prompts.prompt,
        negative_prompt=prompts.negative_prompt,
    )


def job_id(value: str) -> str:
    """`value`, if it is "{generation}/{index}". Raises schema.validate.Invalid."""
    if not _JOB_ID.fullmatch(value):
        raise validate.Invalid("job_id", "is not a generation's id and an index")
    return value


def hello(facts: EngineFacts, can: Capabilities) -> fast.EngineHello:
    """What the server says once the model is loaded."""
    return fast.EngineHello(
        engine=facts.engine,
        model=facts.model,
        model_revision=facts.model_revision,
        dtype=facts.dtype,
        device=facts.device,
        libraries=facts.libraries,
        join_midway=can.join_midway,
        evict_one=can.evict_one,
        park=can.park,
        max_batch=can.max_batch,
        abilities=fast.EngineAbilities(**{name: getattr(facts.abilities, name) for name in _ABILITIES}),
    )


def facts_of(message: fast.EngineHello, through: str) -> EngineFacts:
    """The facts of a served engine; its name gets the prefix `through`, for how it was reached."""
    return EngineFacts(
        engine=f"{through}:{message.engine}",
        model=message.model,
        model_revision=message.model_revision,
        dtype=message.dtype,
        device=message.device,
        libraries=message.libraries,
        abilities=ModelAbilities(
            **{name: getattr(message.abilities, name) for name in _ABILITIES}
            | {"schedulers": tuple(message.abilities.schedulers)}
        ),
    )


def capabilities_of(message: fast.EngineHello) -> Capabilities:
    """What a served engine can do; as it runs in a process of its own, it can be started again."""
    return Capabilities(
        join_midway=message.join_midway,
        evict_one=message.evict_one,
        park=message.park,
        restartable=True,
        max_batch=message.max_batch,
    )


def picture_message(picture: Picture | EncodedPicture) -> tuple[fast.EnginePicture, bytes]:
    """A picture for the other side: what is said of it, and its bytes."""
    made = picture.made
    about = fast.EnginePicture(
        width=picture.width,
        height=picture.height,
        scheduler=picture.scheduler,
        media_type=picture.media_type if isinstance(picture, EncodedPicture) else "",
        guidance=made.guidance,
        guidance_scale=made.guidance_scale,
        negative_prompt=made.negative_prompt,
        rendered_width=made.width,
        rendered_height=made.height,
    )
    return about, picture.data if isinstance(picture, EncodedPicture) else picture.rgb


def picture_of(about: fast.EnginePicture, data: bytes) -> Picture | EncodedPicture:
    """The picture that `picture_message` was given."""
    made = Made(
        guidance=about.guidance,
        guidance_scale=about.guidance_scale,
        negative_prompt=about.negative_prompt,
        width=about.rendered_width,
        height=about.rendered_height,
    )
    width, height, scheduler = about.width, about.height, about.scheduler
    if about.media_type:
        return EncodedPicture(
            width=width, height=height, data=data, media_type=about.media_type, scheduler=scheduler, made=made
        )
    return Picture(width=width, height=height, rgb=data, scheduler=scheduler, made=made)


def error_message(error: BaseException) -> fast.EngineError:
    """An engine's error for the other side, without the text of foreign exceptions: that may hold a prompt."""
    match error:
        case OutOfMemory() | MemoryError():
            kind, detail = EngineErrorKind.OUT_OF_MEMORY, ""
        case BadOutput():
            kind, detail = EngineErrorKind.BAD_OUTPUT, str(error)
        case Incapable():
            kind, detail = EngineErrorKind.INCAPABLE, str(error)
        case Unsupported():
            kind, detail = EngineErrorKind.UNSUPPORTED, str(error)
        case LoadFailed():
            kind, detail = EngineErrorKind.LOAD_FAILED, str(error)
        case EngineLost():
            kind, detail = EngineErrorKind.LOST, str(error)
        case _:
            kind, detail = EngineErrorKind.MODEL_ERROR, type(error).__name__
            _log.warning("model.raised", error=detail, at=places(error), error_text=text(error))
    return fast.EngineError(kind=kind, detail=detail[:300])


def exception_of(message: fast.EngineError) -> Exception:
    """The exception for an error of the other side. A lost device ends only that process, so it is EngineDied here."""
    detail = message.detail
    match message.kind:
        case EngineErrorKind.OUT_OF_MEMORY:
            return OutOfMemory(detail)
        case EngineErrorKind.BAD_OUTPUT:
            return BadOutput(detail)
        case EngineErrorKind.INCAPABLE:
            return Incapable(detail)
        case EngineErrorKind.UNSUPPORTED:
            return Unsupported(detail)
        case EngineErrorKind.LOAD_FAILED:
            return LoadFailed(detail)
        case EngineErrorKind.LOST:
            return EngineDied(f"its device was lost ({detail})")
        case _:
            return type(detail, (RemoteModelError,), {})() if _NAME.fullmatch(detail) else RemoteModelError()
