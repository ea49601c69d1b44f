"""Any valid event comes back as it was written, in the bytes that betterproto would write; noise never passes."""

from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain import events as e
from core.domain.events import Event
from core.log.codec import FACTS, RECORDS, SPEC, TIMINGS, TRACE, BadEvent, decode, encode
from core.log.event_validation import check
from schema import pb
from schema.envelope import Envelope, seal, unseal
from tests.core_events import EXAMPLES, any_event

unhurried = settings(deadline=None)  # a busy machine is no failure


@unhurried
@given(any_event)
def test_an_event_comes_back_as_it_was_written(event: Event) -> None:
    assert decode(encode(event)) == event


KINDS = {cls: record.kind for cls, record in RECORDS.items()} | {
    e.Spec: SPEC.kind,
    e.Trace: TRACE.kind,
    e.Timings: TIMINGS.kind,
    e.RenderFacts: FACTS.kind,
}


def as_message(value: Any) -> Any:
    """The message that betterproto's own constructor makes of an event."""
    if is_dataclass(value):
        parts = {field.name: as_message(getattr(value, field.name)) for field in fields(value)}
        return getattr(pb, KINDS[type(value)].DESCRIPTOR.name)(**parts)
    if isinstance(value, tuple):
        return [pb.ImageRef(generation_id=generation_id, index=index) for generation_id, index in value]
    return value


@unhurried
@given(any_event)
def test_the_bytes_are_those_of_betterproto(event: Event) -> None:
    assert unseal(encode(event)).payload == bytes(as_message(event))


@unhurried
@given(st.sampled_from(EXAMPLES) | any_event, st.data())
def test_a_changed_byte_never_passes(event: Event, data: st.DataObject) -> None:
    changed = bytearray(encode(event))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    with suppress(BadEvent):
        decode(bytes(changed))
        raise AssertionError("a damaged event was taken")


@unhurried
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_payload_sealed_again_gives_a_valid_event_or_none(event: Event, data: st.DataObject) -> None:
    """Whoever can seal may write nonsense; nothing outside the validator's domain comes out."""
    envelope = unseal(encode(event))
    payload = bytearray(envelope.payload)
    for _ in range(data.draw(st.integers(0, 4))):
        if payload:
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload += data.draw(st.binary(max_size=8))
    with suppress(BadEvent):
        check(decode(seal(Envelope(type=envelope.type, version=envelope.version, payload=bytes(payload)))))
