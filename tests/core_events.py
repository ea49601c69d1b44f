"""Events, commands and transactions to try core with: fixed examples, and strategies that draw any valid one."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from hypothesis import strategies as st

from core.domain import events as e
from core.domain.events import Event, Failure
from core.domain.projection import project
from core.domain.records import Entry, KeyRow, PromptRow, Transaction
from core.domain.shares import MOST
from core.domain.state import Generation, fold
from schema import limits

NOON_MS = 1_795_348_800_000
"""22 November 2026, 12:00 UTC."""


def spec(**changes: Any) -> e.Spec:
    values: dict[str, Any] = {
        "model": "demo",
        "width": 256,
        "height": 256,
        "num_inference_steps": 8,
        "guidance_scale": 3.5,
        "seed": 7,
        "n": 2,
        "output_format": 1,
    }
    return e.Spec(**(values | changes))


def requested(**changes: Any) -> e.GenerationRequested:
    values: dict[str, Any] = {
        "tenant": "acme",
        "spec": spec(),
        "priority": 0,
        "ttl_s": 3600,
        "requested_at_ms": NOON_MS,
        "expires_at_running_ms": 3_600_000,
        "prompt_hmac": sha256(b"a prompt").digest(),
        "trace": e.Trace(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="a=b"),
    }
    return e.GenerationRequested(**(values | changes))


def dispatched(index: int = 0, dispatch: int = 1, **changes: Any) -> e.ImageDispatched:
    values: dict[str, Any] = {"index": index, "dispatch": dispatch, "solo": False, "recheck_at_running_ms": 120_000}
    return e.ImageDispatched(**(values | changes))


def started(index: int = 0, attempt_id: str = "att_1", **changes: Any) -> e.ImageStarted:
    values: dict[str, Any] = {
        "index": index,
        "attempt_id": attempt_id,
        "dispatch": 1,
        "worker_id": "w1",
        "solo": False,
        "batch_id": "bat_1",
        "batch_size": 2,
        "recheck_at_running_ms": 130_000,
    }
    return e.ImageStarted(**(values | changes))


def rendered(index: int = 0, attempt_id: str = "att_1", generation_id: str = "gen_1") -> e.ImageRendered:
    return e.ImageRendered(
        index=index,
        attempt_id=attempt_id,
        worker_id="w1",
        temp_key=f"temp/{generation_id}/{index}/{attempt_id}",
        sha256=sha256(attempt_id.encode()).digest(),
        size_bytes=65_432,
        width=256,
        height=256,
        format=1,
        public_token="k3J8sP0q",
        timings=e.Timings(
            wait_ms=12.5,
            gpu_ms=100.25,
            batch_gpu_ms=200.5,
            decode_ms=3.0,
            encode_ms=4.0,
            upload_ms=5.0,
            wait_reason="batch_running",
        ),
        facts=e.RenderFacts(
            engine="pipeline",
            model="demo",
            model_revision="r1",
            scheduler="euler",
            dtype="float32",
            device="cpu",
            libraries="torch 2.13.0, diffusers 0.42.1",
            batch_id="bat_1",
            batch_members=((generation_id, index), ("gen_other", 1)),
            seed=7,
        ),
    )


def published(index: int = 0) -> e.ImagePublished:
    return e.ImagePublished(index=index, public_key="k3J8sP0q/" + "ab" * 32 + ".png")


def attempt_failed(index: int = 0, attempt_id: str = "att_1", **changes: Any) -> e.ImageAttemptFailed:
    values: dict[str, Any] = {
        "index": index,
        "attempt_id": attempt_id,
        "dispatch": 1,
        "worker_id": "w1",
        "failure": Failure.MODEL_ERROR,
        "solo": False,
        "detail": "the model raised",
    }
    return e.ImageAttemptFailed(**(values | changes))


def dead_lettered(index: int = 0, **changes: Any) -> e.ImageAttemptFailed:
    values: dict[str, Any] = {
        "attempt_id": "",
        "worker_id": "",
        "failure": Failure.DEAD_LETTERED,
        "detail": "handed out too often",
    }
    return attempt_failed(index, **(values | changes))


EXAMPLES: tuple[Event, ...] = (
    requested(),
    dispatched(),
    started(),
    rendered(),
    published(),
    attempt_failed(),
    e.ImageFailed(index=1, failure=Failure.WORKER_LOST, detail="started alone 3 times without a result"),
    e.GenerationSucceeded(),
    e.GenerationFailed(detail="1 of 2 images failed: the model raised"),
    e.GenerationCancelled(),
    e.GenerationExpired(),
    e.GenerationErased(),
)
"""One of each type."""


def entries(generation_id: str, events: Sequence[Event], *, after: int = 0, running_ms: int = 1_000) -> list[Entry]:
    return [
        Entry(
            generation_id=generation_id,
            version=after + number,
            at_ms=NOON_MS + number,
            running_ms=running_ms,
            event=event,
        )
        for number, event in enumerate(events, 1)
    ]


def state_after(generation_id: str, events: Sequence[Event]) -> Generation:
    return fold(generation_id, [(event, NOON_MS + number) for number, event in enumerate(events, 1)])


def transaction(generation_id: str, events: Sequence[Event], *, after: int = 0, **more: Any) -> Transaction:
    """Appends `events[after:]` of a stream, with the rows that all of `events` leave behind."""
    rows = [project(state_after(generation_id, events))]
    new = [
        Entry(generation_id=generation_id, version=number, at_ms=NOON_MS + number, running_ms=1_000, event=event)
        for number, event in enumerate(events, 1)
        if number > after
    ]
    return Transaction(entries=new, rows=rows, **more)


def submission(generation_id: str, *, key: str = "", tenant: str = "acme", n: int = 2) -> Transaction:
    """What the writer appends for one accepted submission."""
    keys = [key_row(generation_id, tenant=tenant, key=key)] if key else []
    return transaction(
        generation_id, [requested(tenant=tenant, spec=spec(n=n))], prompts=[prompt_row(generation_id)], keys=keys
    )


def prompt_row(generation_id: str, prompt: str = "a large red circle") -> PromptRow:
    return PromptRow(generation_id=generation_id, salt=bytes(16), prompts=e.Prompts(prompt=prompt))


def key_row(generation_id: str, *, tenant: str = "acme", key: str = "k", expires: int = 90_000) -> KeyRow:
    body = sha256(key.encode()).digest()
    return KeyRow(tenant=tenant, key=key, generation_id=generation_id, body_sha256=body, expires_at_running_ms=expires)


# Strategies

ids = st.from_regex(rf"[A-Za-z0-9_.:-]{{1,{limits.MAX_ID_CHARS}}}", fullmatch=True)
details = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=limits.MAX_DETAIL_CHARS)
filled = details.filter(lambda text: bool(text.strip()))
indices = st.integers(0, limits.MAX_IMAGES - 1)
counts = st.integers(1, 2**32 - 1)
times = st.integers(0, 2**53)
sides = st.integers(limits.MIN_SIDE_PX // 8, limits.MAX_SIDE_PX // 8).map(lambda eighth: eighth * 8)
seeds = st.integers(0, limits.SEED_MODULUS - 1)
digests = st.binary(min_size=32, max_size=32)
lapses = st.floats(0, 1e9, allow_nan=False)
failures = st.sampled_from([failure for failure in Failure if failure])

specs = st.builds(
    e.Spec,
    model=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@/-]{0,127}", fullmatch=True),
    width=sides,
    height=sides,
    num_inference_steps=st.integers(1, limits.MAX_STEPS),
    guidance_scale=st.floats(0, limits.MAX_GUIDANCE),
    seed=seeds,
    n=st.integers(1, limits.MAX_IMAGES),
    output_format=st.integers(1, 3),
    scheduler=st.just("") | ids,
)
traces = st.builds(e.Trace, traceparent=details.map(lambda text: text[:64]), tracestate=details)
timings = st.builds(
    e.Timings,
    wait_ms=lapses,
    gpu_ms=lapses,
    batch_gpu_ms=lapses,
    decode_ms=lapses,
    encode_ms=lapses,
    upload_ms=lapses,
    wait_reason=details.map(lambda text: text[:40]),
)
facts = st.builds(
    e.RenderFacts,
    engine=details,
    model=details,
    model_revision=details,
    scheduler=details,
    dtype=details,
    device=details,
    libraries=details,
    batch_id=ids,
    batch_members=st.lists(st.tuples(ids, indices), max_size=5).map(tuple),
    seed=seeds,
    guidance=st.sampled_from(["", "cfg", "true", "embedded", "none"]),
    guidance_scale=st.floats(0, limits.MAX_GUIDANCE),
    negative_prompt=st.booleans(),
    rendered_width=st.integers(0, limits.MAX_RENDERED_PX),
    rendered_height=st.integers(0, limits.MAX_RENDERED_PX),
)

any_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        e.GenerationRequested,
        tenant=ids,
        spec=specs,
        priority=st.integers(limits.MIN_PRIORITY, limits.MAX_PRIORITY),
        ttl_s=st.integers(0, limits.MAX_TTL_S),
        requested_at_ms=times,
        expires_at_running_ms=times,
        prompt_hmac=digests,
        trace=traces,
        charge=st.one_of(st.just(0), st.integers(1, MOST)),
    ),
    st.builds(e.ImageDispatched, index=indices, dispatch=counts, solo=st.booleans(), recheck_at_running_ms=times),
    st.builds(
        e.ImageStarted,
        index=indices,
        attempt_id=ids,
        dispatch=counts,
        worker_id=ids,
        solo=st.booleans(),
        batch_id=ids,
        batch_size=st.integers(1, 4096),
        recheck_at_running_ms=times,
    ),
    st.builds(
        e.ImageRendered,
        index=indices,
        attempt_id=ids,
        worker_id=ids,
        temp_key=filled,
        sha256=digests,
        size_bytes=st.integers(1, limits.MAX_OBJECT_BYTES),
        width=sides,
        height=sides,
        format=st.integers(1, 3),
        public_token=ids,
        timings=timings,
        facts=facts,
    ),
    st.builds(e.ImagePublished, index=indices, public_key=filled),
    st.builds(
        e.ImageAttemptFailed,
        index=indices,
        attempt_id=ids,
        dispatch=counts,
        worker_id=ids,
        failure=failures.filter(lambda failure: failure is not Failure.DEAD_LETTERED),
        solo=st.booleans(),
        detail=details,
    ),
    st.builds(dead_lettered, indices, dispatch=counts, detail=details),
    st.builds(e.ImageFailed, index=indices, failure=failures, detail=details),
    st.builds(e.GenerationFailed, detail=details),
    st.builds(e.GenerationErased, cause=st.sampled_from(e.Cause)),
    st.sampled_from(
        [e.GenerationSucceeded(), e.GenerationCancelled(), e.GenerationExpired()],
    ),
)
