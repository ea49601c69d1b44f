"""The queue messages of the worker: the job it receives, and the three it sends to core. Pure."""

from collections.abc import Mapping

from schema import fast, limits, messages
from worker.engines.contract import RenderJob
from worker.holding.types import Batch, Failed, Held, ImageId, Job, Uploaded


def parse(body: bytes, attributes: Mapping[str, str], *, suspect: bool) -> Job:
    """Decodes a job. `suspect` makes it solo whatever the message says. Raises schema.messages.BadMessage."""
    message = messages.decode(body)
    if not isinstance(message, fast.ImageJob):
        raise messages.BadMessage(f"a {type(message).__name__} is no job")
    spec = message.spec
    image = ImageId(generation_id=message.image.generation_id, index=message.image.index)
    render = RenderJob(
        id=str(image),
        model=spec.model,
        width=spec.width,
        height=spec.height,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        seed=message.image_seed,
        scheduler=spec.scheduler,
        prompt=message.prompts.prompt,
        negative_prompt=message.prompts.negative_prompt,
    )
    return Job(
        image=image,
        dispatch=message.dispatch,
        render=render,
        output_format=spec.output_format,
        priority=message.priority,
        solo=message.solo or suspect,
        requested_at_s=message.requested_at_ms / 1000,
        trace=_trace(attributes, message.trace),
    )


def _trace(attributes: Mapping[str, str], stored: fast.TraceContext) -> dict[str, str]:
    """The sender's own context where the queue carried it, else the generation's."""
    traceparent = attributes.get("traceparent", "")
    if traceparent:
        return {"traceparent": traceparent, "tracestate": attributes.get("tracestate", "")}
    return {"traceparent": stored.traceparent, "tracestate": stored.tracestate} if stored.traceparent else {}


def temp_key(held: Held) -> str:
    """The key of this attempt's picture in the temporary bucket, apart from those of other attempts."""
    image = held.job.image
    return f"temp/{image.generation_id}/{image.index}/{held.attempt_id}"


def started(batch: Batch, held: Held, worker_id: str) -> bytes:
    """The image is about to be admitted."""
    return messages.encode(
        fast.ImageStarted(
            image=held.job.image.ref(),
            attempt_id=held.attempt_id,
            dispatch=held.job.dispatch,
            worker_id=worker_id,
            solo=held.job.solo,
            batch_id=batch.id,
            batch_size=len(batch.members),
        )
    )


def rendered(uploaded: Uploaded, worker_id: str) -> bytes:
    """The picture is in the temporary bucket."""
    held, origin = uploaded.held, uploaded.origin
    return messages.encode(
        fast.ImageRendered(
            image=held.job.image.ref(),
            attempt_id=held.attempt_id,
            dispatch=held.job.dispatch,
            worker_id=worker_id,
            temp_key=uploaded.key,
            sha256=uploaded.sha256,
            size_bytes=uploaded.size_bytes,
            width=origin.width,
            height=origin.height,
            format=held.job.output_format,
            timings=_timings(uploaded),
            facts=_facts(uploaded),
        )
    )


def attempt_failed(failed: Failed, worker_id: str) -> bytes:
    """The attempt gave no picture."""
    held = failed.held
    return messages.encode(
        fast.ImageAttemptFailed(
            image=held.job.image.ref(),
            attempt_id=held.attempt_id,
            dispatch=held.job.dispatch,
            worker_id=worker_id,
            failure=failed.failure,
            solo=held.job.solo,
            detail=failed.detail[: limits.MAX_DETAIL_CHARS],
        )
    )


def _timings(uploaded: Uploaded) -> fast.AttemptTimings:
    held, origin = uploaded.held, uploaded.origin
    return fast.AttemptTimings(
        wait_ms=held.wait_s * 1000,
        gpu_ms=held.gpu_s * 1000,
        batch_gpu_ms=origin.batch_gpu_s * 1000,
        decode_ms=origin.decode_s * 1000,
        encode_ms=uploaded.encode_s * 1000,
        upload_ms=uploaded.upload_s * 1000,
        wait_reason=held.wait_reason,
    )


def _facts(uploaded: Uploaded) -> fast.RenderFacts:
    origin = uploaded.origin
    facts, made = origin.facts, origin.made
    return fast.RenderFacts(
        engine=facts.engine,
        model=facts.model,
        model_revision=facts.model_revision,
        scheduler=origin.scheduler,
        dtype=facts.dtype,
        device=facts.device,
        libraries=facts.libraries,
        batch_id=origin.batch_id,
        batch_members=[member.ref() for member in origin.batch_members],
        seed=uploaded.held.job.render.seed,
        guidance=made.guidance,
        guidance_scale=made.guidance_scale,
        negative_prompt=made.negative_prompt,
        rendered_width=made.width,
        rendered_height=made.height,
    )
