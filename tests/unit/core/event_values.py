"""Events at the edges of what is valid, beside the typical ones of `tests.core_events`, and their golden bytes.

Run as a program it prints the golden file for the codec of this tree:

    python -m tests.unit.core.event_values > tests/unit/core/golden/event_values_v1.json

The file is never changed for an event that it holds: what a release wrote, a later one reads.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from core.domain import events as e
from core.domain.events import Event, Failure
from core.domain.shares import MOST
from schema import limits
from tests.core_events import attempt_failed, dead_lettered, dispatched, published, rendered, requested, started

GOLDEN: Final = Path(__file__).parent / "golden" / "event_values_v1.json"

_WORDS: Final = "Gemälde 漢字 🎨\n"
_ID: Final = "Z" * limits.MAX_ID_CHARS
_MAX_MS: Final = 2**53
_MAX_COUNT: Final = 2**32 - 1
_DETAIL: Final = "ß" * limits.MAX_DETAIL_CHARS
_OF_NO_ATTEMPT: Final = frozenset({Failure.NONE, Failure.DEAD_LETTERED})

_LEAST_SPEC: Final = e.Spec(
    model="m", width=64, height=64, num_inference_steps=1, guidance_scale=0.0, seed=0, n=1, output_format=1
)
_MOST_SPEC: Final = e.Spec(
    model="M" * 128,
    width=limits.MAX_SIDE_PX,
    height=limits.MAX_SIDE_PX,
    num_inference_steps=limits.MAX_STEPS,
    guidance_scale=limits.MAX_GUIDANCE,
    seed=limits.SEED_MODULUS - 1,
    n=limits.MAX_IMAGES,
    output_format=3,
    scheduler=_ID,
)
_MOST_TIMINGS: Final = e.Timings(
    wait_ms=1e9,
    gpu_ms=1 / 3,
    batch_gpu_ms=5e-324,
    decode_ms=1e9,
    encode_ms=0.1,
    upload_ms=1e9,
    wait_reason="ü" * 40,
)
_MOST_FACTS: Final = e.RenderFacts(
    engine=_DETAIL,
    model=_DETAIL,
    model_revision=_DETAIL,
    scheduler=_DETAIL,
    dtype=_WORDS,
    device=_WORDS,
    libraries=_DETAIL,
    batch_id=_ID,
    batch_members=tuple((_ID, index) for index in range(limits.MAX_IMAGES)),
    seed=limits.SEED_MODULUS - 1,
    guidance="embedded",
    guidance_scale=limits.MAX_GUIDANCE,
    negative_prompt=True,
    rendered_width=limits.MAX_RENDERED_PX,
    rendered_height=limits.MAX_RENDERED_PX,
)


def _requested() -> Iterator[Event]:
    least = requested(
        tenant="a",
        spec=_LEAST_SPEC,
        ttl_s=0,
        requested_at_ms=0,
        expires_at_running_ms=0,
        prompt_hmac=bytes(32),
        trace=e.Trace(),
    )
    yield least
    yield replace(least, priority=limits.MIN_PRIORITY, spec=replace(_LEAST_SPEC, guidance_scale=-0.0))
    yield requested(
        tenant=_ID,
        spec=_MOST_SPEC,
        priority=limits.MAX_PRIORITY,
        ttl_s=limits.MAX_TTL_S,
        requested_at_ms=_MAX_MS,
        expires_at_running_ms=_MAX_MS,
        prompt_hmac=bytes(range(224, 256)),
        trace=e.Trace(traceparent="0" * 64, tracestate="ü=" + "s" * 500),
        charge=MOST,
    )


def _rendered() -> Iterator[Event]:
    base = rendered()
    yield replace(
        base, sha256=bytes(32), size_bytes=1, timings=e.Timings(), facts=e.RenderFacts(batch_id="b"), public_token="t"
    )
    zeros = e.Timings(wait_ms=-0.0, gpu_ms=-0.0, batch_gpu_ms=-0.0, decode_ms=-0.0, encode_ms=-0.0, upload_ms=-0.0)
    yield replace(base, timings=zeros, facts=replace(base.facts, guidance_scale=-0.0))
    yield e.ImageRendered(
        index=limits.MAX_IMAGES - 1,
        attempt_id=_ID,
        worker_id=_ID,
        temp_key=_DETAIL,
        sha256=bytes(range(224, 256)),
        size_bytes=limits.MAX_OBJECT_BYTES,
        width=limits.MAX_SIDE_PX,
        height=limits.MAX_SIDE_PX,
        format=3,
        public_token=_ID,
        timings=_MOST_TIMINGS,
        facts=_MOST_FACTS,
    )


def values() -> list[Event]:
    """Of each type that has fields, least and most; every failure and every cause; text beyond ASCII; -0.0."""
    last = limits.MAX_IMAGES - 1
    return [
        *_requested(),
        dispatched(recheck_at_running_ms=0),
        dispatched(last, _MAX_COUNT, solo=True, recheck_at_running_ms=_MAX_MS),
        started(attempt_id="a", worker_id="w", batch_id="b", batch_size=1, recheck_at_running_ms=0),
        e.ImageStarted(
            index=last,
            attempt_id=_ID,
            dispatch=_MAX_COUNT,
            worker_id=_ID,
            solo=True,
            batch_id=_ID,
            batch_size=4096,
            recheck_at_running_ms=_MAX_MS,
        ),
        *_rendered(),
        published(last),
        e.ImagePublished(index=0, public_key=_WORDS),
        dead_lettered(dispatch=0, detail=""),
        *(attempt_failed(failure=each, detail=_WORDS) for each in Failure if each not in _OF_NO_ATTEMPT),
        attempt_failed(last, _ID, dispatch=_MAX_COUNT, worker_id=_ID, solo=True, detail=_DETAIL, uncounted=True),
        *(e.ImageFailed(index=last, failure=each, detail=_WORDS) for each in Failure if each),
        e.ImageFailed(index=0, failure=Failure.HUNG, detail=""),
        e.GenerationFailed(detail=""),
        e.GenerationFailed(detail=_DETAIL * 3),
        *(e.GenerationErased(cause=each) for each in e.Cause),
    ]


def golden() -> list[bytes]:
    """The sealed bytes of `values`, in their order."""
    return [bytes.fromhex(text) for text in json.loads(GOLDEN.read_text())]


if __name__ == "__main__":
    from core.log.codec import encode

    print(json.dumps([encode(event).hex() for event in values()], indent=1))
