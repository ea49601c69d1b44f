"""The classes of `schema.fast`: the same on the wire as betterproto's, with types that say what they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import betterproto
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema import codec, fast, pb
from tests.unit.schema import fast_types

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_u32 = st.integers(0, 2**32 - 1)
_u64 = st.integers(0, 2**64 - 1)


def _specs() -> st.SearchStrategy[pb.GenerationSpec]:
    return st.builds(
        pb.GenerationSpec,
        model=_texts,
        width=_u32,
        num_inference_steps=_u32,
        guidance_scale=st.floats(allow_nan=False),
        seed=_u64,
        n=_u32,
        output_format=st.sampled_from(list(pb.OutputFormat)),
    )


def _items() -> st.SearchStrategy[pb.SubmitItem]:
    return st.builds(
        pb.SubmitItem,
        generation_id=_texts,
        tenant=_texts,
        body_sha256=st.binary(max_size=32),
        spec=_specs(),
        prompts=st.builds(pb.Prompts, prompt=_texts, negative_prompt=_texts),
        priority=st.integers(-(2**31), 2**31 - 1),
        ttl_s=_u32,
        trace=st.builds(pb.TraceContext, traceparent=_texts),
    )


def _views() -> st.SearchStrategy[pb.GenerationView]:
    images = st.builds(
        pb.ImageView,
        index=_u32,
        status=st.sampled_from(list(pb.ImageStatus)),
        sha256=st.binary(max_size=32),
        failure=st.sampled_from(list(pb.AttemptFailure)),
    )
    return st.builds(
        pb.GenerationView,
        generation_id=_texts,
        status=st.sampled_from(list(pb.GenerationStatus)),
        spec=_specs(),
        images=st.lists(images, max_size=3),
        requested_at_ms=_u64,
        erased=st.booleans(),
    )


@relaxed
@given(items=st.lists(_items(), max_size=3))
def test_a_request_of_either_codec_is_read_by_the_other(items: list[pb.SubmitItem]) -> None:
    slow = pb.SubmitRequest(items=items)
    quick: Any = fast.SubmitRequest.FromString(bytes(slow))
    assert pb.SubmitRequest().parse(quick.SerializeToString()) == slow


@relaxed
@given(view=_views())
def test_a_reply_of_either_codec_is_read_by_the_other(view: pb.GenerationView) -> None:
    slow = pb.GetReply(generation=view)
    quick: Any = fast.GetReply.FromString(bytes(slow))
    assert pb.GetReply().parse(quick.SerializeToString()) == slow
    assert [image.status for image in quick.generation.images] == [int(image.status) for image in view.images]


def test_every_field_of_every_message_has_its_number_and_type() -> None:
    built = codec.build(codec.every_message())
    assert set(built) >= {root.__name__ for root in codec.every_message()}
    for name, quick in built.items():
        slow = getattr(pb, name)()
        numbers = {field: meta.number for field, meta in slow._betterproto.meta_by_field_name.items()}
        assert {field.name: field.number for field in quick.DESCRIPTOR.fields} == numbers


def test_the_types_are_those_of_the_contract() -> None:
    stub = Path(fast.__file__).with_suffix(".pyi").read_text()
    assert stub == fast_types.stub(), "run: python -m tests.unit.schema.fast_types > schema/fast.pyi"


def test_truncated_input_is_refused() -> None:
    whole = bytes(pb.GetReply(generation=pb.GenerationView(generation_id="gen_1", version=3)))
    with pytest.raises(DecodeError):
        fast.GetReply.FromString(whole[:-1])


def test_a_oneof_is_not_translated_silently() -> None:
    @dataclass(eq=False, repr=False)
    class Either(betterproto.Message):
        one: str = betterproto.string_field(1, group="body")

    with pytest.raises(TypeError, match="oneof"):
        codec.build([Either])
