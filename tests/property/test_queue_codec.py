"""The two codecs of the queue messages: the same bytes for every valid message, the same values for whatever was sent.

`schema.fast` is what runs; the generated classes of betterproto are the reference. The golden bytes were written by
betterproto, before the queues went over to the other.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import betterproto
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import fast, messages, pb, validate
from schema.envelope import Envelope, seal, unseal
from tests.core_events import details, digests, ids, indices, seeds, sides, specs, times, timings, traces
from tests.core_events import facts as any_facts
from tests.unit.schema.test_messages import GOOD
from tests.unit.schema.test_messages import failed as a_failed
from tests.unit.schema.test_messages import job as a_job
from tests.unit.schema.test_messages import rendered as a_rendered
from tests.unit.schema.test_messages import started as a_started
from worker.holding.types import Failure

unhurried = settings(deadline=None)
Values = Mapping[str, Any]


def values_of(thing: Any) -> dict[str, Any]:
    """An event's part as constructor values."""
    made = {field.name: getattr(thing, field.name) for field in fields(thing)}
    if "batch_members" in made:
        made["batch_members"] = [{"generation_id": each, "index": index} for each, index in made["batch_members"]]
    return made


attempts = {
    "image": st.fixed_dictionaries({"generation_id": ids, "index": indices}),
    "attempt_id": ids,
    "dispatch": st.integers(1, 2**31),
    "worker_id": ids,
}
prompts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200).filter(str.strip)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[str, Values]:
    spec = values_of(draw(specs))
    values = {
        "image": {"generation_id": draw(ids), "index": draw(st.integers(0, spec["n"] - 1))},
        "dispatch": draw(st.integers(1, 2**31)),
        "spec": spec,
        "prompts": {"prompt": draw(prompts), "negative_prompt": draw(st.just("") | prompts)},
        "image_seed": draw(seeds),
        "priority": draw(st.integers(-10, 10)),
        "solo": draw(st.booleans()),
        "requested_at_ms": draw(times),
    }
    if draw(st.booleans()):
        values["trace"] = values_of(draw(traces))
    return "ImageJob", values


@st.composite
def rendered(draw: st.DrawFn) -> tuple[str, Values]:
    values: dict[str, Any] = {name: draw(each) for name, each in attempts.items()}
    image = values["image"]
    values |= {
        "temp_key": f"temp/{image['generation_id']}/{image['index']}/{values['attempt_id']}",
        "sha256": draw(digests),
        "size_bytes": draw(st.integers(1, 2**20)),
        "width": draw(sides),
        "height": draw(sides),
        "format": draw(st.integers(1, 3)),
        "timings": values_of(draw(timings)),
        "facts": values_of(draw(any_facts)),
    }
    return "ImageRendered", values


def replies(name: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Values]]:
    return st.tuples(st.just(name), st.fixed_dictionaries(attempts | more))


started = replies("ImageStarted", solo=st.booleans(), batch_id=ids, batch_size=st.integers(1, 4096))
failures = st.sampled_from([int(each) for each in Failure])
failed = replies("ImageAttemptFailed", failure=failures, solo=st.booleans(), detail=details)
any_message = st.one_of(jobs(), rendered(), started, failed)

_CLASSES = {
    "image": "ImageRef",
    "spec": "GenerationSpec",
    "prompts": "Prompts",
    "trace": "TraceContext",
    "timings": "AttemptTimings",
    "facts": "RenderFacts",
}


def build(home: Any, name: str, values: Values) -> Any:
    """A message of one codec or the other."""
    parts: dict[str, Any] = {}
    for field, value in values.items():
        if isinstance(value, Mapping):
            parts[field] = build(home, _CLASSES[field], value)
        elif field == "batch_members":
            parts[field] = [build(home, "ImageRef", each) for each in value]
        else:
            parts[field] = value
    return getattr(home, name)(**parts)


def read(message: Any, like: type[Any]) -> dict[str, Any]:
    """Every field's value, of either codec's message; a part that was not sent reads as its defaults."""
    found: dict[str, Any] = {}
    for field in fields(like):
        value, kind = getattr(message, field.name), betterproto.FieldMetadata.get(field).proto_type
        if kind == betterproto.TYPE_MESSAGE and field.name == "batch_members":
            found[field.name] = [read(each, pb.ImageRef) for each in value]
        elif kind == betterproto.TYPE_MESSAGE:
            found[field.name] = read(value, getattr(pb, _CLASSES[field.name]))
        else:
            found[field.name] = int(value) if kind == betterproto.TYPE_ENUM else value
    return found


@unhurried
@given(any_message)
def test_both_codecs_write_the_same_bytes(drawn: tuple[str, Values]) -> None:
    ours, reference = build(fast, *drawn), build(pb, *drawn)
    assert ours.SerializeToString() == bytes(reference)


@unhurried
@given(any_message)
def test_both_codecs_read_the_same_values(drawn: tuple[str, Values]) -> None:
    data = messages.encode(build(fast, *drawn))
    reference = getattr(pb, drawn[0])
    theirs = reference().parse(unseal(data).payload)
    decoded = messages.decode(data)
    assert decoded.__class__ is getattr(fast, drawn[0])
    assert read(decoded, reference) == read(theirs, reference)
    assert messages.encode(decoded) == data


@unhurried
@given(any_message, st.integers(100, 2**29 - 1), st.binary(max_size=40))
def test_fields_of_a_later_writer_are_passed_over_and_kept(drawn: tuple[str, Values], number: int, data: bytes) -> None:
    message = build(fast, *drawn)
    payload = message.SerializeToString() + varint(number << 3 | 2) + varint(len(data)) + data
    name = unseal(messages.encode(message)).type
    decoded = messages.decode(seal(Envelope(type=name, version=1, payload=payload)))
    reference = getattr(pb, drawn[0])
    assert read(decoded, reference) == read(reference().parse(payload), reference) == read(message, reference)
    assert unseal(messages.encode(decoded)).payload == payload == bytes(reference().parse(payload))


@unhurried
@given(any_message, st.integers(0, 2**31 - 1), st.data())
def test_an_unknown_enum_value_is_a_number_to_both_and_valid_to_none(
    drawn: tuple[str, Values], number: int, data: st.DataObject
) -> None:
    path = {"ImageJob": "spec.output_format", "ImageRendered": "format", "ImageAttemptFailed": "failure"}.get(drawn[0])
    if path is None:
        return
    number = data.draw(st.integers(14, 2**31 - 1))
    ours = build(fast, *drawn)
    holder = ours.spec if path.startswith("spec.") else ours
    setattr(holder, path.rpartition(".")[2], number)
    reference = getattr(pb, drawn[0])
    payload = ours.SerializeToString()
    assert read(reference().parse(payload), reference) == read(ours, reference)
    with pytest.raises(validate.Invalid):
        messages.encode(ours)
    name = unseal(messages.encode(build(fast, *drawn))).type
    with pytest.raises(messages.BadMessage):
        messages.decode(seal(Envelope(type=name, version=1, payload=payload)))


@pytest.mark.parametrize("make", GOOD)
def test_a_prefix_is_refused_by_both_or_read_alike(make: Any) -> None:
    """betterproto takes many a payload that ends too early; ours only one that ends between two fields."""
    message = make()
    ours, reference = type(message), getattr(pb, type(message).__name__)
    payload = message.SerializeToString()
    taken = 0
    for end in range(len(payload)):
        try:
            cut = ours.FromString(payload[:end])
        except Exception:  # noqa: BLE001  (whatever the codec says of it)
            continue
        taken += 1
        assert read(cut, reference) == read(reference().parse(payload[:end]), reference)
        assert cut.SerializeToString() == payload[:end]
    assert 0 < taken < 16


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def test_a_negative_zero_is_the_one_difference() -> None:
    """betterproto takes it for the default and leaves it out; its value is the same."""
    ours, reference = fast.AttemptTimings(wait_ms=-0.0), pb.AttemptTimings(wait_ms=-0.0)
    assert len(ours.SerializeToString()) == 9
    assert bytes(reference) == b""
    assert ours.wait_ms == reference.wait_ms


GOLDEN = {
    a_job: (
        "444b4531096a6f622e696d616765000100000041182975793b45907402fd1942c807aaec0a0a0a0667656e5f303110011001"
        "1a1d0a0464656d6f1080021880042008290000000000000c40300738024001220e0a0c612072656420636972636c65280840"
        "01"
    ),
    a_started: (
        "444b45310d7265706c792e73746172746564000100000022e13eb87cc87bdadb9bf5d1a84a7c04ec0a0a0a0667656e5f3031"
        "100112056174745f3118012202773132056261745f313804"
    ),
    a_rendered: (
        "444b45310e7265706c792e72656e6465726564000100000081eef7bd1c762cc9bcbb9e7956673d25be0a0a0a0667656e5f30"
        "31100112056174745f311801220277312a1374656d702f67656e5f30312f312f6174745f3132200000000000000000000000"
        "000000000000000000000000000000000000000000386440800248800450025a1209000000000000f03f1100000000000000"
        "4062110a08656d756c6174656442056261745f31"
    ),
    a_failed: (
        "444b4531147265706c792e617474656d70745f6661696c6564000100000029a4e05defbafea372aa362c7c95b73ce90a0a0a"
        "0667656e5f3031100112056174745f31180122027731280130013a0a56616c75654572726f72"
    ),
}
"""Sealed by betterproto 2.0.0b7 with its Rust codec."""


@pytest.mark.parametrize(("make", "sealed"), list(GOLDEN.items()))
def test_golden_bytes(make: Any, sealed: str) -> None:
    assert messages.encode(make()).hex() == sealed
    assert messages.decode(bytes.fromhex(sealed)) == make()
