"""Queue messages at the edges of what is valid, and their golden bodies: what lies on a queue while a release changes.

Run as a program it prints the golden file for the codec of this tree:

    python -m tests.unit.schema.queue_values > tests/unit/schema/golden/queue_bodies_v1.json

The file is never changed for a message that it holds: what a release sent, a later one receives.
"""

import json
from pathlib import Path
from typing import Final

from schema import fast, limits, messages, pb

GOLDEN: Final = Path(__file__).parent / "golden" / "queue_bodies_v1.json"

_WORDS: Final = "Gemälde 漢字 🎨\n"
_ID: Final = "Z" * limits.MAX_ID_CHARS
_DETAIL: Final = "ß" * limits.MAX_DETAIL_CHARS
_LAST: Final = limits.MAX_IMAGES - 1
_MAX_DISPATCH: Final = 2**31
_FAILURES: Final = (1, 2, 3, 4, 5, 7, 10, 12, 13)
"""Of `AttemptFailure`, those that workers report."""


def _least_image() -> fast.ImageRef:
    return fast.ImageRef(generation_id="g", index=0)


def _last_image() -> fast.ImageRef:
    return fast.ImageRef(generation_id=_ID, index=_LAST)


def _jobs() -> list[fast.ImageJob]:
    least = fast.GenerationSpec(
        model="m",
        width=64,
        height=64,
        num_inference_steps=1,
        guidance_scale=-0.0,
        n=1,
        output_format=pb.OutputFormat(1),
    )
    most = fast.GenerationSpec(
        model="M" * 128,
        width=limits.MAX_SIDE_PX,
        height=limits.MAX_SIDE_PX,
        num_inference_steps=limits.MAX_STEPS,
        guidance_scale=limits.MAX_GUIDANCE,
        seed=limits.SEED_MODULUS - 1,
        n=limits.MAX_IMAGES,
        output_format=pb.OutputFormat(3),
        scheduler=_ID,
    )
    return [
        fast.ImageJob(
            image=_least_image(), dispatch=1, spec=least, prompts=fast.Prompts(prompt="p"), trace=fast.TraceContext()
        ),
        fast.ImageJob(
            image=_last_image(),
            dispatch=_MAX_DISPATCH,
            spec=most,
            prompts=fast.Prompts(prompt=_WORDS * 100, negative_prompt="🎨" * limits.MAX_PROMPT_CHARS),
            image_seed=limits.SEED_MODULUS - 1,
            priority=limits.MIN_PRIORITY,
            solo=True,
            requested_at_ms=limits.MAX_WALL_MS,
            trace=fast.TraceContext(traceparent="0" * 64, tracestate="ü=" + "s" * 500),
        ),
    ]


def _rendered() -> list[fast.ImageRendered]:
    return [
        fast.ImageRendered(
            image=_least_image(),
            attempt_id="a",
            dispatch=1,
            worker_id="w",
            temp_key="temp/g/0/a",
            sha256=bytes(32),
            size_bytes=1,
            width=64,
            height=64,
            format=pb.OutputFormat(1),
            timings=fast.AttemptTimings(wait_ms=-0.0),
            facts=fast.RenderFacts(batch_id="b"),
        ),
        fast.ImageRendered(
            image=_last_image(),
            attempt_id=_ID,
            dispatch=_MAX_DISPATCH,
            worker_id=_ID,
            temp_key=f"temp/{_ID}/{_LAST}/{_ID}",
            sha256=bytes(range(224, 256)),
            size_bytes=limits.MAX_OBJECT_BYTES,
            width=limits.MAX_SIDE_PX,
            height=limits.MAX_SIDE_PX,
            format=pb.OutputFormat(3),
            timings=fast.AttemptTimings(
                wait_ms=1e9, gpu_ms=1 / 3, batch_gpu_ms=5e-324, decode_ms=0.1, upload_ms=1e9, wait_reason="ü" * 40
            ),
            facts=fast.RenderFacts(
                engine=_DETAIL,
                model=_DETAIL,
                device=_WORDS,
                libraries=_DETAIL,
                batch_id=_ID,
                batch_members=[_least_image(), _last_image()],
                seed=limits.SEED_MODULUS - 1,
                guidance="embedded",
                guidance_scale=limits.MAX_GUIDANCE,
                negative_prompt=True,
                rendered_width=limits.MAX_RENDERED_PX,
                rendered_height=limits.MAX_RENDERED_PX,
            ),
        ),
    ]


def values() -> list[messages.QueueMessage]:
    """Of each message, least and most; every failure that workers report; text beyond ASCII; -0.0."""
    return [
        *_jobs(),
        fast.ImageStarted(image=_least_image(), attempt_id="a", dispatch=1, worker_id="w", batch_id="b", batch_size=1),
        fast.ImageStarted(
            image=_last_image(),
            attempt_id=_ID,
            dispatch=_MAX_DISPATCH,
            worker_id=_ID,
            solo=True,
            batch_id=_ID,
            batch_size=4096,
        ),
        *_rendered(),
        *(
            fast.ImageAttemptFailed(
                image=_last_image(),
                attempt_id=_ID,
                dispatch=_MAX_DISPATCH,
                worker_id="w",
                failure=pb.AttemptFailure(each),
                solo=True,
                detail=_WORDS,
            )
            for each in _FAILURES
        ),
    ]


def golden() -> list[bytes]:
    """The sealed bytes of `values`, in their order."""
    return [bytes.fromhex(text) for text in json.loads(GOLDEN.read_text())]


if __name__ == "__main__":
    print(json.dumps([messages.encode(message).hex() for message in values()], indent=1))
