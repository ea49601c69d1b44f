"""From a message's bytes to a `Job`. Pure; the receiver calls it."""

from collections.abc import Mapping

from schema import fast, messages
from worker.engines.contract import RenderJob
from worker.types import ImageId, Job


def parse(body: bytes, attributes: Mapping[str, str], *, suspect: bool) -> Job:
    """The job. `suspect` makes it solo whatever the message says. Raises schema.messages.BadMessage."""
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
        output_format=int(message.spec.output_format),
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
