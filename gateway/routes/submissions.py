"""Turns a valid request into the submission for core: fills in a model's defaults, checks its limits. Pure."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from gateway.bodies import parsing
from gateway.bodies.requests import GenerationRequest
from gateway.errors import InvalidFields
from gateway.ports import ModelEntry
from gateway.served_models import abilities
from schema import fast, limits, pb
from schema.numbers import whole

_FORMATS = {name: pb.OutputFormat.from_string(name.upper()) for name in ("png", "webp", "jpeg")}


def spec(
    wanted: GenerationRequest,
    models: Mapping[str, ModelEntry],
    new_seed: Callable[[], int],
    reported: Callable[[str], fast.ModelCapabilities | None] = lambda _: None,
) -> fast.GenerationSpec:
    """The spec: what to draw, without the prompts. Raises InvalidFields for what this model cannot do."""
    model = models.get(wanted.model) if wanted.model is not None else next(iter(models.values()))
    if model is None:
        raise InvalidFields([("model", "is not served here; GET /v1/models lists what is")])
    asked: dict[str, Any] = {
        name: getattr(model if getattr(wanted, name) is None else wanted, name) for name in abilities.BOUNDED
    }
    found = list(abilities.problems(abilities.of(model, reported(model.name)), model, wanted, asked))
    if found:
        raise InvalidFields(found)
    return fast.GenerationSpec(
        model=model.name,
        **asked,
        seed=new_seed() if wanted.seed is None else wanted.seed,
        n=wanted.n,
        output_format=_FORMATS[wanted.output_format],
        scheduler=wanted.scheduler or "",
    )


def default_spec(models: Mapping[str, ModelEntry]) -> fast.GenerationSpec:
    """The spec of a request with nothing but a prompt. Core charges tenants in units of it."""
    return spec(GenerationRequest(prompt="-"), models, lambda: 0)


def item(
    wanted: GenerationRequest,
    spec: fast.GenerationSpec,
    *,
    generation_id: str,
    tenant: str,
    idempotency: tuple[str, bytes],
    trace: tuple[str, str],
) -> fast.SubmitItem:
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
    """The key and the digest of what the client sent, without defaults or a seed drawn here; both empty without a key.

    256 and 256.0 are the same body. guidance_scale is digested as it was written, as earlier releases did: a retry
    across an upgrade must find its generation. Raises InvalidFields for a malformed key.
    """
    if key is None:
        return "", b""
    if not 0 < len(key) <= limits.MAX_IDEMPOTENCY_KEY_CHARS or not (key.isascii() and key.isprintable()):
        message = f"must have 1 to {limits.MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
        raise InvalidFields([("Idempotency-Key", message)])
    meant = {name: value if name == "guidance_scale" else whole(value) for name, value in sent.items()}
    return key, sha256(parsing.canonical(meant)).digest()
