"""Long calls spread over the lanes, up to a bound; a lane is given back however its call ends."""

from contextlib import ExitStack

import pytest

from gateway.lanes import Lanes


def test_calls_spread_evenly_and_find_no_lane_when_all_are_full() -> None:
    lanes = Lanes("abc", per_lane=2)
    with ExitStack() as stack:
        taken = [stack.enter_context(lanes.taken()) for _ in range(6)]
        assert sorted(str(each) for each in taken) == ["a", "a", "b", "b", "c", "c"]
        assert stack.enter_context(lanes.taken()) is None
    with lanes.taken() as again:
        assert again is not None


def test_a_failed_call_gives_its_lane_back() -> None:
    lanes = Lanes("a", per_lane=1)
    with pytest.raises(RuntimeError), lanes.taken():
        raise RuntimeError
    with lanes.taken() as again:
        assert again == "a"
