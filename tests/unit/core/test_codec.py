"""The codec: golden bytes with both of betterproto's codecs, refusals, upcasters."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import betterproto
import pytest

from core.domain.events import TYPES, Event, Failure, Recorded
from core.log.codec import BadEvent, LaterEvent, Upcaster, decode, encode
from core.log.offline import history
from schema import pb
from schema.envelope import Envelope, seal, unseal
from schema.validate import Invalid
from tests.core_events import (
    EXAMPLES,
    attempt_failed,
    dead_lettered,
    dispatched,
    entries,
    published,
    rendered,
    requested,
    spec,
    started,
)
from tests.unit.core import codec_check, event_values

ROOT = Path(__file__).parents[3]


def test_every_event_type_has_an_example() -> None:
    assert [type(event) for event in EXAMPLES] == list(TYPES)


def test_golden_bytes_with_the_rust_codec() -> None:
    assert betterproto.Message.parse.__name__ == "__parse_patch", "the Rust codec is not installed"
    codec_check.check()
    codec_check.cut_short()


def test_golden_bytes_with_the_python_codec() -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.unit.core.codec_check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "checked with the Python codec\n"), done.stderr


@pytest.mark.parametrize(("event", "data"), list(zip(event_values.values(), event_values.golden(), strict=True)))
def test_an_event_at_the_edge_of_what_is_valid_gives_its_golden_bytes(event: Event, data: bytes) -> None:
    assert encode(event) == data
    assert decode(data) == event


def number(value: int) -> pb.AttemptFailure:
    """Enums are plain numbers on the wire, known or not."""
    return cast("pb.AttemptFailure", value)


def sealed(message: betterproto.Message, *, name: str = "image.failed", version: int = 1) -> bytes:
    return seal(Envelope(type=name, version=version, payload=bytes(message)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"DKE1",
        encode(EXAMPLES[0])[:-1],
        encode(EXAMPLES[0]) + b"\0",
        sealed(pb.GenerationErased(), name="generation.forgotten"),
        sealed(pb.GenerationErased(), name="generation.erased", version=2),
        sealed(pb.ImageFailed(index=0, failure=number(0))),
        sealed(pb.ImageFailed(index=10, failure=number(pb.AttemptFailure.HUNG))),
        sealed(pb.ImageFailed(index=0, failure=number(pb.AttemptFailure.HUNG), detail="x" * 201)),
        sealed(pb.GenerationRequested(), name="generation.requested"),
        seal(Envelope(type="image.failed", version=1, payload=b"\xff\xff\xff")),
    ],
)
def test_what_is_not_a_whole_valid_event_is_refused(data: bytes) -> None:
    with pytest.raises(BadEvent):
        decode(data)


def test_a_failure_without_a_name_here_was_written_by_a_later_release() -> None:
    with pytest.raises(LaterEvent, match="unknown failure 99: a later release wrote it"):
        decode(sealed(pb.ImageFailed(index=0, failure=number(99))))


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (requested(tenant=""), "tenant"),
        (requested(tenant="a b"), "tenant"),
        (requested(spec=spec(width=100)), "width"),
        (requested(spec=spec(guidance_scale=float("nan"))), "guidance_scale"),
        (requested(spec=spec(n=11)), "n"),
        (requested(spec=spec(seed=2**32)), "seed"),
        (requested(priority=11), "priority"),
        (requested(prompt_hmac=b""), "prompt_hmac"),
        (requested(requested_at_ms=-1), "requested_at_ms"),
        (dispatched(index=10), "index"),
        (dispatched(dispatch=0), "dispatch"),
        (started(attempt_id=""), "attempt_id"),
        (started(batch_size=0), "batch_size"),
        (rendered(attempt_id="a/b"), "attempt_id"),
        (published(index=-1), "index"),
        (attempt_failed(failure=Failure.NONE), "failure"),
        (attempt_failed(detail="a\x00b"), "detail"),
        (attempt_failed(attempt_id=""), "attempt_id"),
        (attempt_failed(worker_id=""), "worker_id"),
        (dead_lettered(attempt_id="att_1"), "attempt_id"),
        (dead_lettered(worker_id="w1"), "worker_id"),
        (dead_lettered(solo=True), "solo"),
        (dead_lettered(index=10), "index"),
    ],
)
def test_an_event_that_no_reader_would_take_is_not_written(event: Event, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        encode(event)
    assert caught.value.field == field


def test_a_dead_letter_names_no_attempt_and_no_worker() -> None:
    assert decode(encode(dead_lettered(3))) == dead_lettered(3)
    stream = entries("gen_1", [requested(), dispatched(1), dead_lettered(1)])
    recorded = [Recorded(position=each.version, **{n: getattr(each, n) for n in each.__slots__}) for each in stream]
    told = list(history.lines(recorded))
    assert told[-1].endswith(" [1]  image.attempt_failed  dispatch 1: dead lettered (handed out too often)")


def test_the_history_tells_what_was_done_where_it_is_not_what_was_asked() -> None:
    base = rendered()
    facts = replace(base.facts, guidance="cfg", guidance_scale=7.5, negative_prompt=True)
    guided = replace(base, facts=replace(facts, rendered_width=256, rendered_height=272))
    assert decode(encode(guided)) == guided
    told = history_of(guided)
    assert "guidance cfg 7.5, with the negative prompt" in told
    assert "rendered 256x272, cut to the middle" in told
    distilled = replace(base.facts, guidance="none", rendered_width=base.width, rendered_height=base.height)
    told = history_of(replace(base, facts=distilled))
    assert "guidance none, none took effect" in told
    assert "cut to the middle" not in told
    assert "guidance cfg" not in history_of(base)  # of an older worker


def history_of(event: Event) -> str:
    stream = entries("gen_1", [requested(), dispatched(1), started(), event])
    recorded = [Recorded(position=each.version, **{n: getattr(each, n) for n in each.__slots__}) for each in stream]
    return "\n".join(history.lines(recorded))


def test_an_old_version_is_read_through_its_upcasters() -> None:
    """A made-up older release called the event `image.lost` and kept nothing but the index."""

    def with_reason(payload: bytes) -> bytes:
        old = pb.ImagePublished().parse(payload)
        return bytes(pb.ImageFailed(index=old.index, failure=number(pb.AttemptFailure.WORKER_LOST)))

    steps = {
        ("image.lost", 1): Upcaster(type="image.lost", version=2, convert=lambda payload: payload),
        ("image.lost", 2): Upcaster(type="image.failed", version=1, convert=with_reason),
    }
    old = sealed(pb.ImagePublished(index=3), name="image.lost")
    event = decode(old, upcasters=steps)
    assert TYPES[type(event)] == "image.failed"
    assert event == decode(sealed(pb.ImageFailed(index=3, failure=number(pb.AttemptFailure.WORKER_LOST))))
    with pytest.raises(BadEvent, match=r"unknown event 'image.lost' version 1"):
        decode(old)


def test_an_upcaster_that_cannot_read_its_payload_gives_a_bad_event() -> None:
    def fails(_: bytes) -> bytes:
        raise ValueError("not what it was")

    steps = {("image.lost", 1): Upcaster(type="image.failed", version=1, convert=fails)}
    with pytest.raises(BadEvent, match="not what it was"):
        decode(sealed(pb.ImagePublished(), name="image.lost"), upcasters=steps)


def test_the_error_of_a_damaged_event_tells_nothing_of_its_content() -> None:
    data = bytearray(encode(requested(tenant="secret-tenant")))
    data[-1] ^= 1
    with pytest.raises(BadEvent) as caught:
        decode(bytes(data))
    assert "secret" not in str(caught.value)
    assert unseal(encode(EXAMPLES[0])).version == 1
