"""Dataclasses as messages of the same fields: what does not fit is refused when it is made, and zero has one sign."""

import math
from dataclasses import dataclass

import pytest

from schema import fast
from schema.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    wait_ms: float = 0.0
    gpu_ms: float = 0.0
    batch_gpu_ms: float = 0.0
    decode_ms: float = 0.0
    encode_ms: float = 0.0
    upload_ms: float = 0.0
    wait_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    generation_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    image: Image
    running: bool
    step: int
    dispatch: int


IMAGE = Record(Image, fast.ImageRef)


def test_a_record_in_a_record_goes_there_and_back() -> None:
    held = Record(Held, fast.HeldImage, {"image": IMAGE})
    value = Held(image=Image(generation_id="gen_1", index=3), running=True, step=5, dispatch=2)
    message = held.message(value)
    assert message == fast.HeldImage(
        image=fast.ImageRef(generation_id="gen_1", index=3), running=True, step=5, dispatch=2
    )
    assert held.value(message) == value


def test_other_fields_are_refused_when_the_record_is_made() -> None:
    with pytest.raises(TypeError, match="Image and Prompts have other fields"):
        Record(Image, fast.Prompts)


def test_a_message_field_without_a_part_and_a_part_without_a_field_are_refused() -> None:
    with pytest.raises(TypeError, match="other fields or parts"):
        Record(Held, fast.HeldImage)
    with pytest.raises(TypeError, match="other fields or parts"):
        Record(Image, fast.ImageRef, {"image": IMAGE})


def test_negative_zero_is_written_as_the_default_that_it_equals() -> None:
    assert fast.AttemptTimings(gpu_ms=-0.0).SerializeToString()  # upb alone writes the sign
    message = Record(Timings, fast.AttemptTimings).message(Timings(gpu_ms=-0.0, upload_ms=-1.5))
    assert math.copysign(1, message.gpu_ms) == 1
    assert message.SerializeToString() == fast.AttemptTimings(upload_ms=-1.5).SerializeToString()
