"""The sound messages that mutants are made of: of every kind one with what it needs, and one with all it can hold."""

from typing import Any

from schema import fast, pb
from tests.unit.schema.test_messages import GOOD

_REF = fast.ImageRef(generation_id="gen_01", index=3)
_ATTEMPT: dict[str, Any] = {"image": _REF, "attempt_id": "att_7", "dispatch": 2, "worker_id": "w1"}

_FULL: tuple[Any, ...] = (
    fast.ImageJob(
        image=_REF,
        dispatch=2,
        spec=fast.GenerationSpec(
            model="demo/v2@main",
            width=2_048,
            height=64,
            num_inference_steps=150,
            guidance_scale=30.0,
            seed=2**32 - 1,
            n=10,
            output_format=pb.OutputFormat(3),
            scheduler="dpmpp_2m",
        ),
        prompts=fast.Prompts(prompt="a blue square\nand an é", negative_prompt="blur"),
        image_seed=2,
        priority=-10,
        solo=True,
        requested_at_ms=1_795_348_800_000,
        trace=fast.TraceContext(
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="a=b"
        ),
    ),
    fast.ImageStarted(**_ATTEMPT, solo=True, batch_id="bat_1", batch_size=4_096),
    fast.ImageRendered(
        **_ATTEMPT,
        temp_key="temp/gen_01/3/att_7",
        sha256=bytes(range(32)),
        size_bytes=64 << 20,
        width=256,
        height=256,
        format=pb.OutputFormat(1),
        timings=fast.AttemptTimings(
            wait_ms=1.0,
            gpu_ms=2.5,
            batch_gpu_ms=1e9,
            decode_ms=0.5,
            encode_ms=3.0,
            upload_ms=4.0,
            wait_reason="batch_running",
        ),
        facts=fast.RenderFacts(
            engine="latent",
            model="demo",
            model_revision="1f",
            scheduler="ddim",
            dtype="float32",
            device="cpu",
            libraries="torch 2",
            batch_id="bat_1",
            batch_members=[fast.ImageRef(generation_id="gen_01", index=index) for index in (3, 4)],
            seed=2**32 - 1,
        ),
    ),
    *(
        fast.ImageAttemptFailed(**_ATTEMPT, failure=pb.AttemptFailure(number), solo=True, detail="stopped")
        for number in (7, 10, 12, 13)
    ),
)
ORIGINALS: tuple[Any, ...] = (*(make() for make in GOOD), *_FULL)
