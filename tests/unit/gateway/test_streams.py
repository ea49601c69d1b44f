"""Who is sent a picture when places are few."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.pictures.streams import STALLED_S, Stream, StreamTable


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def filled(
    stack: ExitStack, streams: StreamTable, tenant: str, count: int, *, stalled: bool
) -> tuple[list[Stream], list[int]]:
    cut: list[int] = []
    entered = []
    for number in range(count):
        stream = stack.enter_context(streams.entered(tenant, partial(cut.append, number)))
        if stalled:
            stream.waiting_since = float(number)
        entered.append(stream)
    return entered, cut


def test_a_full_table_refuses_who_has_the_most_of_it(stack: ExitStack) -> None:
    streams = StreamTable(4, now=lambda: 100.0)
    filled(stack, streams, "a", 4, stalled=True)
    with pytest.raises(Unavailable) as refused, streams.entered("a", lambda: None):
        pass
    assert refused.value.retry_after_s
    assert len(streams) == 4


def test_the_client_that_has_stalled_longest_makes_place_for_another_tenant(stack: ExitStack) -> None:
    streams = StreamTable(4, now=lambda: 100.0)
    _, cut = filled(stack, streams, "a", 4, stalled=True)
    filled(stack, streams, "b", 2, stalled=False)
    assert cut == [0, 1]
    assert len(streams) == 4
    with pytest.raises(Unavailable), streams.entered("b", lambda: None):
        pass


def test_nobody_who_reads_is_cut(stack: ExitStack) -> None:
    streams = StreamTable(4, now=lambda: STALLED_S)
    entered, cut = filled(stack, streams, "a", 4, stalled=False)
    entered[0].waiting_since = 0.5  # not for long enough
    with pytest.raises(Unavailable), streams.entered("b", lambda: None):
        pass
    assert not cut


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 8))
def test_the_table_is_bounded_and_empties(arrivals: list[str], limit: int) -> None:
    streams = StreamTable(limit, now=lambda: 100.0)
    with ExitStack() as stack:
        for tenant in arrivals:
            try:
                stream = stack.enter_context(streams.entered(tenant, lambda: None))
                stream.waiting_since = 0.0
            except Unavailable:
                pass
            assert len(streams) <= limit
    assert len(streams) == 0
