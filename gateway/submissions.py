"""From a valid request to what core is asked to accept: a model's defaults filled in, its limits checked. Pure."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from gateway import body
from gateway.errors import InvalidFields
from gateway.models.requests import GenerationRequest
from gateway.ports import Model
from schema import fast, limits, pb

_FORMATS = {name: pb.OutputFormat.from_string(name.upper()) for name in ("png", "webp", "jpeg")}


def spec(wanted: GenerationRequest, models: Mapping[str, Model], new_seed: Callable[[], int]) -> pb.GenerationSpec:
    """Everything that determines the pictures. Raises InvalidFields for what this model cannot do."""
    model = models.get(wanted.model) if wanted.model is not None else next(iter(models.values()))
    if model is None:
        raise InvalidFields([("model", "is not served here; GET /v1/models lists what is")])
    width = model.width if wanted.width is None else wanted.width
    height = model.height if wanted.height is None else wanted.height
    if width > model.max_width or height > model.max_height:
        found = (("width", width, model.max_width), ("height", height, model.max_height))
        raise InvalidFields(
            [(name, f"may be at most {most} for this model") for name, is_, most in found if is_ > most]
        )
    steps, guidance = wanted.num_inference_steps, wanted.guidance_scale
    return fast.GenerationSpec(
        model=model.name,
        width=width,
        height=height,
        num_inference_steps=model.num_inference_steps if steps is None else steps,
        guidance_scale=model.guidance_scale if guidance is None else guidance,
        seed=new_seed() if wanted.seed is None else wanted.seed,
        n=wanted.n,
        output_format=_FORMATS[wanted.output_format],
    )


def item(
    wanted: GenerationRequest,
    spec: pb.GenerationSpec,
    *,
    generation_id: str,
    tenant: str,
    idempotency: tuple[str, bytes],
    trace: tuple[str, str],
) -> pb.SubmitItem:
    """The submission. `idempotency` is the client's key and the digest of its body, `trace` traceparent and -state."""
    return fast.SubmitItem(
        generation_id=generation_id,
        tenant=tenant,
        idempotency_key=idempotency[0],
        body_sha256=idempotency[1],
        spec=spec,
        prompts=fast.Prompts(prompt=wanted.prompt, negative_prompt=wanted.negative_prompt),
        priority=wanted.priority,
        ttl_s=wanted.ttl_s,
        trace=fast.TraceContext(traceparent=trace[0], tracestate=trace[1]),
    )


def idempotency(key: str | None, sent: Mapping[str, Any]) -> tuple[str, bytes]:
    """The key and the digest of what the client sent, without defaults or a seed of ours. Raises InvalidFields."""
    if key is None:
        return "", b""
    if not 0 < len(key) <= limits.MAX_IDEMPOTENCY_KEY_CHARS or not (key.isascii() and key.isprintable()):
        message = f"must have 1 to {limits.MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
        raise InvalidFields([("Idempotency-Key", message)])
    return key, sha256(body.canonical(sent)).digest()
