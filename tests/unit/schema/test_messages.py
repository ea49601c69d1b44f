"""Queue messages: round trips, and the refusal of everything outside the validator's domain."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import fast, limits, messages, pb, validate
from schema.envelope import Envelope, seal, unseal


def job() -> fast.ImageJob:
    return fast.ImageJob(
        image=fast.ImageRef(generation_id="gen_01", index=1),
        dispatch=1,
        spec=spec(),
        prompts=fast.Prompts(prompt="a red circle", negative_prompt=""),
        image_seed=8,
        priority=0,
        requested_at_ms=1,
    )


def spec() -> fast.GenerationSpec:
    return fast.GenerationSpec(
        model="demo",
        width=256,
        height=512,
        num_inference_steps=8,
        guidance_scale=3.5,
        seed=7,
        n=2,
        output_format=pb.OutputFormat(1),
    )


def started() -> fast.ImageStarted:
    return fast.ImageStarted(
        image=fast.ImageRef(generation_id="gen_01", index=1),
        attempt_id="att_1",
        dispatch=1,
        worker_id="w1",
        batch_id="bat_1",
        batch_size=4,
    )


def rendered() -> fast.ImageRendered:
    return fast.ImageRendered(
        image=fast.ImageRef(generation_id="gen_01", index=1),
        attempt_id="att_1",
        dispatch=1,
        worker_id="w1",
        temp_key="temp/gen_01/1/att_1",
        sha256=bytes(32),
        size_bytes=100,
        width=256,
        height=512,
        format=pb.OutputFormat(2),
        timings=fast.AttemptTimings(wait_ms=1.0, gpu_ms=2.0),
        facts=fast.RenderFacts(engine="emulated", batch_id="bat_1"),
    )


def failed() -> fast.ImageAttemptFailed:
    return fast.ImageAttemptFailed(
        image=fast.ImageRef(generation_id="gen_01", index=1),
        attempt_id="att_1",
        dispatch=1,
        worker_id="w1",
        failure=pb.AttemptFailure(1),
        solo=True,
        detail="ValueError",
    )


GOOD: list[Callable[[], messages.QueueMessage]] = [job, started, rendered, failed]


@pytest.mark.parametrize("make", GOOD)
def test_round_trip(make: Callable[[], messages.QueueMessage]) -> None:
    assert messages.decode(messages.encode(make())) == make()


@pytest.mark.parametrize("make", GOOD)
def test_truncated_at_every_byte_is_bad(make: Callable[[], messages.QueueMessage]) -> None:
    data = messages.encode(make())
    for end in range(len(data)):
        with pytest.raises(messages.BadMessage):
            messages.decode(data[:end])


@pytest.mark.parametrize("make", GOOD)
def test_a_later_version_and_a_foreign_type_are_bad(make: Callable[[], messages.QueueMessage]) -> None:
    envelope = unseal(messages.encode(make()))
    for stranger in (replace(envelope, version=2), replace(envelope, type="job.video")):
        with pytest.raises(messages.BadMessage, match="unknown message"):
            messages.decode(seal(stranger))


Spoil = Callable[[Any], None]


def set_to(path: str, value: object) -> Spoil:
    def spoil(message: Any) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)

    return spoil


@pytest.mark.parametrize(
    ("make", "path", "value"),
    [
        (job, "image.generation_id", ""),
        (job, "image.generation_id", "../../etc"),
        (job, "image.generation_id", "x" * 65),
        (job, "image.index", 2),
        (job, "dispatch", 0),
        (job, "spec.model", ""),
        (job, "spec.model", "../x"),
        (job, "spec.width", 257),
        (job, "spec.height", 4096),
        (job, "spec.num_inference_steps", 0),
        (job, "spec.guidance_scale", math.nan),
        (job, "spec.guidance_scale", math.inf),
        (job, "spec.guidance_scale", -1.0),
        (job, "spec.n", 11),
        (job, "spec.output_format", 0),
        (job, "spec.output_format", 9),
        (job, "prompts.prompt", "   "),
        (job, "prompts.prompt", "x" * (limits.MAX_PROMPT_CHARS + 1)),
        (job, "prompts.negative_prompt", "a\x00b"),
        (job, "image_seed", 2**32),
        (job, "priority", 11),
        (job, "requested_at_ms", limits.MAX_WALL_MS + 1),
        (started, "attempt_id", ""),
        (started, "batch_size", 0),
        (started, "batch_id", "a b"),
        (rendered, "temp_key", "temp/gen_02/1/att_1"),
        (rendered, "sha256", b"short"),
        (rendered, "size_bytes", 0),
        (rendered, "size_bytes", limits.MAX_OBJECT_BYTES + 1),
        (rendered, "format", 0),
        (rendered, "timings.gpu_ms", math.nan),
        (rendered, "timings.gpu_ms", -1.0),
        (rendered, "facts.engine", "x" * 201),
        (failed, "failure", 0),
        (failed, "failure", int(pb.AttemptFailure.OBJECT_LOST)),
        (failed, "failure", int(pb.AttemptFailure.WORKER_LOST)),
        (failed, "failure", int(pb.AttemptFailure.DEAD_LETTERED)),
        (failed, "detail", "x" * 201),
    ],
)
def test_a_well_sealed_message_out_of_range_is_bad(
    make: Callable[[], messages.QueueMessage], path: str, value: object
) -> None:
    message = make()
    name = unseal(messages.encode(message)).type
    set_to(path, value)(message)
    with pytest.raises(validate.Invalid):
        messages.encode(message)
    with pytest.raises(messages.BadMessage):
        messages.decode(seal(Envelope(type=name, version=1, payload=message.SerializeToString())))


@settings(max_examples=2_500, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_resealed_mutants_are_refused_or_valid(make: Callable[[], messages.QueueMessage], data: st.DataObject) -> None:
    """A mutant with a valid digest is either refused, or it lies inside the validator's domain."""
    envelope = unseal(messages.encode(make()))
    payload = bytearray(envelope.payload)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.sampled_from(("flip", "cut", "insert", "set"))):
            case "flip":
                payload[position] ^= 1 << data.draw(st.integers(0, 7))
            case "cut" if len(payload) > 1:
                del payload[position]
            case "insert":
                payload.insert(position, data.draw(st.integers(0, 255)))
            case _:
                payload[position] = data.draw(st.integers(0, 255))
    try:
        message = messages.decode(seal(replace(envelope, payload=bytes(payload))))
    except messages.BadMessage:
        return
    assert messages.decode(messages.encode(message)) == message
