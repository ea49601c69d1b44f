"""The history of one generation as lines for people: when, what, on which worker, with which batch mates. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, assert_never

from core.domain import events as e
from core.domain.events import TYPES, Event, Prompts, Recorded
from core.domain.state import Ending, Generation, Phase, fold, image_seed

_FORMATS: Final = {1: "png", 2: "webp", 3: "jpeg"}
_SHOWN_MATES: Final = 6
_CAUSES: Final = {
    e.Cause.UNKNOWN: "",
    e.Cause.TENANT: "asked for by its tenant",
    e.Cause.RETENTION: "kept for as long as its tenant's retention says",
    e.Cause.OPERATOR: "asked for by an operator",
    e.Cause.LISTED: "again, by the list of erasures: the log was older than its erasure",
}


def lines(stream: Sequence[Recorded], prompts: Prompts | None = None) -> Iterator[str]:
    """The lines for a stream, which must not be empty. `prompts`: shown only where they are given."""
    state = fold(stream[0].generation_id, [(each.event, each.at_ms) for each in stream])
    first = stream[0]
    yield from _summary(state)
    if prompts is not None:
        yield f"prompt    {prompts.prompt!r}"
        if prompts.negative_prompt:
            yield f"negative  {prompts.negative_prompt!r}"
    yield ""
    for each in stream:
        after_s = (each.at_ms - first.at_ms) / 1000
        index = getattr(each.event, "index", None)
        image = f"[{index}]" if index is not None else ""
        described = _described(state.id, each.event)
        yield f"{after_s:+11.3f} s  {image:4} {TYPES[type(each.event)]:21} {described}".rstrip()


def _summary(state: Generation) -> Iterator[str]:
    spec = state.spec
    yield f"{state.id}: {_status(state)}"
    yield f"tenant    {state.tenant}, priority {state.priority}, ttl {state.ttl_s or 'none'}{' s' * bool(state.ttl_s)}"
    scheduler = f", {spec.scheduler}" * bool(spec.scheduler)
    yield (
        f"spec      {spec.n} x {spec.model} {spec.width}x{spec.height}, {spec.num_inference_steps} steps, "
        f"guidance {spec.guidance_scale:g}, seed {spec.seed}{scheduler}, {_FORMATS[spec.output_format]}"
    )
    yield f"requested {_instant(state.requested_at_ms)}"
    if state.trace.traceparent:
        yield f"trace     {state.trace.traceparent}"


def _status(state: Generation) -> str:
    done = sum(image.phase is Phase.PUBLISHED for image in state.images)
    ending = state.ending.name.lower() if state.ending else "running" if state.started_at_ms else "queued"
    took = f" after {(state.finished_at_ms - state.requested_at_ms) / 1000:.3f} s" * (state.ending is not Ending.OPEN)
    return f"{ending}{took}, {done} of {len(state.images)} published{', erased' * state.erased}"


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _described(generation_id: str, event: Event) -> str:
    match event:
        case e.GenerationRequested():
            seeds = [image_seed(event.spec.seed, index) for index in range(event.spec.n)]
            return f"seeds {', '.join(map(str, seeds))}"
        case e.ImageDispatched():
            return f"dispatch {event.dispatch}{_alone(event.solo)}"
        case e.ImageStarted():
            return (
                f"{event.attempt_id} on {event.worker_id}, dispatch {event.dispatch}{_alone(event.solo)}, "
                f"{event.batch_id} of {event.batch_size}"
            )
        case e.ImageRendered():
            return _rendered(generation_id, event)
        case e.ImagePublished():
            return event.public_key
        case e.ImageAttemptFailed():
            where = f"{event.attempt_id} on {event.worker_id}, " * bool(event.attempt_id)
            who = f"{where}dispatch {event.dispatch}{_alone(event.solo)}"
            return f"{who}: {_why(event.failure, event.detail)}"
        case e.ImageFailed():
            return _why(event.failure, event.detail)
        case e.GenerationFailed() | e.GenerationErased():
            return event.detail if isinstance(event, e.GenerationFailed) else _CAUSES[event.cause]
        case e.GenerationSucceeded() | e.GenerationCancelled() | e.GenerationExpired():
            return ""
        case _:
            assert_never(event)


def _alone(solo: bool) -> str:
    return ", alone" * solo


def _why(failure: e.Failure, detail: str) -> str:
    return failure.name.lower().replace("_", " ") + f" ({detail})" * bool(detail)


def _rendered(generation_id: str, event: e.ImageRendered) -> str:
    took, facts = event.timings, event.facts
    waited = f"waited {took.wait_ms:.0f} ms" + f" ({took.wait_reason})" * bool(took.wait_reason)
    parts = [
        f"{event.attempt_id} on {event.worker_id}, {waited}, gpu {took.gpu_ms:.0f} of {took.batch_gpu_ms:.0f} ms",
        f"decode {took.decode_ms:.0f}, encode {took.encode_ms:.0f}, upload {took.upload_ms:.0f} ms",
        f"{event.width}x{event.height} {_FORMATS[event.format]} {event.size_bytes} bytes sha256 {event.sha256.hex()}",
        f"seed {facts.seed}, {facts.engine} {facts.model} {facts.model_revision}".rstrip()
        + "".join(f", {fact}" for fact in (facts.scheduler, facts.dtype, facts.device, facts.libraries) if fact),
        *_done(event),
        f"{facts.batch_id} with {_mates(generation_id, event)}",
    ]
    return f"\n{' ' * 42}".join(parts)


def _done(event: e.ImageRendered) -> Iterator[str]:
    """What was done, where it may differ from the request; nothing where the worker did not report it."""
    facts = event.facts
    if facts.guidance:
        scale = f" {facts.guidance_scale:g}" if facts.guidance_scale else ", none took effect"
        away = ", with the negative prompt" * facts.negative_prompt
        yield f"guidance {facts.guidance}{scale}{away}"
    if (facts.rendered_width, facts.rendered_height) not in {(0, 0), (event.width, event.height)}:
        yield f"rendered {facts.rendered_width}x{facts.rendered_height}, cut to the middle"


def _mates(generation_id: str, event: e.ImageRendered) -> str:
    mates = [
        f"{each}[{index}]" for each, index in event.facts.batch_members if (each, index) != (generation_id, event.index)
    ]
    more = f" and {len(mates) - _SHOWN_MATES} more" * (len(mates) > _SHOWN_MATES)
    return ", ".join(mates[:_SHOWN_MATES]) + more or "nobody"
