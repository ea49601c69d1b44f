"""Golden bytes of every message that travels or is stored: API, queues, engine frames, payloads of events.

They were written by the four codecs that were in use on 30 November 2026: upb's classes for the API, the queues and
the frames, a writer of its own for the events, and betterproto. Whatever codes the messages makes the same bytes and
reads them as the same values. The sealed events are held by tests/unit/core/test_codec.py.
"""

from typing import Any

import pytest

from schema import fast, messages
from schema.gen.darkroom import v1 as gen
from tests.unit.schema import message_values, queue_values

GOLDEN = message_values.golden()
BODIES = queue_values.golden()
EVERY = [(name, variant) for name in message_values.names() for variant in message_values.VARIANTS]


def test_every_message_has_golden_bytes_in_every_variant() -> None:
    assert {name: sorted(made) for name, made in GOLDEN.items()} == {
        name: sorted(message_values.VARIANTS) for name in message_values.names()
    }


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_a_message_gives_its_golden_bytes_and_is_read_from_them(name: str, variant: str) -> None:
    data = GOLDEN[name][variant]
    message: Any = message_values.build(fast, name, variant)
    assert message.SerializeToString() == data
    assert getattr(fast, name).FromString(data) == message


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_the_contract_itself_gives_and_reads_the_golden_bytes(name: str, variant: str) -> None:
    """betterproto's constructor leaves an empty part out, so what is hollow is compared after reading."""
    data = GOLDEN[name][variant]
    reference = getattr(gen, name)().parse(data)
    assert bytes(reference) == data
    if variant != "hollow":
        assert bytes(message_values.build(gen, name, variant)) == data


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_a_queue_message_gives_its_golden_body_and_is_read_from_it(number: int) -> None:
    message, body = queue_values.values()[number], BODIES[number]
    assert messages.encode(message) == body
    assert messages.decode(body) == message


def test_every_queue_message_has_a_golden_body() -> None:
    assert len(BODIES) == len(queue_values.values())
