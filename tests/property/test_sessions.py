"""The worker against random days: arrivals, sizes, steps, priorities, cancellations, poison, outages, drains.

Every image ends exactly once and for its own reason, every picture is its own, whoever was announced is heard of
again, the engine's contract is kept at every call, and every second of the GPU has one cause.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.session_rig import REASONS, Arrival, Day, Outage, play
from worker.tuning import Mode

TIMES = st.floats(0.0, 8.0).map(lambda seconds: round(seconds, 2))
ARRIVALS = st.builds(
    Arrival,
    at_s=TIMES,
    steps=st.sampled_from([1, 2, 4, 10, 30]),
    side_px=st.sampled_from([64, 64, 64, 128]),
    priority=st.sampled_from([0, 0, 0, 5]),
    solo=st.sampled_from([False] * 7 + [True]),
    fault=st.sampled_from([""] * 10 + list(REASONS)),
    cancelled_s=st.one_of(st.just(0.0), st.just(0.0), TIMES),
    copies_s=st.lists(TIMES, max_size=1),
)
OUTAGES = st.builds(
    Outage, what=st.sampled_from(["jobs", "replies", "store"]), at_s=TIMES, for_s=st.sampled_from([0.3, 2.0, 9.0])
)
DAYS = st.builds(
    Day,
    arrivals=st.lists(ARRIVALS, min_size=1, max_size=14),
    outages=st.lists(OUTAGES, max_size=2),
    joins=st.sampled_from([True, True, True, False]),
    parks=st.booleans(),
    evicts=st.booleans(),
    max_batch=st.sampled_from([1, 2, 4, 8]),
    fits=st.sampled_from([1_000, 1_000, 3, 1]),
    line_images=st.sampled_from([1, 2, 16]),
    mode=st.sampled_from([Mode.OVERLAPPED] * 5 + [Mode.PLAIN, Mode.BATCHED]),
    drained_s=st.one_of(st.just(0.0), st.just(0.0), TIMES),
)


@settings(max_examples=120, deadline=None)
@given(DAYS)
def test_whatever_the_day_brings_every_image_ends_once_and_every_second_has_its_cause(day: Day) -> None:
    wrong = play(day)
    assert not wrong, wrong
